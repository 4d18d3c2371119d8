"""What selectors choose for the verbs that change a model: a miss and a second match are errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from paratree.core.errors import MismatchError, NoSuchParamError, printable
from paratree.core.names import PARAMETER
from paratree.core.tree import Param

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypeVar

    from paratree.core.select import Selector
    from paratree.core.tree import ParamTree

    T = TypeVar("T")


class Choice:
    """The names of a tree, with those of a tied group as one."""

    def __init__(self, tree: ParamTree) -> None:
        self._tree = tree
        self._group_of = {name: group for group in tree.ties for name in group}

    def first(self, name: str) -> str:
        """Return the first name of what is tied with a name."""
        return self.group(name)[0]

    def group(self, name: str) -> tuple[str, ...]:
        """Return every name of what is tied with a name, itself included."""
        return self._group_of.get(name, (name,))

    def names(self, selector: Selector, *, kind: str | None = None) -> list[str]:
        """Return the first name of everything that a selector chooses, in the order of the tree.

        Raises:
            NoSuchParamError: it chooses nothing, or nothing of that kind.
        """
        found: Mapping[str, Param] = self._exactly(selector) if isinstance(selector, str) else {}
        if not found:
            found = self._tree.select(selector)
        chosen = [name for name, param in found.items() if kind is None or param.kind == kind]
        if not chosen:
            raise _NothingError(self._tree, selector, found.values(), kind)
        return list(dict.fromkeys(self.first(name) for name in chosen))

    def _exactly(self, name: str) -> Mapping[str, Param]:
        """Find what a plain name stands for without trying every name; a subtree is all that is below it."""
        if any(mark in name for mark in "*?[{"):
            return {}
        found = self._tree.get(name)
        if isinstance(found, Param):
            return {found.name: found}
        return {} if found is None else {param.name: param for param in found.values()}

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


class _NothingError(NoSuchParamError):
    """A selector that chooses nothing, with what it would have to be."""

    def __init__(
        self, tree: ParamTree, selector: Selector, others: Iterable[Param], kind: str | None
    ) -> None:
        self.name = text_of(selector)
        kinds = ", ".join(dict.fromkeys(param.kind for param in others))
        if kinds:
            text = f"{printable(tree.source)}: '{self.name}' chooses no {kind}, only: {kinds}"
        elif isinstance(selector, str):
            from paratree.verbs.show import unmatched

            text = unmatched(tree, selector)
        else:
            text = f"{printable(tree.source)}: {self.name} chooses nothing"
        KeyError.__init__(self, text)


def trained(tree: ParamTree, choice: Choice) -> list[str]:
    """Return the first names of all parameters that training may change: not frozen, and of real numbers."""
    names = (
        name
        for name, param in tree.items()
        if param.kind == PARAMETER
        and param.trainable is not False
        and param.dtype.startswith(("float", "bfloat", "complex"))
    )
    return list(dict.fromkeys(choice.first(name) for name in names))
