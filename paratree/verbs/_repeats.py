"""Values that repeat: parameters that are copies of one another, matrices whose rows are all alike.

The statistics tell which could be; only those are read again. What initialisers and fixed tables repeat, as
zeros, ones, sines of positions and filters, is none of these.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from paratree.core.dtypes import BLOCKS
from paratree.core.errors import printable
from paratree.core.names import PARAMETER, role_of, split
from paratree.verbs.reading import ParamUnread, flat, scan

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from paratree.core.tree import ParamTree
    from paratree.engine import Block
    from paratree.verbs.stats import ParamStats

    Values = np.ndarray[Any, Any]

_SMALLEST = 16  # values
_FEWEST_QUANTILES = 5  # that differ, of nine; masks, identities and grids have fewer
_POSITION = re.compile(r"pos(?!t)")
_SLICE = 1 << 18  # values that are compared at once


def copies(tree: ParamTree, rows: Iterable[ParamStats]) -> Iterator[tuple[str, str]]:
    """Yield the name of a weight for each layer that others are copies of, and what is so of it.

    Copies have equal bits and are not tied.
    """
    alike: dict[Hashable, list[str]] = {}
    for row in rows:
        if _is_random(row) and tree[row.name].trainable is not False:
            others = (row.dtype, row.shape, row.nan, row.pos_inf, row.neg_inf)
            alike.setdefault((*others, row.min, row.max, row.quantiles, row.histogram), []).append(row.name)
    layers: dict[tuple[str, ...], list[list[str]]] = {}
    for names in alike.values():
        for group in _of_equal_bits(tree, names) if len(names) > 1 else ():
            layers.setdefault(_parted(group), []).append(group)
    for (layer, *_), groups in layers.items():
        first, other, *more = groups[0]
        further = f" and {len(more)} more" if more else ""
        text = f"bit for bit the same as {printable(other)}{further}, though not tied"
        if len(groups) > 1:
            of = f" of {printable(layer)}" if layer else ""
            text += f"; further weights{of} that are copied likewise: {len(groups) - 1}"
        text += " (layers that a constructor copies begin so)"
        yield first, text


def _parted(names: Sequence[str]) -> tuple[str, ...]:
    """Return names without the last segments that they have in common.

    >>> _parted(["h.0.attn.weight", "h.1.attn.weight"])
    ('h.0', 'h.1')
    """
    parts = [split(name) for name in names]
    while all(parts) and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return tuple(map(".".join, parts))


def _of_equal_bits(tree: ParamTree, names: Sequence[str]) -> Iterator[list[str]]:
    groups: dict[bytes, list[str]] = {}
    for name, digest in zip(names, _digests(tree, names), strict=True):
        if digest:
            groups.setdefault(digest, []).append(name)
    return (group for group in groups.values() if len(group) > 1)


def _is_random(row: ParamStats) -> bool:
    """Tell whether it is a weight of many different values, which no two layers have by chance."""
    if not _is_weight(row) or row.quantiles is None or 2 * row.zeros > row.finite:
        return False
    is_table = _POSITION.search(row.name.lower()) is not None
    is_filter = row.shape is not None and _may_repeat(row, row.shape[0] or 0)  # for every channel the same
    is_float = "float" in row.dtype or row.dtype in BLOCKS
    return is_float and not is_table and not is_filter and len({*row.quantiles}) >= _FEWEST_QUANTILES


def _is_weight(row: ParamStats) -> bool:
    is_named = role_of(row.name) in ("weight", "recurrent_weight") or "emb" in row.name.lower()
    is_matrix = sum(n not in (None, 1) for n in row.shape or ()) > 1
    return row.kind == PARAMETER and is_named and is_matrix and row.size >= _SMALLEST


def _digests(tree: ParamTree, names: Sequence[str]) -> list[bytes]:
    """Return a hash of the bytes of each; an empty one of what cannot be read."""
    from blake3 import blake3

    def digest(_: Block, values: Values) -> bytes:
        return blake3(values.view(np.uint8).data).digest()

    parts: list[list[bytes | None]] = [[] for _ in names]
    for block, found in scan([tree[name] for name in names], digest):
        parts[block.item].append(None if isinstance(found, ParamUnread) else found)
    return [b"" if None in found else b"".join(part or b"" for part in found) for found in parts]


def rows_alike(tree: ParamTree, rows: Iterable[ParamStats]) -> Iterator[tuple[str, str]]:
    """Yield the name of each matrix all of whose rows, or columns, are the same, and what is so of it."""
    for row in rows:
        if _is_weight(row) and row.shape is not None:
            for axis, noun in enumerate(("rows", "columns")):
                if repeats(tree, row, axis):
                    yield row.name, f"all {row.shape[axis]} {noun} are the same"
                    break


def repeats(tree: ParamTree, row: ParamStats, axis: int) -> bool:
    """Tell whether all of several rows (axis 0) or columns of a matrix that is not constant are equal."""
    if row.shape is None or len(row.shape) != 2 or row.min == row.max:
        return False
    return _may_repeat(row, row.shape[axis] or 0) and _does_repeat(tree, row.name, axis)


def _may_repeat(row: ParamStats, times: int) -> bool:
    """Tell whether every value could occur a multiple of so many times."""
    bins = row.histogram
    if bins is None or row.nan or row.inf or times < 2:
        return False
    return not any(count % times for count in (bins.zeros, *bins.negative, *bins.positive))


def _does_repeat(tree: ParamTree, name: str, axis: int) -> bool:
    param = tree[name]
    first = flat(param[0] if axis == 0 else param[:, 0])
    columns = param.shape[1]

    def same(block: Block, values: Values) -> bool:
        places = np.arange(block.start, block.start + values.size)
        return bool((values == first[places % columns if axis == 0 else places // columns]).all())

    return all(found is True for _, found in scan([param], same, most=_SLICE))
