"""Which axis of one array is which of another: by their layouts, or by what makes the values equal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratree.core.errors import MissingPackageError, UnreadableError
from paratree.verbs._pairs import Pair, is_equal, is_same, native
from paratree.verbs.reading import flat

if TYPE_CHECKING:
    from paratree.core.tree import Param

    Axes = tuple[int, ...]

_CORNER = 4


def axes_between(a: Param, b: Param) -> Axes | None:
    """Return for each axis of ``a`` which of ``b`` has its name; ``None`` if in order, or not known."""
    if a.layout is None or b.layout is None or a.layout == b.layout:
        return None
    first, second = a.layout.split(), b.layout.split()
    if sorted(first) != sorted(second) or len(set(first)) < len(first) or len(first) != len(a.shape):
        return None
    return tuple(map(second.index, first))


def turned_axes(a: Param, b: Param) -> Axes | None:
    """Return the order of the axes of ``b`` in which all its values are those of ``a``, if there is one.

    Looked at are the transpose, and the ways in which frameworks order the axes of a convolution.
    """
    for axes in _orders(len(a.shape)):
        if len(axes) != len(b.shape) or a.shape != tuple(b.shape[axis] for axis in axes):
            continue
        try:
            if _corner_is_same(a, b, axes) and is_same(Pair(a, b, axes), a.dtype):
                return axes
        except (UnreadableError, MissingPackageError):
            return None
    return None


def _corner_is_same(a: Param, b: Param, axes: Axes) -> bool:
    """Look at a few values, which nearly always tell that an order is wrong."""
    corner = (slice(0, _CORNER),) * len(axes)
    turned = b[corner].transpose(axes).astype(a[corner].dtype)
    return is_equal(native(flat(a[corner])), native(flat(turned)))


def _orders(ndim: int) -> tuple[Axes, ...]:
    if ndim < 2:
        return ()
    space = tuple(range(2, ndim))
    to_front, to_back = (ndim - 1, ndim - 2, *range(ndim - 2)), (*space, 1, 0)
    return tuple(dict.fromkeys((tuple(range(ndim))[::-1], to_front, to_back)))
