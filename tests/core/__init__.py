"""What a tree is; no framework and no file is needed here."""
