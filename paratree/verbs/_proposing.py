"""What to strip and to rename so that more names of two trees match: prefixes, and frameworks' words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from paratree.core.errors import MismatchError, NoSuchParamError
from paratree.core.names import last_segment, split
from paratree.core.numbered import renumbered
from paratree.core.param import Param
from paratree.core.renames import renamed, rules_of
from paratree.verbs._axes import shapes_fit
from paratree.verbs._matching import match

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from paratree.core.renames import Rename
    from paratree.core.tree import ParamTree
    from paratree.verbs._matching import Match

_WORDS = {  # a word of one framework -> that of another for what does the same
    **dict.fromkeys(("kernel", "gamma", "scale", "embedding", "embeddings"), "weight"),
    "beta": "bias",
    **dict.fromkeys(("moving_mean", "mean"), "running_mean"),
    **dict.fromkeys(("moving_variance", "var"), "running_var"),
}
_MOST_OWNERS = 64  # of a tail: "weight" alone says nothing
_MOST_RULES = 8  # more are no line that a person reads
_MOST_NUMBERS = 16  # rules that are all alike can be more
_NUMBERED = re.compile(r"((?:[^./]*[./])*?)(\d+)([./])")


@dataclass(frozen=True, slots=True)
class Proposal:
    """Options that make more names match: all that are needed, those that were given, too.

    Attributes:
        prefixes: what to strip.
        names: how many more names would match.
        rename: what to rename, in this order; a function that was given stays beside it.
        left: how many names of the first and of the second would still match nothing.
    """

    prefixes: tuple[str, ...]
    names: int
    rename: Mapping[str, str] = field(default_factory=dict)
    left: tuple[int, int] = (0, 0)


class _Wanted(NamedTuple):
    """Names that have a part in common, and what stands before it on both sides."""

    first: str
    second: str
    pairs: dict[str, str]


class Compared(NamedTuple):
    """The names of both sides that are compared; a pair is if one of its names is."""

    a: Collection[str]
    b: Collection[str]

    def has(self, name: str, other: str) -> bool:
        """Tell whether a pair is compared."""
        return name in self.a or other in self.b


def propose(
    a: ParamTree,
    b: ParamTree,
    found: Match,
    *,
    compared: Compared | None = None,
    rename: Rename | None = None,
    strip: Sequence[str] = (),
) -> Proposal | None:
    """Return the options that make the most further compared names match, with those that were given.

    Proposed are a prefix to strip, words to rename, where a prefix takes the place of another, that, and
    where layers count otherwise, their numbers; of what was tried, what helps most.
    """
    best = None
    compared = compared or Compared(a, b)
    now = sum(compared.has(*pair) for pair in found.pairs)
    for prefixes, rules in _options(a, b, found, compared):
        if rules and rename is not None and not isinstance(rename, Mapping):
            continue
        proposal = _tried(a, b, compared, prefixes, rules, rename, strip)
        if proposal is not None and proposal.names > now and (best is None or proposal.names > best.names):
            best = proposal
    return None if best is None else replace(best, names=best.names - now)


def _tried(
    a: ParamTree,
    b: ParamTree,
    compared: Compared,
    prefixes: tuple[str, ...],
    rules: dict[str, str],
    rename: Rename | None,
    strip: Sequence[str],
) -> Proposal | None:
    """Return a proposal with the number of all names that match then."""
    whole = {**rename, **rules} if isinstance(rename, Mapping) else rules
    strip = tuple(dict.fromkeys((*strip, *prefixes)))
    try:
        made = match(a, b, rename=whole if rename is None else whole or rename, strip=strip)
    except (MismatchError, NoSuchParamError):
        return None
    left = (sum(name in compared.a for name in made.only_a), sum(name in compared.b for name in made.only_b))
    return Proposal(strip, sum(compared.has(*pair) for pair in made.pairs), whole, left)


def _options(
    a: ParamTree, b: ParamTree, found: Match, compared: Compared
) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """Yield prefixes to strip and rules to rename, the simplest first."""
    if layers := _layers(a, b, found):
        yield (), layers
    wanted = _wanted(a, b, found, compared)
    if wanted is None:
        return
    prefixes = tuple(prefix for prefix in (wanted.first, wanted.second) if prefix)
    paired = {name for name, _ in found.pairs}
    words = {
        name: name.removesuffix(last_segment(name)) + last_segment(other)
        for name, other in wanted.pairs.items()
        if last_segment(name) != last_segment(other)
    }
    if len(prefixes) == 2:
        shorter, longer = sorted(prefixes, key=len)
        if longer.endswith(shorter):
            yield (longer.removesuffix(shorter),), {}
        yield (), _rules(wanted, a, paired)
    yield prefixes, _rules(_Wanted("", "", words), a, {*paired, *wanted.pairs} - {*words})
    if words and prefixes:
        yield prefixes, {}
    if numbers := _renumbered(a, b):
        yield (), numbers


# Which names mean the same


def _wanted(a: ParamTree, b: ParamTree, found: Match, compared: Compared) -> _Wanted | None:
    owners: dict[str, list[tuple[str, int]]] = {}
    for name in found.only_b:
        for tail, cut in _tails(name):
            owners.setdefault(tail, []).append((name, cut))
    made: dict[tuple[str, str], dict[str, str]] = {}
    for name in found.only_a:
        tail, cut = next(((tail, cut) for tail, cut in _tails(name) if tail in owners), ("", 0))
        if not tail or len(owners[tail]) > _MOST_OWNERS:
            continue
        for other, end in owners[tail]:
            if compared.has(name, other) and shapes_fit(a[name], b[other]):
                made.setdefault((name[:cut], other[:end]), {})[name] = other
    if not made:
        return None
    (first, second), pairs = max(made.items(), key=lambda item: (len(item[1]), -len("".join(item[0]))))
    return _Wanted(first, second, pairs)


def _tails(name: str) -> list[tuple[str, int]]:
    """Return what a name ends in, its last segment in the usual word, and where that begins.

    >>> _tails("net.0.kernel")
    [('net.0.weight', 0), ('0.weight', 4), ('weight', 6)]
    """
    last = last_segment(name)
    usual = name.removesuffix(last).replace("/", ".") + _WORDS.get(last, last)
    cuts = [0, *(place + 1 for place, character in enumerate(usual) if character == ".")]
    return [(usual[cut:], cut) for cut in cuts]


# Numbers of layers


def _renumbered(a: ParamTree, b: ParamTree) -> dict[str, str]:
    """Return rules that give layers the numbers of the second tree, in order; none unless all then match."""
    ours, theirs = _numbers(a), _numbers(b)
    rules: dict[str, str] = {}
    for place, numbers in ours.items():
        others = theirs.get(place, set())
        if len(numbers) == len(others) and not {*"*="} & {*place[0]}:
            (prefix, end), both = place, zip(sorted(numbers, key=int), sorted(others, key=int), strict=True)
            rules |= {f"{prefix}{i}{end}**": f"{prefix}{j}{end}**" for i, j in both if i != j}
    made = rules_of(rules)
    for name in a if len(rules) <= _MOST_NUMBERS else ():
        if (new := renamed(name, made)) != name:
            other = b.get(new)
            if not isinstance(other, Param) or not shapes_fit(a[name], other):
                return {}
    return rules if len(rules) <= _MOST_NUMBERS else {}


def _numbers(tree: ParamTree) -> dict[tuple[str, str], set[str]]:
    """Return the numbers of layers, each name's first, by what stands before and next after them."""
    found: dict[tuple[str, str], set[str]] = {}
    for name in tree:
        if (parts := _NUMBERED.match(name)) is not None:
            found.setdefault((parts[1], parts[3]), set()).add(parts[2])
    return found


def _layers(a: ParamTree, b: ParamTree, found: Match) -> dict[str, str]:
    """Return rules that give Keras's layers the numbers of the second tree, in order; none unless all fit."""
    if not found.only_a or not any(tree.format.startswith("Keras") for tree in (a, b)):
        return {}
    pairs = renumbered(a, b) or {}
    rules: dict[str, str] = {}
    for name, other in pairs.items():
        (ours, *inner), (theirs, *others) = split(name), split(other)
        if inner != others or not shapes_fit(a[name], b[other]) or {*"*="} & {*ours, *theirs}:
            return {}
        if ours != theirs:
            rules[f"{ours}.**"] = f"{theirs}.**"
    return rules if len(rules) <= _MOST_NUMBERS else {}


# Rules


def _rules(wanted: _Wanted, a: ParamTree, right: Collection[str]) -> dict[str, str]:
    """Return few rules that rename as wanted, and no name that is right; none if it takes too many."""
    pairs = wanted.pairs
    if any(character in name for both in pairs.items() for name in both for character in "*="):
        return {}
    counts = Counter((last_segment(name), last_segment(other)) for name, other in pairs.items())
    rules: dict[str, str] = {}
    left = {name: pairs.get(name, name if name in right else "") for name in a}
    for words in sorted(counts, key=lambda words: (words[0] == words[1], counts[words], words)):
        for name in [n for n, other in pairs.items() if (last_segment(n), last_segment(other)) == words]:
            if name not in left:
                continue
            pattern, target = next(
                rule for rule in _patterns(wanted, name, pairs[name]) if _is_right(rule, left)
            )
            rules[pattern] = target
            if len(rules) > _MOST_RULES:
                return {}
            (rule,) = rules_of({pattern: target})
            left = {n: other for n, other in left.items() if rule(n) is None}
    return rules


def _is_right(rule: tuple[str, str], left: Mapping[str, str]) -> bool:
    """Tell whether a rule renames every name that it fits to what is wanted."""
    (made,) = rules_of(dict([rule]))
    return all(
        new is None or not other or _is_one(new, other)
        for new, other in ((made(name), other) for name, other in left.items())
    )


def _is_one(name: str, other: str) -> bool:
    return name.replace("/", ".") == other.replace("/", ".")


def _patterns(wanted: _Wanted, name: str, other: str) -> Iterator[tuple[str, str]]:
    """Yield rules that rename one name, from one that takes many with it to the one for it alone."""
    middle, ours, theirs = name.removeprefix(wanted.first), last_segment(name), last_segment(other)
    middle, rest = middle.removesuffix(ours), other.removeprefix(wanted.second).removesuffix(theirs)
    if ours == theirs:
        cuts = [0, *(place + 1 for place, character in enumerate(middle) if character in "./")]
        for cut in cuts:
            yield f"{wanted.first}{middle[:cut]}**", f"{wanted.second}{rest[:cut]}**"
    else:
        cuts = [place for place, character in enumerate(middle) if character in "./"]
        for cut in reversed(cuts):
            yield f"{wanted.first}**{middle[cut:]}{ours}", f"{wanted.second}**{rest[cut:]}{theirs}"
    yield name, other
