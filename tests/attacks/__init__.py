"""Hostile and damaged files, made here: nothing binary is kept in the repository."""
