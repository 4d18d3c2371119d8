"""Which axis of one array is which of another: by their layouts, or by what makes the values equal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from paratree.core.errors import MissingPackageError, UnreadableError
from paratree.core.names import last_segment
from paratree.verbs._owners import parts
from paratree.verbs._pairs import Pair, is_equal, is_equal_as, is_same, native
from paratree.verbs.reading import flat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.param import Param
    from paratree.core.tree import ParamTree

    Axes = tuple[int, ...]
    Values = np.ndarray[Any, Any]

_CORNER = 4
_SPACE = {2: (), 3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}
_TURNED = ({"Flax", "PyTorch"}, {"Orbax", "PyTorch"})
_TRANSPOSED = re.compile(r"conv\w*transpose|transposed?_?conv|deconv", re.IGNORECASE)


def axes_between(a: Param, b: Param, turned: bool | None = None) -> Axes | None:
    """Return for each axis of ``a`` which of ``b`` has its name; ``None`` if in order, or not known.

    A file seldom says a layout; but a ``weight`` whose counterpart is called ``kernel`` is of PyTorch's or
    Gluon's order, and the kernel of Flax's and Keras's. ``turned`` tells whether it is in these two sources;
    where that is not known, two files of equal values in order are left so.
    """
    axes = _named_axes(a, b)
    if axes is None or (a.layout is not None and b.layout is not None):
        return axes
    if not fit(a, b, axes):
        return None
    if a.layout is not None or b.layout is not None or turned:
        return axes
    return None if turned is False or _lies_alike(a, b) else axes


def are_turned(
    pairs: Iterable[tuple[Param, Param]], trees: Sequence[ParamTree], model: ParamTree | None
) -> bool | None:
    """Tell whether kernels have the axes of the weights that they are paired with in another order.

    In Flax's models they have. Else pairs tell whose shapes fit in one of the two orders only; where there is
    none, they have beside a model, and in a file of Flax or Orbax beside one of PyTorch.

    Args:
        pairs: parameters of the two sources.
        trees: the two sources.
        model: which of them is a live model that the other is for, if one is.

    Returns:
        ``None`` if nothing tells.
    """
    found = _seen_turned(pairs)
    if model is not None:
        return True if found is None else found or model.immutable
    makers = {tree.format.split(" ")[0] for tree in trees}
    return True if found is None and makers in _TURNED else found


def _seen_turned(pairs: Iterable[tuple[Param, Param]]) -> bool | None:
    seen = {
        fit(a, b, axes)
        for a, b in pairs
        if (axes := _named_axes(a, b)) is not None and fit(a, b, axes) != fit(a, b, None)
    }
    return max(seen, default=None)


def _lies_alike(a: Param, b: Param) -> bool:
    in_order = tuple(range(len(a.shape)))
    return any(_is_equal(a, b, in_order, dtype) for dtype in dict.fromkeys((a.dtype, b.dtype)))


def shapes_fit(a: Param, b: Param) -> bool:
    """Tell whether two parameters can have the same values, each in its layout; no value is read."""
    return a.shape == b.shape or fit(a, b, _named_axes(a, b))


def fit(a: Param, b: Param, axes: Axes | None) -> bool:
    """Tell whether the shapes are the same when the axes of the second are put in an order.

    A length that is not known yet fits every one.
    """
    if len(a.shape) != len(b.shape) or (axes is not None and len(axes) != len(b.shape)):
        return False
    turned = b.shape if axes is None else tuple(b.shape[axis] for axis in axes)
    return all(one == other or None in (one, other) for one, other in zip(a.shape, turned, strict=True))


def _named_axes(a: Param, b: Param) -> Axes | None:
    first, second = _usual_layout(a, b), _usual_layout(b, a)
    if first is None or second is None or first == second or sorted(first) != sorted(second):
        return None
    if len(set(first)) < len(first) or len(first) != len(a.shape):
        return None
    return tuple(map(second.index, first))


def _usual_layout(param: Param, other: Param) -> list[str] | None:
    """Return the layout of a parameter; one that is not known as its name beside the other's has it."""
    if param.layout is not None:
        return param.layout.split()
    words, space = (last_segment(param.name), last_segment(other.name)), _SPACE.get(len(param.shape))
    if space is None or sorted(words) != ["kernel", "weight"]:
        return None
    weight, kernel = ("in", "out"), ("out", "in")
    if not _is_layout_of_transposed(other):
        weight, kernel = kernel, weight
    return [*weight, *space] if words[0] == "weight" else [*space, *kernel]


# Transposed convolutions


def is_transposed(a: Param, b: Param) -> bool:
    """Tell whether two parameters are of a transposed convolution, by a layout that is known or by a name."""
    named = any(_TRANSPOSED.search(param.name) for param in (a, b)) and len(a.shape) > 2
    return named or any(map(_is_layout_of_transposed, (a, b)))


def _is_layout_of_transposed(param: Param) -> bool:
    """Tell it of PyTorch's and Gluon's, and of Keras's; Flax's own is that of its other convolutions."""
    words = (param.layout or "").split()
    return len(words) > 2 and (words[:2] == ["in", "out"] or words[-2:] == ["out", "in"])


def other_order(a: Param, b: Param) -> Axes | None:
    """Return the order of the axes of ``b`` with its channels in and out exchanged, where that fits, too.

    A kernel of three axes or more may then be meant so: Flax lays out a transposed convolution as any other,
    and PyTorch, Gluon and Keras do not. ``None`` if both layouts are known.
    """
    axes, first = _named_axes(a, b), _usual_layout(a, b)
    if axes is None or first is None or len(axes) < 3 or None not in (a.layout, b.layout):
        return None
    other = list(axes)
    one, two = first.index("in"), first.index("out")
    other[one], other[two] = axes[two], axes[one]
    return tuple(other) if fit(a, b, tuple(other)) else None


def is_flipped(a: Param, b: Param) -> bool:
    """Tell whether one is of a transposed convolution and laid out as such, and the other, too, is as none.

    Flax and Equinox apply such a kernel as it is, the others mirrored in space.
    """
    if a.layout is None or b.layout is None or sorted(a.layout.split()) != sorted(b.layout.split()):
        return False
    return _is_layout_of_transposed(a) != _is_layout_of_transposed(b)


# By the values


def turned_axes(a: Param, b: Param, known: Axes | None = None, *, dtype: str) -> Axes | None:
    """Return the order of the axes of ``b`` in which its values are those of ``a``, all cast to a dtype.

    Looked at are the transpose, and the ways in which frameworks order the axes of a convolution; and the
    order in which they lie, if they are known to have been compared in another.
    """
    ndim = len(a.shape)
    straight = tuple(range(ndim))
    orders = [order for order in (straight, *_orders(ndim)) if order != (known or straight)]
    return next((axes for axes in orders if fit(a, b, axes) and _is_equal(a, b, axes, dtype)), None)


def _is_equal(a: Param, b: Param, axes: Axes, dtype: str) -> bool:
    try:
        return _corner_is_same(a, b, axes, dtype) and is_same(Pair(a, b, axes), dtype)
    except (UnreadableError, MissingPackageError):
        return False


def _corner_is_same(a: Param, b: Param, axes: Axes, dtype: str) -> bool:
    """Look at a few values, which nearly always tell that an order is wrong."""
    corner = (slice(0, _CORNER),) * len(axes)
    turned = b[corner].transpose(axes)
    return is_equal_as(native(flat(a[corner])), native(flat(turned)), dtype)


def _orders(ndim: int) -> tuple[Axes, ...]:
    if ndim < 2:
        return ()
    space = tuple(range(2, ndim))
    to_front, to_back = (ndim - 1, ndim - 2, *range(ndim - 2)), (*space, 1, 0)
    exchanged = ((ndim - 2, ndim - 1, *range(ndim - 2)), (*space, 0, 1))
    return tuple(dict.fromkeys((tuple(range(ndim))[::-1], to_front, to_back, *exchanged)))


def is_same_in_order(a: Param, b: Param) -> bool:
    """Tell whether two parameters of any shapes have the same values in row-major order, to the last bit."""
    if a.size != b.size or a.dtype != b.dtype:
        return False
    try:
        return all(is_equal(*both) for both in _side_by_side(parts(a), parts(b)))
    except (UnreadableError, MissingPackageError):
        return False


def _side_by_side(first: Iterator[Values], second: Iterator[Values]) -> Iterator[tuple[Values, Values]]:
    """Yield pieces of the same length of two sequences of values that are cut in different places."""
    b = None
    for a in first:
        while len(a):
            b = next(second) if b is None or not len(b) else b
            number = min(len(a), len(b))
            yield a[:number], b[:number]
            a, b = a[number:], b[number:]
