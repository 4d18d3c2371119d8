"""Live models."""
