"""What the rules of a check may be: each value that has no meaning is refused, by the name of its rule."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from paratree.core.errors import MismatchError, UnreadableError
from paratree.verbs._targets import target_dtype

if TYPE_CHECKING:
    from paratree.verbs._targets import Target

_HEX = frozenset("0123456789abcdef")
_DIGITS = 64


def flag(rule: str, value: object) -> bool:
    """Return whether a rule is given.

    Raises:
        MismatchError: it is neither true nor false.
    """
    if not isinstance(value, bool | np.bool_):
        raise MismatchError(f"{rule} is True or False, not {value!r:.80}")
    return bool(value)


def magnitude(rule: str, value: object) -> float | None:
    """Return a bound.

    Raises:
        MismatchError: it is no number of at least 0.
    """
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool) or not float(value) >= 0:
        raise MismatchError(f"{rule} is a magnitude, at least 0, not {value!r:.80}")
    return float(value)


def whole(rule: str, value: object) -> int | None:
    """Return a number of things.

    Raises:
        MismatchError: it is none.
    """
    if value is None:
        return None
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
        raise MismatchError(f"{rule} is a whole number, at least 0, not {value!r:.80}")
    return int(value)


def hash_of(rule: str, value: object) -> str | bool:
    """Return a hash in lower case, or whether to find one.

    Raises:
        MismatchError: it is no hash.
    """
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or len(value) != _DIGITS or not set(value.lower()) <= _HEX:
        raise MismatchError(
            f"{rule} is {_DIGITS} hexadecimal digits, as paratree.fingerprint(source).hash, or True to find "
            f"them, not {value!r:.80}"
        )
    return value.lower()


def range_of(name: object) -> Target | None:
    """Return the range of the dtype of a name.

    Raises:
        MismatchError: there is none, or no cast to it overflows.
    """
    if name is None:
        return None
    try:
        target = target_dtype(name)
    except UnreadableError as error:
        raise MismatchError(str(error)) from None
    if target.dtype.startswith(("float4_", "float6_", "float8_e8m0")):
        raise MismatchError(
            f"{target.dtype} has no infinity and no NaN, or no sign: a cast to it never overflows"
        )
    return target
