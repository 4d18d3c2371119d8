"""The arguments of ``diff`` and ``check`` as they use them; what has no meaning is refused in one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, cast

from paratree.core.errors import MismatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from paratree.core.renames import Rename
    from paratree.core.select import Selector


def tolerance_of(value: object, name: str) -> float:
    """Return a tolerance as a float.

    Raises:
        MismatchError: it is no number of at least 0.
    """
    number = float(value) if isinstance(value, Real) else -1.0
    if not number >= 0:
        raise MismatchError(f"{name} is a number of at least 0, not {value!r:.80}")
    return number


def prefixes_of(value: object) -> tuple[str, ...]:
    """Return prefixes to strip.

    Raises:
        MismatchError: it is neither a text nor several.
    """
    if isinstance(value, str):
        return (value,)
    found = tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(each, str) for each in found):
        raise MismatchError(f"strip is a prefix, as 'module.', or several, not {value!r:.80}")
    return cast("tuple[str, ...]", found)


def renaming_of(value: object) -> Rename | None:
    """Return what renames.

    Raises:
        MismatchError: it is neither a mapping of texts nor a function; or, later, the function returns none.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        if all(isinstance(old, str | re.Pattern) and isinstance(new, str) for old, new in value.items()):
            return value
    elif callable(value):
        return _checked(value)
    raise MismatchError(
        f"rename is a mapping, as {{'encoder.**': 'model.**'}}, or a function of a name, not {value!r:.80}"
    )


def _checked(rename: Callable[[str], object]) -> Callable[[str], str]:
    def new_name(name: str) -> str:
        found = rename(name)
        if not isinstance(found, str):
            raise MismatchError(f"rename returned {found!r:.80} for {name!r}, which is no name")
        return found

    return new_name


def kinds_of(value: object) -> tuple[str, ...] | None:
    """Return kinds, or ``None`` for those that are compared by default."""
    if value is None:
        return None
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return cast("tuple[str, ...]", tuple(value) if several else (value,))  # type: ignore[arg-type]


def selector_of(value: Selector | None) -> Selector | None:
    """Return a selector that can be used for several trees, as an iterator cannot."""
    if value is None or isinstance(value, str | bytes | re.Pattern) or not isinstance(value, Iterable):
        return value
    return value if callable(value) else [cast("Selector", selector_of(each)) for each in value]
