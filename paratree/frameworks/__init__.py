"""Frameworks, one module each, named as the root package of the framework's classes."""
