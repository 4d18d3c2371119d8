"""What differs between two sources, exactly: structure first, then every element."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

from paratree import engine
from paratree.core.dtypes import BITS, BLOCKS
from paratree.core.errors import NoSuchParamError, printable
from paratree.core.names import BUFFER, PARAMETER
from paratree.core.param import Param
from paratree.verbs import _differences as rows
from paratree.verbs._arguments import kinds_of, prefixes_of, renaming_of, selector_of, tolerance_of
from paratree.verbs._axes import (
    are_turned,
    axes_between,
    is_same_in_order,
    is_transposed,
    other_order,
    turned_axes,
)
from paratree.verbs._compare_numpy import Tolerance
from paratree.verbs._differences import Diff, Difference
from paratree.verbs._loaded import Sides, explained, misplaced
from paratree.verbs._matching import check_prefixes, match
from paratree.verbs._pairs import Pair, compare, is_same
from paratree.verbs._proposing import Compared, propose
from paratree.verbs._tie_changes import tie_changes
from paratree.verbs.listing import reason_of
from paratree.verbs.reading import opened, place_of
from paratree.verbs.show import nothing_fits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Executor
    from typing import Any

    from paratree.core.array import QuantisedLazyArray
    from paratree.core.renames import Rename
    from paratree.core.select import Selector
    from paratree.core.tree import ParamTree
    from paratree.engine import Progress
    from paratree.verbs._figures import Figures
    from paratree.verbs._matching import Match
    from paratree.verbs._pairs import Outcome


def diff(
    a: object,
    b: object,
    *,
    select: Selector | None = None,
    kind: str | Iterable[str] | None = None,
    rtol: float = 0.0,
    atol: float = 0.0,
    equal_nan: bool = False,
    rename: Rename | None = None,
    strip: str | Iterable[str] = (),
    initial: object = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Diff:
    """Compare two files, two live models, or a model with the file it was loaded from.

    A tied group is compared once. Optimizer state, and tensors that belong to no model, are left out beside
    a model, unless selected.

    Args:
        a: a path, a live model or a tree: what changes and tolerances are relative to.
        b: what is compared with it.
        select: only names that fit in either, as in :meth:`ParamTree.select`.
        kind: only one or several of ``"parameter"``, ``"buffer"``, ``"state"``, ``"other"``.
        rtol: a change of at most ``atol + rtol * |a|`` is within the tolerance.
        atol: likewise.
        equal_nan: whether NaN equal NaN of other bits; those of the same bits are equal anyway.
        rename: names of ``a`` -> names of ``b``, where ``*`` and ``**`` stand for the same text in both; or
            a function of a name of ``a``.
        strip: prefixes to take from the names of both, as ``"module."``.
        initial: the live model before it was loaded, to tell what was never loaded.
        threads: number of threads; as many as the process may use by default.
        executor: where to run instead.
        progress: called with the bytes that are done and the bytes of all.

    A pair of two dtypes is "equal after cast" if the cast from the first to the second (from the file to the
    model that was loaded) gives the values of the other; a value that overflows in it is a change.

    A ``kernel`` beside a ``weight`` is compared with its axes turned: always in a model whose framework has
    them so, and of two files if the shapes of one such pair, or the formats, tell it.

    Returns:
        A row for each parameter. Of a model and a file, in either order, also what the model holds where it
        does not hold the file's value, and how to mend it; of a tied parameter one name is enough.

    Raises:
        NoSuchParamError: nothing fits ``select`` and ``kind``, or what is to be renamed or stripped
            is not there.
        MismatchError: two names of one source become the same, or an option is of no meaning, as a tolerance
            below 0.
        CorruptFileError: a file is damaged.

    Example:
        >>> found = pt.diff("base.safetensors", net)  # doctest: +SKIP
        >>> found.verdict, found.same  # doctest: +SKIP
        ('148 of 148 loaded to the last bit', True)
    """
    select, kinds = selector_of(select), kinds_of(kind)
    rename, strip = renaming_of(rename), prefixes_of(strip)
    tolerance = Tolerance(tolerance_of(rtol, "rtol"), tolerance_of(atol, "atol"))
    engine.check_workers(threads, executor, progress)
    options = {"threads": threads, "executor": executor, "progress": progress}
    with ExitStack() as stack:
        first, second = stack.enter_context(opened(a)), stack.enter_context(opened(b))
        before = None if initial is None else stack.enter_context(opened(initial))
        check_prefixes(first, second, rename=rename, strip=strip)
        names = match(first, second, rename=rename, strip=strip)
        chosen = _chosen(first, second, names, select, kinds)
        model = _model((first, second), (a, b), has_initial=initial is not None)
        live = {"a": first, "b": second}.get(model or "")
        turned = are_turned(((first[n], second[m]) for n, m in names.pairs), (first, second), live)
        how = _How(tolerance, model == "a", turned)
        made = _compared(first, second, chosen.pairs, how, options)
        made = _in_order([*made, *_unpaired(first, second, chosen, model)], first)
        ties = tie_changes(first, second, chosen.pairs)
        if model is None:
            made = misplaced(made, first, second)
        else:
            pairs = names.pairs if model == "b" else tuple((other, name) for name, other in names.pairs)
            sides = Sides(
                *((first, second) if model == "a" else (second, first)), before, dict(pairs), turned
            )
            made, ties = explained(made, ties, sides, model_is_first=model == "a")
        return Diff(
            first.source,
            second.source,
            (first.format, second.format),
            tuple(made),
            ties,
            chosen.hidden,
            propose(first, second, names, compared=chosen.of, rename=rename, strip=strip),
            model,
            *tolerance,
            equal_nan,
        )


def _model(trees: Sequence[ParamTree], sources: Sequence[object], *, has_initial: bool) -> str | None:
    """Return which of two is the live model that was loaded from the other, if one is.

    A plain container of tensors, as a ``state_dict``, stands beside a model for the file that it is from.
    """
    live = [any(param.live is not None for param in tree.values()) for tree in trees]
    if all(live):
        live = [not isinstance(source, dict | list | tuple) for source in sources]
    if live[0] != live[1]:
        return "a" if live[0] else "b"
    return "a" if has_initial else None


# What is compared


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The names to compare: all, pairs, those of one side only, and the kinds that are left out."""

    of: Compared
    pairs: tuple[tuple[str, str], ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    hidden: tuple[tuple[str, int], ...]


def _chosen(
    a: ParamTree, b: ParamTree, names: Match, select: Selector | None, kinds: tuple[str, ...] | None
) -> _Chosen:
    everything = select is None and kinds is None
    of_a, of_b = (_visible(tree) if everything else _selected(tree, select, kinds) for tree in (a, b))
    if not everything and not of_a and not of_b and (len(a) or len(b)):
        message = "; ".join(str(nothing_fits(tree, select, kinds)) for tree in (a, b) if len(tree))
        raise NoSuchParamError(str(select or ""), (), a.source, message=message)
    pairs = tuple(pair for pair in names.pairs if pair[0] in of_a or pair[1] in of_b)
    hidden = Counter(a[name].kind for name, other in names.pairs if name not in of_a and other not in of_b)
    hidden += Counter(a[name].kind for name in names.only_a if name not in of_a)
    hidden += Counter(b[name].kind for name in names.only_b if name not in of_b)
    return _Chosen(
        Compared(of_a, of_b),
        pairs,
        tuple(name for name in names.only_a if name in of_a),
        tuple(name for name in names.only_b if name in of_b),
        tuple(hidden.items()) if everything else (),
    )


def _selected(tree: ParamTree, select: Selector | None, kinds: tuple[str, ...] | None) -> set[str]:
    """Return the names that fit, and those tied with them: the values of one are those of all."""
    return {tied for name in tree.select(select, kind=kinds) for tied in tree.tied_with(name)}


def _visible(tree: ParamTree) -> set[str]:
    """Return the names of a model's parameters and buffers, or of everything beside no model."""
    own = {name for name, param in tree.items() if param.kind in (PARAMETER, BUFFER)}
    return own or {*tree}


def _in_order(made: Iterable[Difference], a: ParamTree) -> list[Difference]:
    places = {name: place for place, name in enumerate(a)}
    return sorted(made, key=lambda row: len(places) if row.dtypes[0] is None else places[row.name])


def _unpaired(a: ParamTree, b: ParamTree, chosen: _Chosen, model: str | None) -> Iterator[Difference]:
    paired = [{*names} for names in zip(*chosen.pairs, strict=True)] or [set(), set()]
    for name in chosen.only_a:
        param, tied = a[name], _twins(a, name)
        row = Difference(name, None, rows.REMOVED, (param.shape, None), (param.dtype, None), tied, param.size)
        yield row if model is None else _tied_away(row, paired[0], "file" if model == "a" else "model")
    for name in chosen.only_b:
        param, tied = b[name], _twins(b, name)
        row = Difference(name, name, rows.ADDED, (None, param.shape), (None, param.dtype), tied, param.size)
        yield row if model is None else _tied_away(row, paired[1], "model" if model == "a" else "file")


def _tied_away(row: Difference, paired: set[str], other: str) -> Difference:
    """Return the row of a name that one source lacks, and yet has, under another name of the same tie."""
    if (known := next((name for name in row.tied if name in paired), None)) is None:
        return row
    return replace(row, status=rows.UNDER_TIE, found=f"in the {other} under its tied name {printable(known)}")


def _twins(tree: ParamTree, name: str) -> tuple[str, ...]:
    return tuple(other for other in tree.tied_with(name) if other != name)


# Values


class _How(NamedTuple):
    """How pairs are compared.

    Attributes:
        tolerance: what counts as equal.
        to_first: whether a cast goes from the second to the first, the model that was loaded.
        turned: whether a ``kernel`` has its axes in another order than a ``weight``, if that is known.
    """

    tolerance: Tolerance
    to_first: bool
    turned: bool | None

    def target(self, pair: Pair) -> str:
        """Return the dtype that values are cast to."""
        return (pair.a if self.to_first else pair.b).dtype


def _compared(
    a: ParamTree, b: ParamTree, pairs: Sequence[tuple[str, str]], how: _How, options: Any
) -> list[Difference]:
    """Return a row for each pair of parameters, which may have several pairs of names."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name, other in pairs:
        groups.setdefault((a.tied_with(name)[0], b.tied_with(other)[0]), []).append((name, other))
    made: list[Difference] = []
    waiting: list[tuple[int, Pair]] = []
    for (name, other), *more in groups.values():
        pair = Pair(a[name], b[other], axes_between(a[name], b[other], how.turned))
        tied = tuple(each for each, _ in more)
        row = _structure(Difference(
            name, other, rows.SAME, (pair.a.shape, pair.b.shape), (pair.a.dtype, pair.b.dtype), tied,
            pair.a.size, axes=pair.axes,
        ), pair, how)  # fmt: skip
        if row.status == rows.SAME and not _same_blocks(pair):
            waiting.append((len(made), pair))
        made.append(row)
    outcomes = compare([pair for _, pair in waiting], tolerance=how.tolerance, **options)
    for (place, pair), outcome in zip(waiting, outcomes, strict=True):
        made[place] = _row(made[place], pair, outcome, how)
    return made


def _structure(row: Difference, pair: Pair, how: _How) -> Difference:
    """Return the row of a pair whose values cannot be compared one by one, or the row that was given."""
    if None in pair.a.shape or None in pair.b.shape:
        return replace(row, status=rows.UNREAD, problem="its shape is not known yet")
    turned = pair.b.shape if pair.axes is None else tuple(pair.b.shape[axis] for axis in pair.axes)
    problems = [param.array.problem for param in (pair.a, pair.b)]
    if turned != pair.a.shape:
        row = replace(row, status=rows.RESHAPED, axes=None)
        if any(problems):
            return row
        if is_same_in_order(pair.a, pair.b):
            return replace(row, in_order=True)
        return replace(row, transposed=turned_axes(pair.a, pair.b, pair.axes, dtype=how.target(pair)))
    problem = next((problem for problem in problems if problem is not None), None)
    return row if problem is None else replace(row, status=rows.UNREAD, problem=reason_of(problem))


def _same_blocks(pair: Pair) -> bool:
    """Tell whether two quantised arrays are stored alike, which spares decoding them."""
    if pair.a.dtype != pair.b.dtype or pair.a.dtype not in BLOCKS or pair.axes is not None:
        return False
    a, b = (cast("QuantisedLazyArray", param.array).blocks for param in (pair.a, pair.b))
    return is_same(Pair(Param(pair.a.name, a), Param(pair.b.name, b)))


def _row(row: Difference, pair: Pair, outcome: Outcome, how: _How) -> Difference:
    """Fill in what comparing the values gave."""
    if outcome.problem is not None:
        return replace(row, status=rows.UNREAD, problem=outcome.problem)
    found, source, target = outcome.figures, pair.a.dtype, pair.b.dtype
    if found is None:
        return replace(row, status=rows.SAME if source == target else rows.CAST)
    source, target = (target, source) if how.to_first else (source, target)
    unmeasured = dict.fromkeys(("max_abs", "relative_l2", "cosine")) if found.are_finite_equal else {}
    if source != target and BITS.get(target, 32) <= BITS.get(source, 32):
        found = found._replace(changed=found.uncast, beyond=found.uncast_beyond)
        if found.changed and found.changed <= found.new_nan + found.new_inf:  # the rest is rounding
            unmeasured = dict.fromkeys(("max_abs", "relative_l2", "cosine"))
    status = _status(found, source != target, any(how.tolerance))
    if found.max_abs < 0:
        unmeasured["max_abs"] = None
    place = {
        name: None if (at := getattr(found, name)) < 0 else place_of(at, pair.shape)
        for name in ("max_at", "first_nan", "first_inf")
    }
    transposed = turned_axes(pair.a, pair.b, pair.axes, dtype=target) if status == rows.DIFFERENT else None
    return replace(
        row,
        status=status,
        **{**{name: getattr(found, name) for name in _COPIED}, **unmeasured},
        where=place["max_at"] if found.max_abs > 0 and not unmeasured else None,
        first_nan=place["first_nan"],
        first_inf=place["first_inf"],
        transposed=transposed,
        found=_two_orders(pair) if status == rows.DIFFERENT and transposed is None else None,
    )


def _two_orders(pair: Pair) -> str | None:
    """Say that the kernel of a transposed convolution may have been meant in another order of its axes."""
    if pair.axes is None or not is_transposed(pair.a, pair.b):
        return None
    other = other_order(pair.a, pair.b)
    return None if other is None else f"a transposed convolution's: its axes may be in the order {other}, too"


_COPIED = (
    "changed", "beyond", "other_bits", "nan_bits", "max_abs", "relative_l2", "cosine", "nan", "new_nan",
    "inf", "new_inf",
)  # fmt: skip


def _status(found: Figures, is_cast: bool, has_tolerance: bool) -> str:
    """Return the status; what is changed is what a cast to the target does not explain."""
    if not found.changed:
        return rows.CAST if is_cast else rows.OTHER_BITS
    return rows.WITHIN if has_tolerance and not found.beyond else rows.DIFFERENT
