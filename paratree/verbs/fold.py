"""Fold repeated blocks: numbered siblings of identical structure become one, ``layers.{0..31}.mlp.weight``.

A folded name is a selector of exactly the names that it stands for. Names become a tree of segments; from the
leaves up, subtrees get a number that is equal for equal structures, so that one pass finds every run.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    _Entry = tuple[str, int, "_Node"]  # segment or pattern, how many it stands for, the first of them

_LONGEST_NAME = 1000  # a longer name stays whole, so that a hostile one costs no more than its length
_MOST_SEPARATORS = 32
_LONGEST_RUN = 100_000  # what a selector takes, see core.select
_LEAST = 2
_LEAST_STEMMED = 3  # conv1, conv2 say more than conv{1..2}
_DIGITS = "0123456789"
_LONGEST_NUMBER = 9  # digits
_SEGMENT = re.compile(r"[./]?[^./]*")
_OF_SELECTORS = re.compile(r"[*?\[\]{}]")


class Folded:
    """One name, or several that a pattern stands for.

    Attributes:
        path: its segments, each with the separator before it.
        times: how often each segment repeats: 32 for ``{0..31}``, else 1.
        first: position of the first of the names.
    """

    __slots__ = ("first", "path", "times")

    def __init__(self, path: tuple[str, ...], times: tuple[int, ...], first: int) -> None:
        self.path, self.times, self.first = path, times, first


class _Node:
    __slots__ = ("children", "first", "runs", "sign")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.runs: list[_Entry] = []
        self.first = self.sign = -1


def split_all(names: Sequence[str]) -> list[Folded]:
    """Return the names with their segments, nothing folded."""
    found = []
    for first, name in enumerate(names):
        path = _segments(name)
        found.append(Folded(path, (1,) * len(path), first))
    return found


def fold(names: Sequence[str], signs: Sequence[Hashable]) -> list[Folded]:
    """Return the names with their runs folded, in the order of the first name of each.

    Args:
        names: dotted names, each once.
        signs: for each name, what must be equal for two tensors to be folded into one row.
    """
    nodes = _grow(names)
    leaves: dict[Hashable, int] = {}
    blocks: dict[tuple[object, ...], int] = {}
    for node in reversed(nodes):  # children stand after their parents
        if node.first >= 0:
            plain = not _OF_SELECTORS.search(names[node.first])
            node.sign = leaves.setdefault(signs[node.first] if plain else node, -2 - len(leaves))
        if node.children:
            node.runs = _runs(node.children)
            key = (node.sign, *[(segment, child.sign) for segment, _, child in node.runs])
            node.sign = blocks.setdefault(key, len(blocks))
    return sorted(_emit(nodes[0]), key=lambda folded: folded.first)


def _segments(name: str) -> tuple[str, ...]:
    return tuple(_SEGMENT.findall(name)[:-1]) if _is_split(name) else (name,)


def _is_split(name: str) -> bool:
    return len(name) <= _LONGEST_NAME and name.count(".") + name.count("/") <= _MOST_SEPARATORS


def _grow(names: Sequence[str]) -> list[_Node]:
    """Return the nodes of the tree of names, the root first, parents before their children."""
    root = _Node()
    nodes, by_prefix = [root], {"": root}
    for first, name in enumerate(names):
        prefix, missing = name, []
        while (node := by_prefix.get(prefix)) is None:
            missing.append(prefix)
            prefix = prefix[: max(prefix.rfind("."), prefix.rfind("/"), 0)] if _is_split(prefix) else ""
        for longer in reversed(missing):
            child = by_prefix[longer] = node.children[longer[len(prefix) :]] = _Node()
            nodes.append(child)
            prefix, node = longer, child
        node.first = first
    return nodes


class _Run:
    """Siblings ``{low..high}`` that have one structure."""

    __slots__ = ("high", "low", "members", "stem")

    def __init__(self, stem: str, number: int, member: _Entry) -> None:
        self.stem, self.low, self.high = stem, number, number
        self.members = [member]

    def takes(self, number: int, node: _Node) -> bool:
        """Tell whether a sibling of this number continues the run."""
        following = number == self.high + 1 and number - self.low <= _LONGEST_RUN
        return following and node.sign == self.members[0][2].sign

    def entries(self) -> list[_Entry]:
        """Return one entry for all, or all of them if they are too few to fold."""
        count = len(self.members)
        if count < (_LEAST if self.stem in ("", ".", "/") else _LEAST_STEMMED):
            return self.members
        return [(f"{self.stem}{{{self.low}..{self.high}}}", count, self.members[0][2])]


def _runs(children: dict[str, _Node]) -> list[_Entry]:
    """Return the children with runs folded: a pattern, how many it stands for, and the first of them."""
    found: list[list[_Entry] | _Run] = []
    last: dict[str, _Run] = {}
    for segment, node in children.items():
        if segment[-1] not in _DIGITS:
            found.append([(segment, 1, node)])
            continue
        stem, number = _numbered(segment)
        run = last.get(stem)
        if run and run.takes(number, node):
            run.high = number
            run.members.append((segment, 1, node))
        else:
            run = last[stem] = _Run(stem, number, (segment, 1, node))
            found.append(run)
    return [entry for run in found for entry in (run if isinstance(run, list) else run.entries())]


def _numbered(segment: str) -> tuple[str, int]:
    """Split ``layer_12`` into ``layer_`` and 12; the number is -1 if there is none in its plain form."""
    stem = segment.rstrip(_DIGITS)
    digits = segment[len(stem) :]
    if len(digits) > _LONGEST_NUMBER or (digits[0] == "0" and len(digits) > 1):
        return segment, -1
    return stem, int(digits)


def _emit(root: _Node) -> list[Folded]:
    found: list[Folded] = []
    waiting: list[tuple[_Node, tuple[str, ...], tuple[int, ...]]] = [(root, (), ())]
    while waiting:
        node, path, times = waiting.pop()
        if node.first >= 0:
            found.append(Folded(path, times, node.first))
        waiting += [(child, (*path, segment), (*times, count)) for segment, count, child in node.runs]
    return found
