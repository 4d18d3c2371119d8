"""The files that a source consists of, none of which is overwritten by what is derived from it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from paratree.core.errors import MismatchError, printable
from paratree.registry import known_formats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paratree.core.tree import ParamTree


class SourceFiles(NamedTuple):
    """The files of a source, the one that stands for it first; none of a live model.

    Attributes:
        format: name of its format.
        paths: those that were opened.
    """

    format: str = ""
    paths: Sequence[str] = ()

    def check_is_none(self, path: str | os.PathLike[str]) -> None:
        """Look that a path is no file of the source, by another name neither.

        Raises:
            MismatchError: it is one.
        """
        if not self.paths or not os.path.exists(path):  # noqa: PTH110
            return
        if any(_is_same(path, own) for own in self.paths) or self._is_inside(path):
            fact = "a file of the source itself, whose weights would be lost"
            raise MismatchError(f"{printable(os.fspath(path))}: {fact}; give another path")

    def _is_inside(self, path: str | os.PathLike[str]) -> bool:
        """Tell whether a path is named as what the format has in its folder: it opens files when asked."""
        folder = os.path.dirname(os.path.realpath(self.paths[0]))  # noqa: PTH120
        place = os.path.relpath(os.path.realpath(path), folder)
        parts = Path(place).parts
        if parts[0] == os.pardir:
            return False
        of_folders = [each for each in known_formats().values() if each.WRITES and each.MAKES == "folder"]
        patterns = [each.FILES for each in of_folders if self.format == each.NAME]
        ends = ["/".join(parts[first:]) for first in range(len(parts))]
        return any(re.fullmatch(pattern, end) for pattern in patterns for end in ends)


NO_FILES = SourceFiles()


def files_of(tree: ParamTree) -> SourceFiles:
    """Return the files that a tree was opened from, wherever the process goes afterwards."""
    return SourceFiles(tree.format, [os.path.abspath(path) for path in tree.files])  # noqa: PTH100


def _is_same(path: str | os.PathLike[str], other: str) -> bool:
    try:
        return os.path.samefile(path, other)  # noqa: PTH121
    except OSError:  # it is gone
        return False
