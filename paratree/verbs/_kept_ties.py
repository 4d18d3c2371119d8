"""Whether names that were one parameter still are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratree.core.errors import printable
from paratree.registry import known_formats

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from paratree.core.tree import ParamTree

    Group = tuple[str, ...]


def parted(tree: ParamTree, ties: Iterable[Group], names: Collection[str]) -> list[Group]:
    """Return the tied groups, of some names, that are no longer one parameter in a tree."""
    held = [tuple(name for name in group if name in names) for group in ties]
    return [group for group in held if len({tree.tied_with(name)[0] for name in group}) > 1]


def tied_anew(tree: ParamTree, ties: Iterable[Group], names: Collection[str]) -> list[Group]:
    """Return the tied groups of a tree, of some names, that were not one parameter."""
    before = {name: group[0] for group in ties for name in group}
    held = [tuple(name for name in group if name in names) for group in tree.ties]
    return [group for group in held if len({before.get(name, name) for name in group}) > 1]


def can_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell whether what a tree was opened from can say that names are one parameter."""
    if any(tree[name].live is not None for name in group):
        return True
    formats = [module for module in known_formats().values() if tree.format.startswith(module.NAME)]
    if not formats:
        return True
    found = max(formats, key=lambda module: len(module.NAME))
    return found.holds_tie(tree, group) if found.WRITES else not found.TIES.startswith("no")


def said(groups: Sequence[Group], fact: str) -> str:
    """Return a fact of tied groups in a sentence that names the first of them.

    >>> said([("a", "b"), ("c", "d")], "are not tied here")
    'a and b, and 1 more group, are not tied here'
    """
    more = len(groups) - 1
    others = f", and {more} more group{'s' * (more > 1)}," if more else ""
    return f"{' and '.join(map(printable, groups[0]))}{others} {fact}"
