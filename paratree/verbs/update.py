"""Give parameters new values: everything is checked before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from paratree.core.dtypes import numpy_dtype
from paratree.core.errors import MismatchError, UnreadableError, printable
from paratree.registry import array_of, find_framework
from paratree.verbs.choose import Choice, options_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from paratree.core.param import Param

    Values = np.ndarray[Any, Any]


def update(source: Any, values: Mapping[Any, Any]) -> Any:
    """Give the parameters that selectors choose new values; tied names change together.

    Args:
        source: a live model, or a tree of arrays.
        values: selector -> an array of the parameter's shape, one number for all its values, or a function of
            its value (a copy, of its shape) that returns such. Arrays are cast to the parameter's dtype,
            within their kind: float64 to bfloat16 is, float to integer is refused.

    Returns:
        ``source`` itself, changed in place, where the framework can do that (PyTorch, Gluon, Keras, NNX); a
        new tree of arrays where it cannot (Flax linen, JAX). Nothing is changed if anything is refused.

    Raises:
        NoSuchParamError: a selector chooses nothing.
        MismatchError: two selectors choose one parameter, or a value does not fit.
        UnreadableError: a parameter has no values yet.

    Example:
        >>> net = pt.update(net, {"**.bias": 0, "2.weight": lambda w: w / 2})  # doctest: +SKIP
    """
    framework = find_framework(source)
    tree = framework.open(source)
    chosen = Choice(tree).each(options_of(values, "values"))
    new = {name: _fitting(tree[name], value) for name, (_, value) in chosen.items()}
    return framework.assign(source, tree, new)


def _fitting(param: Param, value: Any) -> Values:
    if param.array.problem is not None:
        raise UnreadableError(param.array.problem)
    if callable(value):
        value = value(np.array(param.value))
    name, dtype = printable(param.name), numpy_dtype(param.dtype)
    try:
        given = array_of(value, f"the new value of {param.name}")
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise MismatchError(f"{name}: a {type(value).__name__} is no array of numbers") from None
    if given.dtype.kind in "OUS":
        raise MismatchError(f"{name}: a {type(value).__name__} is no array of numbers")
    if given.shape not in (param.shape, ()):
        raise MismatchError(
            f"{printable(param.name)}: its shape is {param.shape}, the new value's {given.shape}"
        )
    if _rank(given.dtype) > _rank(dtype):
        raise MismatchError(
            f"{printable(param.name)}: {given.dtype} does not fit into {dtype}; cast it first"
        )
    with np.errstate(over="ignore"):
        cast = given.astype(dtype)
    if _rank(dtype) == _INTEGER and not (cast == given).all():
        raise MismatchError(f"{name}: a new value is out of the range of {dtype}")
    if _rank(dtype) == _REAL and np.isinf(cast).sum() > np.isinf(given).sum():
        raise MismatchError(f"{name}: a new value is out of the range of {dtype}")
    return np.broadcast_to(cast, param.array.shape)  # type: ignore[arg-type]


_INTEGER, _REAL, _COMPLEX, _NO_NUMBER = range(4)


def _rank(dtype: np.dtype[Any]) -> int:
    """Return how wide a kind of number is; values may go to a kind as wide or wider."""
    if dtype.kind in "biu":
        return _INTEGER
    if dtype.kind == "f" or "float" in dtype.name:  # the types of ml_dtypes are of kind V
        return _REAL
    return _COMPLEX if dtype.kind == "c" else _NO_NUMBER
