"""Where bytes are: local files, archives, shards. Every bound of every format is checked here."""
