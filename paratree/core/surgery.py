"""Trees made of trees: other names, fewer, cast, untied, two in one. No value is read."""

from __future__ import annotations

from paratree.core.dtypes import BLOCKS, floating_dtype
from paratree.core.errors import MismatchError, NoSuchParamError, printable
from paratree.core.param import Param
from paratree.core.renames import renaming
from paratree.core.select import tests_of
from paratree.core.tree import Origin, ParamTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, LazyArray, Shape
    from paratree.core.renames import Rename
    from paratree.core.select import Selector


class Untied:
    """An array that is tied with nothing."""

    __slots__ = ("_array",)

    storage = None

    def __init__(self, array: LazyArray) -> None:
        self._array = array

    @property
    def shape(self) -> Shape:
        """Length along each axis."""
        return self._array.shape

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self._array.dtype

    @property
    def problem(self) -> str | None:
        """Why there is no value to read."""
        return self._array.problem

    @property
    def blocks(self) -> LazyArray:
        """What is stored of an array of a dtype of blocks."""
        return self._array.blocks  # type: ignore[attr-defined, no-any-return]

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the values at a basic index."""
        return self._array.read(index)


def with_array(param: Param, array: LazyArray) -> Param:
    """Return a parameter with another array, and all else that is known of it but the live object."""
    return Param(
        param.name,
        array,
        param.kind,
        trainable=param.trainable,
        layout=param.layout,
        aliases=param.aliases,
        is_saved=param.is_saved,
    )


def renamed(tree: ParamTree, rename: Rename) -> ParamTree:
    """Return a tree with other names, in the same order."""
    new_name = renaming(tree, rename)
    new: dict[str, Param] = {}
    old: dict[str, str] = {}
    for name, param in tree.items():
        key = new_name(name)
        if not isinstance(key, str) or not key:
            raise MismatchError(f"{printable(name)} would become {key!r:.80}, which is no name")
        if key in new:
            both = f"'{printable(old[key])}' and '{printable(name)}'"
            raise MismatchError(f"{printable(tree.source)}: {both} would both be '{printable(key)}'")
        old[key] = name
        new[key] = param if key == name else _named(param, key)
    return tree.with_params(new)


def _named(param: Param, name: str) -> Param:
    return Param(
        name,
        param.array,
        param.kind,
        trainable=param.trainable,
        layout=param.layout,
        live=param.live,
        is_saved=param.is_saved,
    )


def dropped(tree: ParamTree, pattern: Selector) -> ParamTree:
    """Return a tree without what fits."""
    chosen = _chosen(tree, pattern)
    if len(chosen) == len(tree):
        raise MismatchError(f"{printable(tree.source)}: nothing would be left; drop less")
    return tree.with_params({name: param for name, param in tree.items() if name not in chosen})


def cast(tree: ParamTree, dtype: str, pattern: Selector | None = None) -> ParamTree:
    """Return a tree with floating values cast when they are read: of what fits, and is tied with it."""
    from paratree.core.cast import Cast

    wanted = floating_dtype(dtype)
    chosen = tree if pattern is None else _chosen(tree, pattern)
    names = dict.fromkeys(tied for name in chosen for tied in tree.tied_with(name))
    new = {
        name: with_array(tree[name], Cast(tree[name].array, wanted))
        for name in names
        if is_cast(tree[name], wanted)
    }
    return tree.with_params({name: new.get(name, param) for name, param in tree.items()})


def is_cast(param: Param, dtype: str) -> bool:
    """Tell whether a cast to a dtype changes a parameter: if it is floating or quantised, and another."""
    return param.dtype != dtype and ("float" in param.dtype or param.dtype in BLOCKS)


def untied(tree: ParamTree, names: Iterable[str]) -> ParamTree:
    """Return a tree in which these names have values of their own."""
    apart = set(names)
    return tree.with_params({
        name: with_array(param, Untied(param.array)) if name in apart else param
        for name, param in tree.items()
    })  # fmt: skip


def joined(first: ParamTree, second: ParamTree) -> ParamTree:
    """Return the parameters of two trees; of a name that both have, those of the second."""
    meta = {**first.meta, **second.meta}
    origins = (first, second)
    origin = Origin(
        " | ".join(dict.fromkeys(tree.source for tree in origins)),
        first.format,
        meta,
        [note for tree in origins for note in tree.notes],
        [tree.close for tree in origins],
        immutable=first.immutable or second.immutable,
    )
    origin.files = [*first.files, *second.files]
    return ParamTree({**first, **second}, origin)


def _chosen(tree: ParamTree, pattern: Selector) -> Mapping[str, Param]:
    fits = tests_of(pattern, role=None, kind=None, dtype=None, ndim=None)
    found = {name: param for name, param in tree.items() if fits(name, param)}
    if not found:
        from paratree.core.unmatched import unmatched

        text = pattern if isinstance(pattern, str) else "the selector"
        message = f"{printable(tree.source)}: nothing fits {text}"
        if isinstance(pattern, str):
            message = unmatched(tree, pattern)
        raise NoSuchParamError(text, tree, tree.source, message=message)
    return found
