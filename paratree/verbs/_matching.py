"""Which names of two trees mean the same parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from paratree.core.errors import MismatchError, NoSuchParamError, printable
from paratree.core.renames import renaming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from paratree.core.renames import Rename
    from paratree.core.tree import ParamTree


@dataclass(frozen=True, slots=True)
class Match:
    """Names that mean the same.

    Attributes:
        pairs: a name of the first tree and one of the second, in the first's order.
        only_a: names of the first that the second has not.
        only_b: names of the second that the first has not.
    """

    pairs: tuple[tuple[str, str], ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def match(a: ParamTree, b: ParamTree, *, rename: Rename | None = None, strip: Iterable[str] = ()) -> Match:
    """Pair the names of two trees: by name, with ``/`` and ``.`` alike, then by the framework's other names.

    Args:
        a: the first tree.
        b: the second tree.
        rename: names of the first -> names of the second, as for :func:`paratree.core.renames.renaming`.
        strip: prefixes to take from the names of both.

    Raises:
        NoSuchParamError: a name to rename is not in the first tree.
        MismatchError: two names of one tree become the same.
    """
    prefixes = tuple(strip)
    new_name = renaming(a, rename)
    keys_a = _keys(a, lambda name: _stripped(new_name(name), prefixes))
    keys_b = _keys(b, lambda name: _stripped(name, prefixes))
    pairs = {name: keys_b[key] for key, name in keys_a.items() if key in keys_b}
    _pair_aliases(a, b, pairs, prefixes)
    taken = set(pairs.values())
    return Match(
        tuple((name, pairs[name]) for name in a if name in pairs),
        tuple(name for name in a if name not in pairs),
        tuple(name for name in b if name not in taken),
    )


def check_prefixes(a: ParamTree, b: ParamTree, *, rename: Rename | None, strip: Iterable[str]) -> None:
    """Look whether each prefix to strip is one of a name of either tree.

    Raises:
        NoSuchParamError: one is not.
    """
    new_name = renaming(a, rename)
    names = {*map(new_name, a), *b, *(alias for tree in (a, b) for p in tree.values() for alias in p.aliases)}
    for prefix in strip:
        if not any(name.startswith(prefix) for name in names):
            sources = " and ".join(map(printable, dict.fromkeys((a.source, b.source))))
            fact = f"no name begins with '{printable(prefix)}', which is to be stripped"
            hint = f"; the first is '{printable(next(iter(a)))}'" if len(a) else ""
            raise NoSuchParamError(prefix, names, a.source, message=f"{sources}: {fact}{hint}")
        names |= {_stripped(name, (prefix,)) for name in names}


def _stripped(name: str, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        if name.startswith(prefix) and len(name) > len(prefix):
            name = name.removeprefix(prefix)
    return name


def _keys(tree: ParamTree, key_of: Callable[[str], str]) -> dict[str, str]:
    """Return what a name is compared by -> the name."""
    found: dict[str, str] = {}
    for name in tree:
        key = key_of(name).replace("/", ".")
        if (other := found.setdefault(key, name)) != name:
            names = f"'{printable(other)}' and '{printable(name)}'"
            raise MismatchError(f"{printable(tree.source)}: {names} would both be '{printable(key)}'")
    return found


def _pair_aliases(a: ParamTree, b: ParamTree, pairs: dict[str, str], prefixes: tuple[str, ...]) -> None:
    taken = set(pairs.values())
    left = {n: (n, *a[n].aliases) for n in a if n not in pairs}
    right = {n: (n, *b[n].aliases) for n in b if n not in taken}
    if not any(len(known) > 1 for known in (*left.values(), *right.values())):
        return
    owner: dict[str, str] = {}
    for name, known in right.items():
        for alias in known:
            owner.setdefault(_stripped(alias, prefixes).replace("/", "."), name)
    for name, known in left.items():
        keys = (_stripped(alias, prefixes).replace("/", ".") for alias in known)
        if (other := next((owner[key] for key in keys if key in owner), None)) and other not in taken:
            pairs[name] = other
            taken.add(other)
