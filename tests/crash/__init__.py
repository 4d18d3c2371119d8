"""The crash matrix: writers that are killed, refused by the disk, or cut off from power, and what is left."""
