"""NumPy arrays in containers: their names, as JAX's module gives them, kinds, and the plain values beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from paratree.core.array import Storage, basic_index
from paratree.core.dtypes import is_known
from paratree.core.errors import UnreadableError, printable
from paratree.core.names import BUFFER, COLLECTIONS, kind_of
from paratree.core.param import Param

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from paratree.core.array import Index

    Path = tuple[Any, ...]
    Found = tuple[dict[str, Param], dict[str, Any], list[str]]


class NumpyArray:
    """An array in memory; ``name`` is what messages call it."""

    __slots__ = ("leaf", "name")

    def __init__(self, leaf: Any, name: str) -> None:
        self.leaf, self.name = leaf, name

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each axis."""
        return tuple(self.leaf.shape)

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return str(self.leaf.dtype.name)

    @property
    def storage(self) -> Storage | None:
        """The object itself, kept alive; equal scalars may be one object by chance."""
        return Storage(_Same(self.leaf)) if isinstance(self.leaf, np.ndarray) else None

    @property
    def problem(self) -> str | None:
        """Why the values are no numbers."""
        if is_known(self.dtype):
            return None
        return f"{printable(self.name)}: paratree has no {self.dtype}; convert it, as with .astype('float32')"

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the memory at a basic index, read-only.

        Raises:
            IndexError: the index does not fit the shape.
            UnreadableError: the values are no numbers.
        """
        if (problem := self.problem) is not None:
            raise UnreadableError(problem)
        values = np.asarray(self.leaf).view()
        values.flags.writeable = False
        basic_index(index, self.shape)
        parts = index if isinstance(index, tuple) else (index,)
        return values[parts if any(part is ... for part in parts) else (*parts, ...)]


class _Same:
    """An object as a key: equal to itself only, and alive as long as the key is."""

    __slots__ = ("_it",)

    def __init__(self, it: object) -> None:
        self._it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._it is other._it

    def __hash__(self) -> int:
        return id(self._it)


class Leaf:
    """An array in its place.

    Attributes:
        handle: the array itself.
        path: keys and numbers that lead to it.
        aliases: its name with that of its collection.
        gradient: what was given to ``open``.
    """

    __slots__ = ("aliases", "gradient", "handle", "path")

    trainable: bool | None = None
    layout: str | None = None

    def __init__(self, handle: Any, path: Path, aliases: tuple[str, ...]) -> None:
        self.handle, self.path, self.aliases = handle, path, aliases
        self.gradient: np.ndarray[Any, Any] | None = None

    @property
    def native(self) -> str:
        """The expression: ``params['dense'][0]``."""
        return "params" + "".join(f"[{key!r}]" for key in self.path)

    @property
    def grad(self) -> np.ndarray[Any, Any] | None:
        """The gradient given to ``open``."""
        return self.gradient


def leaves_of(source: Any) -> Found:
    """Return the parameters of a source by name, its plain values, and notes on what is neither."""
    params: dict[str, Param] = {}
    meta: dict[str, Any] = {}
    notes: list[str] = []
    collections = _is_variables(source)
    taken = {".".join(map(str, path)) for path, _ in _walk(source["params"], ())} if collections else set()
    for path, leaf in _walk(source, ()):
        whole = ".".join(map(str, path))
        name = ".".join(map(str, path[1:])) if collections else whole
        if collections and path[0] != "params" and (name in taken or name in params):
            name = whole
        if not isinstance(leaf, np.ndarray | np.generic):
            _set_aside(path, leaf, meta, notes)
            continue
        name = name or "parameter"
        if name in params:
            number = next(n for n in range(2, len(params) + 3) if f"{name}#{n}" not in params)
            notes.append(f"two leaves are called {printable(name)}: another is {printable(name)}#{number}")
            name = f"{name}#{number}"
        values = NumpyArray(leaf, name)
        kind = COLLECTIONS.get(path[0], BUFFER) if collections else kind_of(name, values.dtype)
        live = Leaf(leaf, path, (whole,) if collections and whole != name else ())
        params[name] = Param(name, values, kind, live=live)
    return params, meta, notes


def _is_variables(source: object) -> bool:
    """Tell whether a dict is what ``net.init`` of Flax returns: collections, one of them ``params``."""
    return (
        isinstance(source, dict) and "params" in source and all(isinstance(n, dict) for n in source.values())
    )


def _walk(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield leaves with the keys and numbers that lead to them, in the order of the containers."""
    if isinstance(node, dict):
        for key, child in node.items():
            yield from _walk(child, (*path, key))
    elif isinstance(node, list | tuple):
        for place, child in enumerate(node):
            yield from _walk(child, (*path, place))
    elif node is not None:
        yield path, node


def _set_aside(path: Path, leaf: Any, meta: dict[str, Any], notes: list[str]) -> None:
    """Keep a plain value beside the parameters; say what is neither that nor a function."""
    if isinstance(leaf, str | bool | int | float | complex):
        *above, last = map(str, path)
        for segment in above:
            below = meta.setdefault(segment, {})
            meta = below if isinstance(below, dict) else {}
        meta[last] = leaf
    elif not callable(leaf):
        name = printable(".".join(map(str, path)))
        notes.append(f"{name} is no array, but a {type(leaf).__name__}: not listed")
