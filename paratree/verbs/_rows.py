"""Look up the rows of a table by name and by place."""

from __future__ import annotations

from operator import index as whole_number
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from paratree.core.errors import NoSuchParamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Names = Sequence[Callable[[Any], Iterable[str]]]


class Named(Protocol):
    """A row about a parameter."""

    @property
    def name(self) -> str:
        """Name of the parameter."""


Row = TypeVar("Row", bound=Named)


def has(rows: Sequence[Row], key: object, names: Names) -> bool:
    """Tell whether a table has a row, or one of a name."""
    return named(rows, key, names) is not None if isinstance(key, str) else key in rows


def row_of(rows: Sequence[Row], key: Any, names: Names, source: str) -> Row:
    """Return the row of a name, or at a place.

    Args:
        rows: the table.
        key: a name or a number.
        names: as in :func:`named`.
        source: where a name was looked for, for the message.

    Raises:
        NoSuchParamError: there is no such name; the message names the nearest.
        TypeError: the key is neither a name nor a number.
        IndexError: there are fewer rows.
    """
    if isinstance(key, str):
        if (found := named(rows, key, names)) is None:
            raise NoSuchParamError(key, [row.name for row in rows], source)
        return found
    try:
        place = whole_number(key)
    except TypeError:
        kind = type(key).__name__
        raise TypeError(f"look up a name, a position or a range, not an object of type {kind}") from None
    if not -len(rows) <= place < len(rows):
        raise IndexError(f"there is no row {place}; there are {len(rows)}")
    return rows[place]


def named(rows: Sequence[Row], name: str, names: Names) -> Row | None:
    """Return the row of a name, in which ``/`` and ``.`` separate alike.

    Args:
        rows: the table.
        name: what to look for.
        names: what names a row; all rows are asked for the first before any is for the next.
    """
    dotted = name.replace("/", ".")
    for names_of in names:
        alike = [row for row in rows if dotted in (known.replace("/", ".") for known in names_of(row))]
        if alike:
            return next((row for row in alike if name in names_of(row)), alike[0])
    return None
