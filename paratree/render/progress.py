"""A progress bar on stderr for long work, if that is a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SHORT = 64 << 20  # bytes that take no time worth a bar


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar while the work goes on; yield what to call with the bytes done and the bytes of all.

    Args:
        what: a word for the work, as ``"reading"``.

    Yields:
        A function, or ``None`` if stderr is no terminal.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, visible=False)

        def update(done: int, total: int) -> None:
            shown.update(task, completed=done, total=total, visible=total > _SHORT)

        yield update
