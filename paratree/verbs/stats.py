"""Statistics of every parameter in one pass: NaN is counted, never skipped; nothing is estimated unsaid."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import prod
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from paratree.core.dtypes import BITS, BLOCKS
from paratree.core.errors import MismatchError
from paratree.core.names import BUFFER, PARAMETER, natural
from paratree.engine import check_workers
from paratree.verbs import _distribution as counted
from paratree.verbs._distribution import QUANTILES, Histogram
from paratree.verbs._kernels import loops
from paratree.verbs._measured import Part, measured, whole_parts
from paratree.verbs._moments import Moments, together
from paratree.verbs._rows import has, row_of
from paratree.verbs._steps import Coarse, coarse, refined
from paratree.verbs.reading import opened, plan, scan, selected
from paratree.verbs.show import hidden_kinds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Executor

    from paratree.core.array import Shape
    from paratree.core.param import Param
    from paratree.core.select import Selector
    from paratree.core.tree import ParamTree
    from paratree.engine import Progress
    from paratree.verbs.findings import Finding
    from paratree.verbs.reading import Plan

    Values = np.ndarray[Any, Any]

VALUES, MAGNITUDES, DEQUANTISED = "values", "absolute values", "dequantised values"


@dataclass(frozen=True, slots=True)
class ParamStats:
    """Statistics of one parameter, or of several together; of its finite values, where not said otherwise.

    Attributes:
        name: name in the source; of several, what they have in common.
        shape: length along each axis; ``None`` for several.
        dtype: name of the dtype.
        kind: ``"parameter"``, ``"buffer"``, ``"state"`` or ``"other"``.
        size: number of values, of any sort.
        nan: how many are NaN.
        pos_inf: how many are +infinity.
        neg_inf: how many are -infinity.
        zeros: how many are zero, of either sign.
        min: the smallest; ``None``, as all below, if no value is finite.
        max: the largest.
        mean: their mean.
        std: standard deviation, of the values themselves (divided by their number).
        rms: root of the mean of the squares.
        l1: sum of the magnitudes.
        l2: root of the sum of the squares.
        absmax: the largest magnitude.
        quantiles: at :data:`QUANTILES`; ``None`` if they were not asked for, and for several.
        quantile_error: most that a quantile is off, as a part of its magnitude; 0 if it is not off so.
        quantile_step: most that a quantile is off, as it stands, where values were counted in equal steps;
            0 if they were not. Quantiles are exact if both are 0; one of them always is.
        distinct: number of distinct values of a type of at most 16 bits.
        histogram: counts by powers of two; ``None`` if it was not asked for.
        spark: counts in equal steps, at most 20, from the 0.1 % to the 99.9 % quantile; fewer where values
            were not told apart as finely, and empty if those between are alike.
        of: what was measured: ``"values"``, ``"absolute values"`` (complex), ``"dequantised values"``.
        tied_with: the first name of the tied group if that stands for this one, too.
        params: how many parameters these are.
        problem: why nothing could be read, or ``None``.
    """

    name: str
    shape: Shape | None
    dtype: str
    kind: str
    size: int
    nan: int = 0
    pos_inf: int = 0
    neg_inf: int = 0
    zeros: int = 0
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    rms: float | None = None
    l1: float | None = None
    l2: float | None = None
    absmax: float | None = None
    quantiles: tuple[float, ...] | None = None
    quantile_error: float = 0.0
    quantile_step: float = 0.0
    distinct: int | None = None
    histogram: Histogram | None = None
    spark: tuple[int, ...] = ()
    of: str = VALUES
    tied_with: str | None = None
    params: int = 1
    problem: str | None = None

    @property
    def inf(self) -> int:
        """How many values are infinite."""
        return self.pos_inf + self.neg_inf

    @property
    def finite(self) -> int:
        """How many values are finite."""
        return 0 if self.problem is not None else self.size - self.nan - self.inf


@dataclass(frozen=True, slots=True, eq=False)
class Stats:
    """A table of statistics, a row for each name; a tied group is read once, and counted once in sums.

    ``stats["0.weight"]`` and ``stats[0]`` are rows, ``stats[1:3]`` is a table of some; iterating gives the
    rows, and ``in`` knows names and rows. It is an Arrow table (``polars.DataFrame(stats)``, with
    ``paratree[arrow]``) and, by :meth:`to_dicts`, plain Python.

    Attributes:
        source: path, or the class of the live object.
        rows: the rows, in the order of the tree.
        hidden: kinds that were left out, with how many names have each.
        findings: what is worth a look, in plain words; beside an aggregate, in all that it was made of.
        whole: the table that an aggregate was made of.
        grouped: what an aggregate has a row for each of, as ``"layer"``.
    """

    source: str
    rows: tuple[ParamStats, ...]
    hidden: Mapping[str, int]
    findings: tuple[Finding, ...] = ()
    whole: Stats | None = None
    grouped: str | None = None

    def __iter__(self) -> Iterator[ParamStats]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, key: object) -> bool:
        return has(self.rows, key, _NAMES)

    @overload
    def __getitem__(self, key: str | int) -> ParamStats: ...

    @overload
    def __getitem__(self, key: slice) -> Stats: ...

    def __getitem__(self, key: str | int | slice) -> ParamStats | Stats:
        """Return the row of a name or at a place, or the table of a range of rows with what was found there.

        Raises:
            NoSuchParamError: there is no such name; the message names the nearest.
            IndexError: there are fewer rows.
        """
        if isinstance(key, slice):
            return self._part(self.rows[key])
        return row_of(self.rows, key, _NAMES, self.source)

    def _part(self, rows: tuple[ParamStats, ...]) -> Stats:
        from paratree.verbs._aggregates import part

        if self.whole is not None:
            return part(self, rows)
        names = {row.name for row in rows}
        findings = tuple(finding for finding in self.findings if finding.name in names)
        return replace(self, rows=rows, findings=findings)

    @property
    def names(self) -> int:
        """How many names were looked at."""
        return len(self.rows if self.whole is None else self.whole.rows)

    @property
    def read(self) -> int:
        """How many of the names were read."""
        rows = self.rows if self.whole is None else self.whole.rows
        return sum(row.problem is None for row in rows)

    def sorted(self, key: str) -> Stats:
        """Return the table with the largest first by a column, or in the order of names by ``"name"``.

        Raises:
            MismatchError: there is no such column of numbers.
        """
        if not isinstance(key, str) or key not in SORTS:
            raise MismatchError(f"sort is one of {', '.join(SORTS)}, not {key!r:.80}")
        if key == "name":
            rows = sorted(self.rows, key=lambda row: natural(row.name))
        else:
            rows = sorted(self.rows, key=lambda row: _descending(getattr(row, key)))
        return replace(self, rows=tuple(rows))

    def by(self, what: str) -> Stats:
        """Return the statistics of several parameters together, without quantiles; buffers are left out.

        The findings stay, those in buffers, too; ``hidden`` says how many names of which kinds have no row.

        Args:
            what: ``"layer"`` (those of one layer), ``"role"`` (all weights, all biases, …) or ``"depth"``
                (all of one numbered block, as ``encoder.layer.3``).

        Raises:
            MismatchError: it is none of these.
        """
        from paratree.verbs._aggregates import aggregated

        return aggregated(self if self.whole is None else self.whole, what)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a plain dictionary for each row."""
        return [as_dict(row) for row in self.rows]

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the table as an Arrow stream (Arrow PyCapsule interface).

        Raises:
            MissingPackageError: nanoarrow is not installed.
        """
        from paratree.verbs._arrow import stream

        return stream(self.rows)

    def __repr__(self) -> str:
        from paratree.render.stats import one_line

        return one_line(self)

    def __rich__(self) -> Any:
        from paratree.render.stats import table

        return table(self)

    def _repr_html_(self) -> str:
        from paratree.render.stats import html

        return html(self)


def _name(row: ParamStats) -> tuple[str, ...]:
    return (row.name,)


_NAMES = (_name,)


def _descending(value: float | None) -> tuple[bool, float]:
    return value is None, -(value or 0.0)


def as_dict(row: ParamStats) -> dict[str, Any]:
    """Return a row as a plain dictionary: quantiles by name, the histogram as lists."""
    found = {field.name: getattr(row, field.name) for field in fields(row)}
    found["shape"] = None if row.shape is None else list(row.shape)
    found["spark"] = list(row.spark)
    if row.quantiles is not None:
        found["quantiles"] = {f"{q:g}": value for q, value in zip(QUANTILES, row.quantiles, strict=True)}
    if (bins := row.histogram) is not None:
        found["histogram"] = {
            "exponents": list(bins.exponents),
            "negative": list(bins.negative),
            "positive": list(bins.positive),
            "zeros": bins.zeros,
        }
    return found


SORTS = ("name", "size", "nan", "inf", "zeros", "min", "max", "mean", "std", "rms", "l1", "l2", "absmax")


def stats(
    source: object,
    select: Selector | None = None,
    *,
    kind: str | Iterable[str] | None = None,
    histogram: bool = True,
    target: str | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Stats:
    """Read every parameter once and describe its values.

    Types of at most 16 bits are counted pattern by pattern: every figure is exact to the rounding of float64.
    Of float32 and float64, moments are summed in float64, and quantiles of more than 16,384 values come from
    a histogram of the upper bits: each row says how far off they can be. Where the spread is small beside the
    magnitude, as of the scales of a norm, these values are read again and counted in equal steps. Integers of
    32 and 64 bits are taken as float64. Quantised values are dequantised, of complex ones the absolute values
    are taken: rows say so.

    Args:
        source: a path, a live model, or a tree.
        select: as in :meth:`ParamTree.select`.
        kind: one or several kinds; without them, what is no part of a model is left out beside one.
        histogram: whether to find histograms and quantiles; wide types take a third of the time without.
        target: name of a dtype, as ``"float16"``: values that it cannot hold become findings; integers and
            booleans are not meant, nor what is neither parameter nor buffer, unless ``kind`` is given.
        threads: number of threads; as many as the process may use by default.
        executor: where to run instead of on threads of our own.
        progress: called with the bytes that are done and the bytes of all.

    Returns:
        A row for each name, and what is worth a look.

    Raises:
        CorruptFileError: the file is damaged.
        SourceNotFoundError, UnknownSourceError, UnsafeFileError: as :func:`paratree.open`.
        NoSuchParamError: nothing fits the selection.
        MismatchError: there is no dtype called ``target``.
        MismatchError: an argument is not what it should be.

    Example:
        >>> for row in paratree.stats("model.safetensors"):  # doctest: +SKIP
        ...     print(row.name, row.nan, row.mean, row.std)
    """
    from paratree.verbs._rules import flag
    from paratree.verbs._targets import target_dtype
    from paratree.verbs.findings import findings

    flag("histogram", histogram)
    check_workers(threads, executor, progress)
    wanted = None if target is None else target_dtype(target)
    with opened(source) as tree:
        chosen, hidden = _chosen(tree, select, kind)
        found = plan(chosen)
        params = list(found.params.values())
        work = loops("scan", found.nbytes)
        rows: dict[str, ParamStats] = {}
        again: dict[str, Coarse] = {}
        blocks = scan(
            params,
            lambda block, values: measured(work, block, values, histogram),
            threads=threads,
            executor=executor,
            progress=progress,
        )
        names = list(found.params)
        for item, part in whole_parts(blocks):
            name = names[item]
            rows[name], bins = _row(name, params[item], part, histogram)
            again |= {} if bins is None else {name: bins}
        for name, finer in refined(found.params, again, threads=threads, executor=executor):
            rows[name] = replace(rows[name], **finer)
        table = tuple(_row_of(name, chosen, found, rows) for name in chosen)
        seen = findings(chosen, table, wanted, every_kind=kind is not None)
        return Stats(tree.source, table, hidden, seen)


def _chosen(
    tree: ParamTree, select: Selector | None, kind: str | Iterable[str] | None
) -> tuple[ParamTree, dict[str, int]]:
    """Return what to describe, and how many names of which kinds are left out beside a model."""
    if select is not None or kind is not None:
        return selected(tree, select, kind), {}
    hidden = {kind: tree.totals[kind].names for kind in hidden_kinds(tree.totals)}
    return (tree.select(kind=(PARAMETER, BUFFER)) if hidden else tree), hidden


# One parameter


def _row_of(name: str, tree: ParamTree, found: Plan, rows: Mapping[str, ParamStats]) -> ParamStats:
    param, first = tree[name], found.first[name]
    if (problem := found.problems.get(name)) is not None:
        return _described(name, param, problem=problem)
    row = rows.get(first) or _described(name, param)
    if first == name:
        return row
    return replace(row, name=name, kind=param.kind, tied_with=first)


def _described(name: str, param: Param, **figures: Any) -> ParamStats:
    shape = param.shape
    size = 0 if None in shape else prod(shape)  # type: ignore[arg-type]
    return ParamStats(name, shape, param.dtype, param.kind, size, **figures)


def _row(name: str, param: Param, part: Part, histogram: bool) -> tuple[ParamStats, Coarse | None]:
    """Return the statistics of a parameter, and what of it is to be counted again."""
    if part.problem is not None:
        return _described(name, param, problem=part.problem), None
    dtype = part.dtype
    given = param.dtype
    of = DEQUANTISED if given in BLOCKS else MAGNITUDES if given.startswith("complex") else VALUES
    if BITS[dtype] <= 16:
        return _described(name, param, of=of, **_narrow(part, histogram)), None
    figures: dict[str, Any] = dict(zip(("nan", "pos_inf", "neg_inf"), part.others, strict=True))
    again = None
    if part.moments:
        whole = together(part.moments)
        figures |= _figures(whole)
        if histogram:
            bins, error = _wide_bins(part, whole)
            figures |= _distributed(bins, error, whole, dtype)
            again = coarse(bins, (whole.low, whole.high), dtype) if error else None
    return _described(name, param, of=of, **figures), again


def _narrow(part: Part, histogram: bool) -> dict[str, Any]:
    counts, dtype = part.counts, part.dtype
    assert counts is not None  # noqa: S101 -- narrow values are counted
    every = counted.narrow(dtype)
    others = {"nan": every.nan, "pos_inf": every.pos_inf, "neg_inf": every.neg_inf}
    figures: dict[str, Any] = {name: int(counts[patterns].sum()) for name, patterns in others.items()}
    bins = counted.narrow_bins(counts, dtype)
    if (moments := counted.narrow_moments(bins)) is not None:
        figures |= _figures(moments)
        if histogram:
            figures |= _distributed(bins, 0.0, moments, dtype)
    return figures


def _wide_bins(part: Part, moments: Moments) -> tuple[counted.Bins, float]:
    """Return the values, or bounds of them, and how far these are apart."""
    if part.values is not None:
        values = np.sort(part.values)
        return counted.Bins(values, values, np.ones(values.size, np.int64)), 0.0
    assert part.counts is not None  # noqa: S101 -- what is not kept is counted
    bins = counted.upper_bins(part.counts, part.dtype, (moments.low, moments.high))
    return bins, counted.upper_error(part.dtype)


def _distributed(bins: counted.Bins, error: float, moments: Moments, dtype: str) -> dict[str, Any]:
    found = counted.distribution(bins, (moments.low, moments.high), dtype, error=error)
    return {
        "quantiles": found.quantiles,
        "quantile_error": found.error,
        "distinct": found.distinct,
        "histogram": found.histogram,
        "spark": found.spark,
    }


def _figures(moments: Moments) -> dict[str, Any]:
    return {
        "zeros": moments.zeros,
        "min": moments.low,
        "max": moments.high,
        "mean": moments.mean,
        "std": moments.std,
        "rms": moments.rms,
        "l1": moments.l1,
        "l2": moments.l2,
        "absmax": max(abs(moments.low), abs(moments.high)),
    }
