"""What a format module and a framework module offer: plain names and functions, no base class.

A module satisfies these protocols by having the names (PEP 544, "modules as implementations of protocols").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from paratree.core.tree import ParamTree

    class File(Protocol):
        """An open file: its path, its first bytes, its size."""

        path: str
        head: bytes
        size: int


class Format(Protocol):
    """A file format: one module in ``paratree/formats/``.

    Attributes:
        NAME: name of the format, as shown.
        SUFFIXES: what its files end in; they order the candidates, the bytes decide.
        FOLDER: patterns of the file that stands for a folder, the most telling first.
        LAZY: whether one tensor can be read without the others, in a few words.
        TIES: how the format records ties, in a few words.
        READS: what is read, in a few words.
    """

    NAME: str
    SUFFIXES: tuple[str, ...]
    FOLDER: tuple[str, ...]
    LAZY: str
    TIES: str
    READS: str

    def sniff(self, file: File, /) -> bool:
        """Tell from the bytes whether the file is of this format."""
        ...

    def open(self, file: File, /) -> ParamTree:
        """Read the header only, check it against the file, and return the tree."""
        ...


class Framework(Protocol):
    """A framework: one module in ``paratree/frameworks/``, named as its root package."""

    def matches(self, source: object, /) -> bool:
        """Tell whether ``source`` is a model, a layer or a state of this framework."""
        ...

    def open(self, source: object, /) -> ParamTree:
        """Return a tree over the live object; values stay where they are."""
        ...
