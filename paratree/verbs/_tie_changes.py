"""Which names are one parameter in one source and several in the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratree.registry import known_formats
from paratree.verbs._differences import TieChange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paratree.core.tree import ParamTree

    Names = tuple[str, str]


def tie_changes(a: ParamTree, b: ParamTree, pairs: Sequence[Names]) -> tuple[TieChange, ...]:
    """Return the groups of names that are tied in one tree only, of names that both have."""
    turned = [(second, first) for first, second in pairs]
    return (*_tied_in(a, b, pairs, "a"), *_tied_in(b, a, turned, "b"))


def _tied_in(tree: ParamTree, other: ParamTree, pairs: Sequence[Names], side: str) -> list[TieChange]:
    if not tree.ties:
        return []
    groups: dict[str, list[Names]] = {}
    for name, twin in pairs:
        groups.setdefault(tree.tied_with(name)[0], []).append((name, twin))
    parted = [
        tuple(name for name, _ in group)
        for group in groups.values()
        if len({other.tied_with(twin)[0] for _, twin in group}) > 1
    ]
    return [TieChange(names, side, _records_ties(other)) for names in parted] if parted else []


def _records_ties(tree: ParamTree) -> bool:
    """Tell whether a tie would be seen in a source: not every format has a way to say it."""
    formats = [module for module in known_formats().values() if tree.format.startswith(module.NAME)]
    said = max(formats, key=lambda module: len(module.NAME), default=None)
    return not tree.immutable and (said is None or not said.TIES.startswith("no"))
