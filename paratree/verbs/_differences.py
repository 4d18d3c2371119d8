"""The result of ``diff``: a row for each pair of parameters, and what it says in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, overload

from paratree.core.names import natural
from paratree.verbs._rows import has, row_of
from paratree.verbs._verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from paratree.core.array import Shape
    from paratree.verbs._proposing import Proposal

SAME, OTHER_BITS, CAST, WITHIN = "bit-equal", "other bits", "equal after cast", "within tolerance"
DIFFERENT, RESHAPED, ADDED, REMOVED, UNREAD = "different", "reshaped", "added", "removed", "not compared"
UNDER_TIE = "under a tied name"
STATUSES = (SAME, OTHER_BITS, CAST, WITHIN, DIFFERENT, RESHAPED, ADDED, REMOVED, UNREAD, UNDER_TIE)
EQUAL = (SAME, OTHER_BITS, CAST, WITHIN)
SORTS = ("change", "name", "size")
_RANKS = {
    RESHAPED: 1,
    REMOVED: 2,
    ADDED: 3,
    UNREAD: 4,
    WITHIN: 5,
    CAST: 6,
    OTHER_BITS: 7,
    SAME: 8,
    UNDER_TIE: 8,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """How one parameter differs; figures are ``None`` where no value was compared, or nothing differs.

    Attributes:
        name: name in the first source, or in the second if the first has none.
        other: name in the second source, or ``None``; of an added parameter it is the name itself.
        status: one of ``"bit-equal"``, ``"other bits"`` (equal values: zeros of other sign, NaN), ``"equal
            after cast"`` (of the wider dtype to the narrower), ``"within tolerance"``, ``"different"``,
            ``"reshaped"``, ``"added"``, ``"removed"``, ``"not compared"``, ``"under a tied name"`` (of a
            model or its file: the other has the parameter under a name that it is tied with here).
        shapes: shape in each source, ``None`` where there is none.
        dtypes: dtype in each source, likewise.
        tied: other names of this pair of parameters, which is compared once.
        size: number of values.
        changed: values that are not equal; of two dtypes, beyond what the cast to the narrower rounds.
        beyond: those of them that the tolerance does not cover.
        other_bits: equal values of other bits.
        nan_bits: those of them that are NaN.
        max_abs: largest change of a finite value; an integer, exact, of integers of 64 bits.
        where: index of that value in the first source.
        relative_l2: norm of the change by the norm of the first, over pairs of finite values; ``None``, as
            the two others, where only NaN or infinities changed.
        cosine: of the angle between the two, likewise.
        nan: NaN in each source.
        new_nan: NaN of the second where the first has none.
        first_nan: index of the first of these.
        inf: infinities in each source.
        new_inf: infinities of the second where the first has another value.
        first_inf: index of the first of these.
        axes: for each axis of the first, which one of the second it was compared with; ``None`` if in order.
        transposed: the axes of the second in the order in which its values would be equal, if there is one.
        in_order: whether one of another shape has the same values, to the last bit, in row-major order.
        problem: why it was not compared.
        found: what a live parameter holds instead of the file's value; of two sources of a kind, which other
            parameter of the first the second holds.
        repair: the line that mends it: run by itself, or after those of the rows before it, it makes the
            row equal. ``None`` if no line does.
    """

    name: str
    other: str | None
    status: str
    shapes: tuple[Shape | None, Shape | None]
    dtypes: tuple[str | None, str | None]
    tied: tuple[str, ...] = ()
    size: int | None = None
    changed: int = 0
    beyond: int = 0
    other_bits: int = 0
    nan_bits: int = 0
    max_abs: float | None = None
    where: tuple[int, ...] | None = None
    relative_l2: float | None = None
    cosine: float | None = None
    nan: tuple[int, int] = (0, 0)
    new_nan: int = 0
    first_nan: tuple[int, ...] | None = None
    inf: tuple[int, int] = (0, 0)
    new_inf: int = 0
    first_inf: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None
    transposed: tuple[int, ...] | None = None
    in_order: bool = False
    problem: str | None = None
    found: str | None = None
    repair: str | None = None


@dataclass(frozen=True, slots=True)
class TieChange:
    """Names that are one parameter in one source and several in the other.

    Attributes:
        names: the names, as the source calls them in which they are tied.
        tied_in: ``"a"`` or ``"b"``.
        records: whether the other source could have recorded the tie; if not, it counts as no difference.
        repair: the line that ties a live model as the file is tied; ``None`` if no line does, or another is
            to be run first.
    """

    names: tuple[str, ...]
    tied_in: str
    records: bool = True
    repair: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Diff:
    """What :func:`paratree.diff` found. Whether all is the same, ``same`` tells.

    ``found["0.weight"]`` and ``found[0]`` are rows, ``found[1:3]`` is a diff of some; iterating gives the
    rows, and ``in`` knows rows and names of either source.

    Attributes:
        a: path of the first source, or the class of the live object.
        b: likewise of the second.
        formats: name of the format or framework of each.
        rows: one for each parameter of either, in the order of the first; the added ones come last.
        ties: names that are tied in one source only.
        hidden: kinds that were left out, with how many names have each.
        proposal: what to strip and rename to make more names match, or ``None``.
        model: ``"a"`` or ``"b"``: the live model that is compared with a file; ``None`` for two of a kind.
        rtol: a change of at most ``atol + rtol * |a|`` was within the tolerance.
        atol: likewise.
        equal_nan: whether NaN of other bits count as equal.
    """

    a: str
    b: str
    formats: tuple[str, str]
    rows: tuple[Difference, ...]
    ties: tuple[TieChange, ...] = ()
    hidden: tuple[tuple[str, int], ...] = ()
    proposal: Proposal | None = None
    model: str | None = None
    rtol: float = 0.0
    atol: float = 0.0
    equal_nan: bool = False

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, key: object) -> bool:
        return has(self.rows, key, _NAMES)

    @overload
    def __getitem__(self, key: str | int) -> Difference: ...

    @overload
    def __getitem__(self, key: slice) -> Diff: ...

    def __getitem__(self, key: str | int | slice) -> Difference | Diff:
        """Return the row of a name, of either source, or at a place, or the diff of a range of rows.

        Raises:
            NoSuchParamError: there is no such name; the message names the nearest.
            IndexError: there are fewer rows.
        """
        if isinstance(key, slice):
            return replace(self, rows=self.rows[key])
        return row_of(self.rows, key, _NAMES, self.a)

    def __bool__(self) -> bool:
        raise TypeError("a Diff is neither true nor false; ask .same, or len() for the number of rows")

    @property
    def same(self) -> bool:
        """Whether nothing differs: names, shapes, ties, and values but for a cast or the tolerance.

        Of two sources without a tensor nothing was compared, and they are not called the same.
        """
        return (
            bool(self.rows)
            and not any(tie.records for tie in self.ties)
            and all(map(self.is_equal, self.rows))
        )

    @property
    def is_undecided(self) -> bool:
        """Whether nothing was compared, or nothing of it differs, but some values could not be compared."""
        if all(row.status in (ADDED, REMOVED) for row in self.rows):
            return True
        statuses = {row.status for row in self.rows if not self.is_equal(row)}
        return statuses == {UNREAD} and not any(tie.records for tie in self.ties)

    def is_equal(self, row: Difference) -> bool:
        """Tell whether a row counts as equal; NaN of other bits do with ``equal_nan`` only."""
        return row.status == UNDER_TIE or (row.status in EQUAL and (self.equal_nan or not row.nan_bits))

    @property
    def differing(self) -> tuple[Difference, ...]:
        """The rows that do not count as equal, the largest relative change first."""
        return tuple(row for row in self.sorted("change").rows if not self.is_equal(row))

    @property
    def verdict(self) -> str:
        """What was found, in a sentence."""
        return verdict(self)

    def sorted(self, by: str) -> Diff:
        """Return the same with its rows sorted: by ``"change"`` (relative), ``"name"`` or ``"size"``.

        Raises:
            ValueError: there is no such order.
        """
        if by not in SORTS:
            raise ValueError(f"sort is one of {', '.join(SORTS)}, not {by!r}")
        return replace(self, rows=tuple(sorted(self.rows, key=_KEYS[by])))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries."""
        return [asdict(row) for row in self.rows]

    def __repr__(self) -> str:
        return f"<Diff: {self.verdict}>"

    def __rich__(self) -> Any:
        from paratree.render.diff import table

        return table(self)


def _first(row: Difference) -> tuple[str, ...]:
    return (row.name,)


def _second(row: Difference) -> tuple[str, ...]:
    return () if row.other is None else (row.other,)


def _tied(row: Difference) -> tuple[str, ...]:
    return row.tied


_NAMES = (_first, _second, _tied)


def _by_change(row: Difference) -> tuple[int, float, float]:
    if row.status == DIFFERENT:
        relative = -1.0 if row.relative_l2 is None else row.relative_l2
        return 0, -float("inf") if row.new_nan or row.new_inf else -relative, -relative
    return _RANKS[row.status], -(row.relative_l2 or 0.0), 0.0


_KEYS: dict[str, Any] = {
    "change": _by_change,
    "name": lambda row: natural(row.name),
    "size": lambda row: -(row.size or 0),
}
