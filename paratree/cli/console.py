"""Exit codes, messages, and how wide and rich the terminal is."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

DONE, NOTHING, TROUBLE, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141
_LONGEST_WIDTH = 5  # digits of COLUMNS; more is nonsense


def complain(message: str, arguments: Sequence[str] = (), status: int = TROUBLE) -> int:
    """Say on stderr what is wrong, in a line, and return the exit code."""
    if "--debug" in arguments:
        import traceback

        traceback.print_exc()
    if sys.stderr is not None:  # closed: print would take stdout instead
        print(f"paratree: {message}", file=sys.stderr)
    return status


def is_rich() -> bool:
    """Tell whether to print tables and colours: on a terminal, or where FORCE_COLOR asks for them."""
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def print_rich(renderable: RenderableType) -> None:
    """Print a table or a text with colours."""
    from rich.console import Console

    forced = True if os.environ.get("FORCE_COLOR") else None
    console = Console(force_terminal=forced, width=width(), highlight=False, markup=False, emoji=False)
    console.print(renderable)


def width() -> int:
    """Return the number of columns; shutil would do it, at a tenth of the whole start."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and len(columns) <= _LONGEST_WIDTH and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80
