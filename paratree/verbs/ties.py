"""Which names are one parameter, and what that saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paratree.core.array import Shape
    from paratree.core.param import Param
    from paratree.core.tree import ParamTree


@dataclass(frozen=True, slots=True)
class TiedGroup:
    """Two or more names that are one parameter.

    Attributes:
        names: the names, in model order.
        shape: length along each axis.
        dtype: name of the dtype.
        nbytes: bytes of the one parameter; ``None`` if the width of its dtype is unknown.
        expanded_nbytes: bytes if each name had its own.
    """

    names: tuple[str, ...]
    shape: Shape
    dtype: str
    nbytes: int | None
    expanded_nbytes: int | None


@dataclass(frozen=True, slots=True)
class Ties:
    """Every tied group of a tree.

    Attributes:
        source: path, or the class of the live object.
        groups: the groups, in order of their first names.
    """

    source: str
    groups: tuple[TiedGroup, ...]

    def __bool__(self) -> bool:
        return bool(self.groups)


def ties(tree: ParamTree) -> Ties:
    """Return the tied groups of a tree; a tie is proven by the storage, never by equal values.

    Args:
        tree: a tree of a live model or a file.

    Returns:
        The groups; false if there are none.

    Example:
        >>> ties(paratree.open("tied.safetensors")).groups[0].names  # doctest: +SKIP
        ('embed.weight', 'head.weight')
    """
    return Ties(tree.source, tuple(_group(tree, names) for names in tree.ties))


def _group(tree: ParamTree, names: tuple[str, ...]) -> TiedGroup:
    param: Param = tree[names[0]]
    expanded = None if param.nbytes is None else param.nbytes * len(names)
    return TiedGroup(names, param.shape, param.dtype, param.nbytes, expanded)
