"""``python -m paratree``: the command line."""

from __future__ import annotations

import sys

from paratree.cli import main

if __name__ == "__main__":
    sys.exit(main())
