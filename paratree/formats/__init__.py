"""File formats, one module each. The folder is the registry: a new file is a new format.

A module whose name begins with an underscore is a part of a format, not a format.
"""
