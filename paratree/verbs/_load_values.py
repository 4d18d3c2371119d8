"""The value that a parameter of a model takes from a source: its axes turned, cast, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from paratree.core.cast import rounded
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.core.errors import MissingPackageError, UnreadableError, printable
from paratree.core.names import last_segment
from paratree.verbs._axes import axes_between, fit, is_flipped, is_transposed, other_order
from paratree.verbs._load_report import CAST, EXACT, REFUSED, SHAPE, fact_and_advice
from paratree.verbs._pairs import is_equal, native
from paratree.verbs.reading import flat

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from paratree.core.param import Param
    from paratree.verbs._axes import Axes

    Values = np.ndarray[Any, Any]

_AT_ONCE = 1 << 20  # values that are compared with their cast at once
_LEFT = "strict=False leaves it as it is"
_AS_IS = (
    "Flax and Equinox apply the kernel of a transposed convolution as it is, the others mirrored in space"
)


class Taken(NamedTuple):
    """What a parameter takes.

    Attributes:
        status: as of a row of the report.
        values: what it is to hold, of its own shape and dtype; ``None`` if it cannot.
        changed: how many values the cast has rounded.
        axes: how the axes were turned.
        problem: why it cannot.
        fix: what to do about it.
    """

    status: str
    values: Values | None = None
    changed: int = 0
    axes: tuple[int, ...] | None = None
    problem: str | None = None
    fix: str | None = None


class How(NamedTuple):
    """How values are taken.

    Attributes:
        turned: as :func:`axes_between` takes it.
        copied: whether what is read has to be copied, as it may be memory of the model.
    """

    turned: bool
    copied: bool


def is_deferred(param: Param) -> bool:
    """Tell whether a parameter has no memory yet, and its framework's ``allocate`` gives it some."""
    return getattr(param.live, "deferred", False) is True


def taken(param: Param, sources: Sequence[Param], tied: Iterable[str], how: How) -> Taken:
    """Read what a parameter takes; of several in the source for a tied one, all have to be the same.

    Args:
        param: a parameter of the model.
        sources: those of the source that are to fill it.
        tied: other names of it in the model.
        how: how the values are taken.
    """
    first, *others = (_from(param, source, how) for source in sources)
    for source, other in zip(sources[1:], others, strict=True):
        if first.values is None or other.values is None:
            return first if first.values is None else other
        if not is_equal(flat(first.values), flat(other.values)):
            names = f"{printable(sources[0].name)} and {printable(source.name)}"
            problem = f"tied in the model, and the source has other values for {names}"
            others_of_it = ", ".join(repr(printable(name)) for name in tied)
            return Taken(REFUSED, problem=problem, fix=f"part it first: pt.untie(net, {others_of_it})")
    return first


def _from(param: Param, source: Param, how: How) -> Taken:
    here = None if is_deferred(param) else param.array.problem or getattr(param.live, "unwritable", None)
    if (problem := here or source.array.problem) is not None:
        fact, advice = fact_and_advice(problem)
        return Taken(REFUSED, problem=fact, fix=advice)
    axes = axes_between(param, source, how.turned)
    if (found := _of_transposed(param, source, axes)) is not None:
        return found
    if not fit(param, source, axes):
        return Taken(SHAPE)
    if axes is not None and any("gates" in (one.layout or "").split() for one in (param, source)):
        problem = "frameworks order the gates of recurrent layers each in its own way, not only their axes"
        return Taken(REFUSED, problem=problem, fix="put them in order, and set them with pt.update")
    if (problem := _other_numbers(source.dtype, param.dtype)) is not None:
        return Taken(REFUSED, problem=problem, fix=f"if that is meant, pt.update takes it cast; {_LEFT}")
    try:
        values = native(source.value)
    except (UnreadableError, MissingPackageError) as error:
        fact, advice = fact_and_advice(str(error))
        return Taken(REFUSED, problem=fact, fix=advice)
    values = values if axes is None else values.transpose(axes)
    made = np.array(values, order="C") if how.copied else np.asarray(values, order="C")
    return _cast(made, param, source.dtype)._replace(axes=axes)


def _of_transposed(param: Param, source: Param, axes: Axes | None) -> Taken | None:
    """Refuse the kernel of a transposed convolution that may be meant in two ways, or has to be mirrored."""
    other = other_order(param, source) if is_transposed(param, source) else None
    if other is not None and fit(param, source, axes):
        if axes is None:  # in order, as the other kernels of the two sources are
            return None
        problem = "of a transposed convolution of as many channels in as out, whose axes may be in two orders"
        one = f"value.transpose{axes} between PyTorch, Gluon and Keras"
        two = f"value.transpose{_mirrored(param, other)} if one is of Flax or Equinox"
        return Taken(REFUSED, problem=problem, fix=f"choose one with pt.update: {one}, {two}; {_LEFT}")
    if other is None and (axes is None or not is_flipped(param, source)):
        return None
    order = other or axes or ()
    fix = f"pt.update takes value.transpose{_mirrored(param, order)}; {_LEFT}"
    return Taken(REFUSED, problem=_AS_IS, fix=fix)


def _mirrored(param: Param, axes: Axes) -> str:
    """Return an order of axes as the arguments of ``transpose``, and the index that mirrors a kernel."""
    words = (param.layout or "").split() or (["in", "out"] if last_segment(param.name) == "weight" else [])
    in_front = not {"in", "out"}.isdisjoint(words[:1])
    kept, turned = [":"] * 2, ["::-1"] * (len(axes) - 2)
    return f"{axes}[{', '.join([*kept, *turned] if in_front else [*turned, *kept])}]"


# Casts


def _cast(values: Values, param: Param, source: str) -> Taken:
    """Round floating numbers once, and take integers as they are, if all of them fit."""
    if values.dtype == (dtype := numpy_dtype(param.dtype)):
        return Taken(EXACT if source == param.dtype else CAST, values)
    if _kind(param.dtype) == "integer":
        with np.errstate(all="ignore"):
            made = values.astype(dtype)
        changed, beyond = 0, _count(values, made, _is_other_integer)
    else:
        made = rounded(values, param.dtype)
        changed, beyond = _count(values, made, _is_rounded), _count(values, made, _is_lost)
    if beyond:
        words = f"{beyond} of {values.size} {'value is' if values.size == 1 else 'values are'}"
        fix = f"give the model a wider dtype; {_LEFT}"
        return Taken(REFUSED, problem=f"{words} beyond {printable(param.dtype)}", fix=fix)
    return Taken(CAST, made, changed)


def _other_numbers(source: str, target: str) -> str | None:
    """Say why a cast from a dtype to another would make other numbers of them."""
    first, second = _kind(source), _kind(target)
    if first == second:
        return None
    return (
        f"{printable(source)} in the source, and {printable(target)} in the model, are other kinds of numbers"
    )


def _kind(dtype: str) -> str:
    """Return the kind of number of a dtype; what is quantised has been floating.

    >>> _kind("bfloat16"), _kind("q4_0"), _kind("uint4"), _kind("complex64")
    ('floating', 'floating', 'integer', 'complex')
    """
    if dtype.startswith("complex"):
        return "complex"
    return "floating" if "float" in dtype or dtype not in BITS else "integer"


def _count(values: Values, made: Values, is_so: Any) -> int:
    """Count what is so of pairs of values, a part at a time."""
    a, b = flat(values), flat(made)
    with np.errstate(all="ignore"):
        return sum(
            int(np.count_nonzero(is_so(a[start : start + _AT_ONCE], b[start : start + _AT_ONCE])))
            for start in range(0, a.size, _AT_ONCE)
        )


def _is_other_integer(values: Values, made: Values) -> Any:
    return (made.astype(values.dtype) != values) | (_is_negative(made) != _is_negative(values))


def _is_negative(values: Values) -> Any:
    return values < values.dtype.type(0)


def _is_rounded(values: Values, made: Values) -> Any:
    wide = _wide(values)
    return (wide != _wide(made)) & ~np.isnan(wide)


def _is_lost(values: Values, made: Values) -> Any:
    """Tell which values became, or ceased to be, infinite or NaN."""
    a, b = _wide(values), _wide(made)
    return (np.isnan(a) != np.isnan(b)) | (np.isinf(a) != np.isinf(b))


def _wide(values: Values) -> Values:
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)
