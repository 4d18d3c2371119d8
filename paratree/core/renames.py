"""Rules by which names become other names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from paratree.core.errors import MismatchError, NoSuchParamError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from paratree.core.tree import ParamTree

    Rename = Mapping[Any, str] | Callable[[str], str]  # of str or re.Pattern; keys of a Mapping are invariant
    Rule = Callable[[str], str | None]  # the new name; None if the rule does not fit

_WILDCARD = re.compile(r"(\*\*|\*)")


def renaming(tree: ParamTree, rename: Rename | None) -> Callable[[str], str]:
    """Return the function that gives each name of a tree its new one.

    Args:
        tree: each rule must fit a name of it.
        rename: name -> new name, of which the first that fits counts; ``*`` and ``**`` stand on both sides
            for what they match, in and across segments; an ``re.Pattern`` (searched) is replaced by what
            :func:`re.sub` makes of its new text. Or a function of a name.

    Raises:
        NoSuchParamError: a rule fits no name.
        MismatchError: the two sides of a rule have not as many wildcards, or refer to a group that is not.
    """
    if rename is None:
        return lambda name: name
    if not isinstance(rename, Mapping):
        return rename
    rules = rules_of(rename)
    for pattern, rule in zip(rename, rules, strict=True):
        if all(rule(name) is None for name in tree):
            raise _fits_nothing(tree, pattern)
    return lambda name: renamed(name, rules)


def _fits_nothing(tree: ParamTree, pattern: str | re.Pattern[str]) -> NoSuchParamError:
    from paratree.core.unmatched import nearest

    text = pattern if isinstance(pattern, str) else pattern.pattern
    if isinstance(pattern, str) and not _WILDCARD.search(pattern):
        return NoSuchParamError(text, tree, tree.source)
    fact = f"nothing fits '{printable(text)}', which is to be renamed"
    hint = nearest(tree, pattern) if isinstance(pattern, str) else ""
    return NoSuchParamError(text, tree, tree.source, message=f"{printable(tree.source)}: {fact}{hint}")


def rules_of(rename: Mapping[Any, str]) -> list[Rule]:
    """Return rules of renaming, in the order in which they are tried.

    Raises:
        MismatchError: the two sides of one have not as many wildcards, or refer to a group that is not.
    """
    return [_rule(old, new) if isinstance(old, str) else _regex(old, new) for old, new in rename.items()]


def renamed(name: str, rules: Iterable[Rule]) -> str:
    """Return what the first rule that fits makes of a name, or the name."""
    return next((new for rule in rules if (new := rule(name)) is not None), name)


def _rule(pattern: str, target: str) -> Rule:
    """Return the rule of a pattern whose wildcards stand for the same text in the new name."""
    if len(_WILDCARD.findall(pattern)) != len(_WILDCARD.findall(target)):
        both = f"'{printable(pattern)}' and '{printable(target)}'"
        raise MismatchError(f"{both} need as many wildcards as one another")
    pieces = (
        "(.*)" if p == "**" else "([^.]*)" if p == "*" else re.escape(p) for p in _WILDCARD.split(pattern)
    )
    regex = re.compile("".join(pieces), re.DOTALL)

    def rule(name: str) -> str | None:
        if (found := regex.fullmatch(name)) is None:
            return None
        parts = iter(found.groups())
        return _WILDCARD.sub(lambda _: next(parts), target)

    return rule


def _regex(pattern: re.Pattern[str], target: str) -> Rule:
    try:
        re.compile(f"(?:{pattern.pattern})|", pattern.flags).sub(target, "")  # does the new text fit it?
    except (re.error, IndexError) as error:
        raise MismatchError(f"'{printable(pattern.pattern)}' to '{printable(target)}': {error}") from None
    return lambda name: pattern.sub(target, name) if pattern.search(name) else None
