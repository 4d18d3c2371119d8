"""What is in a tree: rows, totals, ties and what else is worth knowing, ready to be rendered.

On the path of the command line's cold start, so records are plain classes and imports are few.
"""

from __future__ import annotations

from collections.abc import Mapping

from paratree.core.errors import printable
from paratree.core.names import BUFFER, KINDS, PARAMETER, natural
from paratree.verbs.fold import Folded, fold, split_all
from paratree.verbs.listing import Listing, Row, reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from typing import Any

    from paratree.core.param import Param
    from paratree.core.select import Selector
    from paratree.core.totals import Total
    from paratree.core.tree import ParamTree

SORTS = ("name", "size")
_MOST_META = 6
_MOST_VISITED = 1000
_LONGEST_TEXT = 40


def show(
    tree: ParamTree,
    *,
    select: Selector | None = None,
    kind: str | Iterable[str] | None = None,
    depth: int | None = None,
    sort: str | None = None,
    fold: bool = True,
) -> Listing:
    """List what is in a tree, without reading a value.

    Optimizer state and tensors that belong to no model are hidden beside a model, unless selected.

    Args:
        tree: what to list.
        select: as in :meth:`ParamTree.select`.
        kind: one or several of ``"parameter"``, ``"buffer"``, ``"state"``, ``"other"``.
        depth: collapse what lies below this many segments, at least 1, into one row each.
        sort: ``"name"`` or ``"size"`` (largest first); the model's order by default.
        fold: whether repeated blocks of equal structure become one row.

    Returns:
        The listing; its ``nothing`` says why, if nothing fits.

    Raises:
        ValueError: ``depth`` or ``sort`` is none of these.

    Example:
        >>> print(*(row.name for row in show(tree).rows))  # doctest: +SKIP
        embed.weight layers.{0..31}.mlp.weight head.weight
    """
    if sort is not None and sort not in SORTS:
        raise ValueError(f"sort is one of {', '.join(SORTS)}, not {sort!r}")
    if depth is not None and depth < 1:
        raise ValueError(f"depth is a number of segments, at least 1, not {depth}")
    everything = select is None and kind is None
    chosen = tree if everything else tree.select(select, kind=kind)
    listing = Listing(tree, chosen)
    if len(tree) and not chosen:
        listing.nothing = nothing_fits(tree, select, kind)
    numbers = _describe(listing, tree, chosen, everything)
    hidden = listing.hidden
    shown = {n: p for n, p in chosen.items() if p.kind not in hidden} if hidden else dict(chosen.items())
    listing.listed, listing.dtypes, listing.depth = (
        len(shown),
        _counted(p.array.dtype for p in shown.values()),
        depth,
    )

    def rows() -> tuple[Row, ...]:
        found = _rows(_sorted_params(shown, sort) if sort == "name" else shown, numbers, tree.ties, fold)
        return tuple(_sorted(found if depth is None else _collapsed(found, depth), sort))

    listing.rows_when_asked(rows)
    if sort is not None:
        listing.params = _sorted_params(chosen, sort)
    return listing


def _describe(listing: Listing, tree: ParamTree, chosen: ParamTree, everything: bool) -> dict[str, int]:
    """Fill in all but the rows; return the number of each tied name's group in the tree."""
    params = chosen.values()
    totals = listing.totals = chosen.totals
    listing.hidden = hidden_kinds(totals) if everything else ()
    listing.unreadable = _counted(reason_of(p.array.problem) for p in params if p.array.problem is not None)
    listing.frozen = sum(p.trainable is False and p.kind == PARAMETER for p in params)
    listing.values, listing.more_values = plain_values(tree.meta)
    numbers = {name: number for number, group in enumerate(tree.ties, 1) for name in group}
    used = {numbers[name] for name in listing.params if name in numbers} if numbers else set()
    listing.ties = tuple(group for number, group in enumerate(tree.ties, 1) if number in used)
    return numbers


def hidden_kinds(totals: Mapping[str, Total]) -> tuple[str, ...]:
    """Return the kinds that are left out beside a model unless they are asked for."""
    if not (totals[PARAMETER].names or totals[BUFFER].names):
        return ()
    return tuple(kind for kind in KINDS if kind not in (PARAMETER, BUFFER) and totals[kind].names)


def _counted(words: Iterable[str]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return tuple(sorted(counts.items(), key=lambda item: -item[1]))


def nothing_fits(tree: ParamTree, select: Selector | None, kind: str | Iterable[str] | None) -> str:
    """Say why a selection is empty, with the nearest that is not."""
    if kind is not None and (select is None or tree.select(select)):
        kinds = ", ".join([kind] if isinstance(kind, str) else kind)
        counts = [f"{name} ({total.names})" for name, total in tree.totals.items() if total.names]
        there = ", ".join(counts)
        return f"{printable(tree.source)}: nothing here is of kind {printable(kinds)}; there are: {there}"
    patterns = (
        [select] if isinstance(select, str) else list(select) if isinstance(select, list | tuple) else []
    )
    if not all(isinstance(pattern, str) for pattern in patterns) or not patterns:
        return f"{printable(tree.source)}: nothing fits the selection"
    from paratree.core.unmatched import unmatched

    return "; ".join(unmatched(tree, pattern) for pattern in patterns)


# Rows


def _rows(
    shown: Mapping[str, Param], numbers: dict[str, int], ties: tuple[tuple[str, ...], ...], folding: bool
) -> list[Row]:
    names, params = list(shown), list(shown.values())
    entries = _folded(names, params, numbers) if folding else split_all(names)
    counted: set[int] = set()
    return [_row(entry, names[entry.first], params[entry.first], numbers, ties, counted) for entry in entries]


def _folded(names: list[str], params: list[Param], numbers: dict[str, int]) -> list[Folded]:
    """Fold the names; the tied ones apart, so that one tied weight does not keep its whole block unfolded."""
    folded = []
    for tied in (False, True) if numbers else (False,):
        places = [place for place, name in enumerate(names) if (name in numbers) == tied]
        signs: list[Hashable] = [
            (p.array.shape, p.array.dtype, p.kind, p.trainable, p.array.problem, numbers.get(p_name))
            for p, p_name in ((params[place], names[place]) for place in places)
        ]
        for entry in fold([names[place] for place in places], signs):
            entry.first = places[entry.first]
            folded.append(entry)
    return sorted(folded, key=lambda entry: entry.first)


def _row(
    entry: Folded,
    name: str,
    param: Param,
    numbers: dict[str, int],
    ties: tuple[tuple[str, ...], ...],
    counted: set[int],
) -> Row:
    row = Row(entry.path, entry.times, param.array.shape, (param.array.dtype,), param.kind)
    times = row.tensors
    tie = numbers.get(name)
    if tie is not None:
        group = ties[tie - 1]
        row.tie, row.repeats = tie, tie in counted
        counted.add(tie)
        row.tied_more = max(len(group) - row.tensors - 1, 0)
        row.tied_with = _outside(row, group, param) if len(group) > row.tensors else None
        times = 0 if row.repeats else 1
    size, nbytes = param.size, param.nbytes
    row.size = None if size is None else size * times
    row.nbytes = None if nbytes is None else nbytes * times
    return row


def _outside(row: Row, group: Sequence[str], param: Param) -> str:
    """Return the first name of a tied group that the row does not stand for."""
    if row.tensors == 1:
        return group[0] if group[0] != row.name else group[1]
    from paratree.core.select import tests_of

    stands_for = tests_of(row.name, role=None, kind=None, dtype=None, ndim=None)
    return next(name for name in group if not stands_for(name, param))


def _collapsed(rows: Iterable[Row], depth: int) -> list[Row]:
    """Return one row for those that have the first ``depth`` segments in common and go deeper."""
    groups: dict[tuple[tuple[str, ...], bool], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.path[:depth], len(row.path) > depth), []).append(row)
    return [group[0] if len(group) == 1 else _subtree(group, depth) for group in groups.values()]


def _subtree(rows: list[Row], depth: int) -> Row:
    path = (*rows[0].path[:depth], rows[0].path[depth][0] + "**")
    kind = PARAMETER if any(row.kind == PARAMETER for row in rows) else rows[0].kind
    dtypes: dict[str, int] = {}
    for row in rows:
        dtypes[row.dtypes[0]] = dtypes.get(row.dtypes[0], 0) + row.tensors
    by_count = tuple(sorted(dtypes, key=lambda dtype: -dtypes[dtype]))
    subtree = Row(path, (*rows[0].times[:depth], 1), None, by_count, kind)
    subtree.tensors = sum(row.tensors for row in rows)
    counted = [row for row in rows if row.kind == kind]
    subtree.size = _sum([row.size for row in counted])
    subtree.nbytes = _sum([row.nbytes for row in counted])
    subtree.repeats = all(row.repeats for row in rows)
    return subtree


def _sum(numbers: list[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


# Order


def _sorted(rows: list[Row], sort: str | None) -> list[Row]:
    if sort is None:
        return rows
    if sort == "size":
        return sorted(rows, key=lambda row: -(row.nbytes or 0))
    return sorted(rows, key=lambda row: natural(row.name))


def _sorted_params(params: Mapping[str, Param], sort: str) -> dict[str, Param]:
    if sort == "size":
        return dict(sorted(params.items(), key=lambda item: -(item[1].nbytes or 0)))
    return dict(sorted(params.items(), key=lambda item: natural(item[0])))


# Plain values


def plain_values(meta: object) -> tuple[tuple[tuple[str, str], ...], int]:
    """Return a few plain values, those of the top first, as text; and how many more were met."""
    found: list[tuple[str, str]] = []
    more = visited = 0
    waiting: list[tuple[str, Any]] = [("", meta)]
    while waiting and visited < _MOST_VISITED:
        deeper: list[tuple[str, Any]] = []
        for name, value in waiting:
            visited += 1
            if isinstance(value, Mapping):
                deeper += [
                    (f"{name}.{_key(key)}" if name else _key(key), below) for key, below in value.items()
                ]
            elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
                deeper += [(f"{name}.{i}", below) for i, below in enumerate(value)]
            elif (text := _text(value)) is not None and len(found) < _MOST_META:
                found.append((name, text))
            else:
                more += 1
        waiting = deeper[:_MOST_VISITED]
        more += len(deeper) - len(waiting)
    return tuple(found), more + len(waiting)


def _key(key: object) -> str:
    return key if isinstance(key, str) else _text(key) or type(key).__name__


def _text(value: object) -> str | None:
    """Return a short text for a plain value; ``None`` for what is no such value, or too long."""
    if value is None or isinstance(value, bool | float):
        return str(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else None
    if isinstance(value, str) and len(value) <= _LONGEST_TEXT:
        return value
    return None
