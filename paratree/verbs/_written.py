"""What becomes of parameters before they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paratree.core.names import OTHER

if TYPE_CHECKING:
    import numpy as np

    from paratree.core.array import Index, LazyArray, Shape
    from paratree.core.tree import ParamTree


class Untied:
    """An array that is tied with nothing."""

    __slots__ = ("_array",)

    storage = None

    def __init__(self, array: LazyArray) -> None:
        self._array = array

    @property
    def shape(self) -> Shape:
        """Length along each axis."""
        return self._array.shape

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self._array.dtype

    @property
    def problem(self) -> str | None:
        """Why there is no value to read."""
        return self._array.problem

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the values at a basic index."""
        return self._array.read(index)


def skipped_names(tree: ParamTree) -> list[str]:
    """Return the names of what belongs to no model and has no numbers, as texts."""
    return [name for name, param in tree.items() if param.kind == OTHER and param.array.problem is not None]
