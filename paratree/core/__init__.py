"""What a parameter tree is. Imports nothing else of paratree, and only the standard library."""
