"""What to say of a pattern that fits no name: the nearest pattern that does."""

from __future__ import annotations

from itertools import islice

from paratree.core.errors import NoSuchParamError, printable
from paratree.core.select import segments_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from paratree.core.tree import ParamTree

_SIGNS = frozenset("*?[{")  # of a pattern
_MOST_SEARCHED = 2_000


def unmatched(tree: ParamTree, pattern: str) -> str:
    """Say that a pattern fits nothing, and which one would."""
    if _SIGNS.isdisjoint(pattern):
        return str(NoSuchParamError(pattern, tree, tree.source))
    where = f"{printable(tree.source)}: nothing fits '{printable(pattern)}'"
    return where + (nearest(tree, pattern) or "; 'paratree show --all' lists every name")


def nearest(tree: ParamTree, pattern: str) -> str:
    """Ask whether a wider pattern was meant, or one of the segments that names have; empty if none fits."""
    for wider in _wider(pattern):
        if tree.select(wider):
            return f"; did you mean '{printable(wider)}'? ('*' ends at a dot, '**' does not)"
    respelled = _respelled(tree, pattern)
    if respelled == pattern:
        return ""
    found = next((near for near in (respelled, *_wider(respelled)) if tree.select(near)), None)
    return "" if found is None else f"; did you mean '{printable(found)}'?"


def _wider(pattern: str) -> Iterator[str]:
    tail = pattern.lstrip("*.")
    yield from (f"**.{tail}", f"{pattern}.**", f"**.*{tail}")


def _respelled(tree: ParamTree, pattern: str) -> str:
    """Return the pattern with each plain segment that no name has as the nearest that one has."""
    from difflib import get_close_matches

    known = {part for name in islice(tree, _MOST_SEARCHED) for part in name.replace("/", ".").split(".")}
    parts = []
    for part in segments_of(pattern):
        is_new = _SIGNS.isdisjoint(part) and part not in known
        parts += get_close_matches(part, sorted(known), n=1) or [part] if is_new else [part]
    return ".".join(parts)
