"""The result of ``show``: rows, totals, and what else is worth knowing."""

from __future__ import annotations

from math import prod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from paratree.core.array import Shape
    from paratree.core.param import Param
    from paratree.core.totals import Total
    from paratree.core.tree import ParamTree


def reason_of(problem: str) -> str:
    """Return why an array cannot be read, without the place that its reader put first.

    >>> reason_of("net/0.weight: not initialised yet"), reason_of("sparse (csr): no dense values")
    ('not initialised yet', 'sparse (csr): no dense values')
    """
    place, _, reason = problem.partition(": ")
    return reason if reason and " " not in place else problem


class Row:
    """One tensor, several alike, or a subtree.

    Attributes:
        name: name or selector of what the row stands for.
        path: its segments, each with the separator before it.
        times: how often each segment repeats: 32 for ``{0..31}``, else 1.
        blocks: how often all of it repeats, their product.
        tensors: number of names.
        shape: length along each axis; ``None`` for a subtree.
        dtypes: names of the dtypes, the most frequent first.
        kind: kind of the tensors; ``"parameter"`` for a subtree that has one, and only those count.
        size: number of values, a tied group counted in its first row only; ``None`` if unknown.
        nbytes: bytes, likewise.
        tie: number of the tied group in the tree, from 1, or ``None``.
        tied_with: another name of the group; ``None`` when the row stands for the whole group.
        tied_more: how many further names the group has.
        repeats: whether an earlier row counts these values.
    """

    __slots__ = (
        "blocks", "dtypes", "kind", "name", "nbytes", "path", "repeats", "shape", "size", "tensors",
        "tie", "tied_more", "tied_with", "times",
    )  # fmt: skip

    def __init__(
        self,
        path: tuple[str, ...],
        times: tuple[int, ...],
        shape: Shape | None,
        dtypes: tuple[str, ...],
        kind: str,
    ) -> None:
        self.path, self.times, self.name = path, times, "".join(path)
        self.shape, self.dtypes, self.kind = shape, dtypes, kind
        self.blocks = self.tensors = prod(times)
        self.size: int | None = None
        self.nbytes: int | None = None
        self.tie: int | None = None
        self.tied_with: str | None = None
        self.tied_more, self.repeats = 0, False


class Listing:
    """What :func:`paratree.verbs.show.show` found; renderers turn it into text, a table, JSON.

    Attributes:
        source: path, or the class of the live object.
        format: name of the format or framework.
        prefix: name of the subtree that was shown; empty for the whole.
        of: number of names before the selection.
        params: every selected parameter by name, in the order of the rows, nothing folded or hidden.
        listed: number of names that the rows stand for.
        depth: number of segments at which subtrees were collapsed, if they were.
        dtypes: dtypes of what is listed, with how many have each, the most frequent first.
        hidden: kinds left out of the rows.
        totals: per kind, of everything selected.
        frozen: number of selected parameters that training does not change.
        ties: the tied groups of the tree that have a selected name.
        unreadable: reasons why values cannot be read, with how many names have each.
        meta: the plain values beside the parameters.
        values: a few of them, as text.
        more_values: how many more there are, at least.
        notes: what a reader should know about the source.
        nothing: why there is nothing to list, or ``None``.
    """

    __slots__ = (
        "_find_rows", "_rows", "depth", "dtypes", "format", "frozen", "hidden", "listed", "meta",
        "more_values", "notes", "nothing", "of", "params", "prefix", "source", "ties",
        "totals", "unreadable", "values",
    )  # fmt: skip

    def __init__(self, tree: ParamTree, params: Mapping[str, Param]) -> None:
        self.source, self.format, self.prefix, self.of = tree.source, tree.format, tree.prefix, len(tree)
        self.params, self.notes = params, tree.notes
        self._rows: tuple[Row, ...] | None = None
        self._find_rows: Callable[[], tuple[Row, ...]] = tuple
        self.depth: int | None = None
        self.listed = self.frozen = 0
        self.dtypes: tuple[tuple[str, int], ...] = ()
        self.hidden: tuple[str, ...] = ()
        self.totals: Mapping[str, Total] = {}
        self.ties: tuple[tuple[str, ...], ...] = ()
        self.unreadable: tuple[tuple[str, int], ...] = ()
        self.meta: Any = tree.meta
        self.values: tuple[tuple[str, str], ...] = ()
        self.more_values = 0
        self.nothing: str | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """What to list, found when first asked for: JSON of 10,000 tensors needs no rows."""
        if self._rows is None:
            self._rows = self._find_rows()
        return self._rows

    def rows_when_asked(self, find: Callable[[], tuple[Row, ...]]) -> None:
        """Set how the rows are found."""
        self._find_rows = find
