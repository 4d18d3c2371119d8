"""What selectors choose for the verbs that change a model: a miss and a second match are errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from paratree.core.errors import MismatchError, NoSuchParamError, printable
from paratree.core.names import PARAMETER
from paratree.core.param import Param

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeVar

    from paratree.core.select import Selector
    from paratree.core.tree import ParamTree

    T = TypeVar("T")


class Choice:
    """The names of a tree, with those of a tied group as one."""

    def __init__(self, tree: ParamTree) -> None:
        self._tree = tree

    def first(self, name: str) -> str:
        """Return the first name of what is tied with a name."""
        return self.group(name)[0]

    def group(self, name: str) -> tuple[str, ...]:
        """Return every name of what is tied with a name, itself included."""
        return self._tree.tied_with(name)

    def names(self, selector: Selector, *, kind: str | None = None) -> list[str]:
        """Return the first name of everything that a selector chooses, in the order of the tree.

        Raises:
            NoSuchParamError: it chooses nothing, or nothing of that kind.
        """
        _check_selector(selector)
        found: Mapping[str, Param] = self._exactly(selector) if isinstance(selector, str) else {}
        if not found:
            found = self._tree.select(selector)
        chosen = [name for name, param in found.items() if kind is None or param.kind == kind]
        if not chosen:
            raise _nothing(self._tree, selector, found.values(), kind)
        return list(dict.fromkeys(self.first(name) for name in chosen))

    def _exactly(self, name: str) -> Mapping[str, Param]:
        """Find what a plain name stands for without trying every name; a subtree is all that is below it."""
        found = self._tree.get(name)
        if isinstance(found, Param):
            return {found.name: found}
        if found is None or any(mark in name for mark in "*?[{"):
            return {}
        return {param.name: param for param in found.values()}

    def each(self, chosen: Mapping[Any, T], *, kind: str | None = None) -> dict[str, tuple[Selector, T]]:
        """Return, by first name, what the one selector that chooses it stands for.

        Raises:
            NoSuchParamError: a selector chooses nothing.
            MismatchError: two selectors choose one parameter.
        """
        found: dict[str, tuple[Selector, T]] = {}
        for selector, value in chosen.items():
            for name in self.names(selector, kind=kind):
                if name in found:
                    by = f"{text_of(found[name][0])} and by {text_of(selector)}"
                    names = ", ".join(map(printable, self.group(name)))
                    raise MismatchError(f"{names}: chosen twice, by {by}; narrow one of them")
                found[name] = selector, value
        return found


def text_of(selector: Selector) -> str:
    """Return a selector as a message and a label call it."""
    if isinstance(selector, str):
        return printable(selector)
    if isinstance(selector, re.Pattern):
        return f"/{printable(selector.pattern)}/"
    if callable(selector):
        return printable(getattr(selector, "__name__", type(selector).__name__))
    return "|".join(map(text_of, selector))


def _nothing(tree: ParamTree, selector: Selector, others: Iterable[Param], kind: str | None) -> Exception:
    """Return the error that says what a selector that chooses nothing would have to be."""
    name = text_of(selector) or "an empty selector"
    if kinds := ", ".join(dict.fromkeys(param.kind for param in others)):
        message = f"{printable(tree.source)}: '{name}' chooses no {kind}, only: {kinds}"
    elif isinstance(selector, str):
        from paratree.core.unmatched import unmatched

        message = unmatched(tree, selector)
    else:
        message = f"{printable(tree.source)}: {name} chooses nothing"
    return NoSuchParamError(name, tree, tree.source, message=message)


def _check_selector(selector: object) -> None:
    """Refuse what is no selector.

    Raises:
        MismatchError: it is neither a text, a pattern, a function, nor an iterable of these.
    """
    if isinstance(selector, str | re.Pattern) or callable(selector):
        return
    if not isinstance(selector, list | tuple | set | frozenset):
        kind = type(selector).__name__
        raise MismatchError(
            f"a {kind} is no selector; give a name, a glob, a pattern, a function, or a tuple of these"
        )
    for part in selector:
        _check_selector(part)


def options_of(given: object, what: str) -> Mapping[Any, Any]:
    """Return a mapping of selectors, or refuse what is none.

    Raises:
        MismatchError: it is no mapping.
    """
    if not isinstance(given, Mapping):
        raise MismatchError(
            f"a {type(given).__name__} is not {what} by selector; give a dict: {{'**.bias': …}}"
        )
    return given


def is_real(param: Param) -> bool:
    """Tell whether a parameter is of numbers that can be differentiated by, complex ones included."""
    return param.dtype.startswith(("float", "bfloat", "complex"))


def trained(tree: ParamTree, choice: Choice) -> list[str]:
    """Return the first names of all parameters that training may change: not frozen, and of real numbers."""
    names = (n for n, p in tree.items() if p.kind == PARAMETER and p.trainable is not False and is_real(p))
    return list(dict.fromkeys(choice.first(name) for name in names))
