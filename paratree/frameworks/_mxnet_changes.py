"""MXNet Gluon: new values, ties, freezing and multipliers, all in place."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import mxnet
from mxnet import autograd
from mxnet.gluon import Block, HybridBlock, ParameterDict, SymbolBlock

from paratree.core.errors import UnsupportedError, printable
from paratree.frameworks._mxnet_arrays import array_of
from paratree.frameworks._mxnet_blocks import owners, places

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.results import Group
    from paratree.core.tree import ParamTree
    from paratree.frameworks._mxnet_blocks import Place

_before_freezing: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # parameter -> its grad_req
_OF_ARRAYS = ("_shape", "_data", "_grad", "_ctx_list", "_ctx_map", "_deferred_init")
_MULTIPLIERS = ("lr_mult", "wd_mult")


def assign(source: Any, tree: ParamTree, values: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """Copy new values into the arrays of every context, as ``Parameter.set_data`` does."""
    for name, array in values.items():
        parameter = tree[name].handle
        new = array_of(array, parameter._data[0])
        with mxnet.util.np_shape(True), autograd.pause():
            if new.ndim:
                parameter.set_data(new)  # which tells a Trainer that keeps weights elsewhere
                continue
            for old in parameter._data:  # set_data has no index for an array of no axes
                new.copyto(old)
    return source


def allocate(parameter: Any, shape: tuple[int, ...]) -> Callable[[], None]:
    """Give a parameter that has no array yet one of a shape, as ``load_parameters`` does: where it was to be.

    Returns:
        The function that takes it away, so that the parameter waits for its shape as before.
    """
    before = {name: getattr(parameter, name) for name in _OF_ARRAYS}

    def undo() -> None:
        vars(parameter).update(before)

    contexts = parameter._deferred_init[1] if parameter._deferred_init else [mxnet.cpu()]
    make = mxnet.np.empty if mxnet.util.is_np_array() else mxnet.nd.empty
    try:
        parameter._shape = shape
        with mxnet.util.np_shape(True), autograd.pause():
            array = make(shape, dtype=parameter.dtype or "float32", ctx=mxnet.cpu())
            parameter._init_impl(array, contexts)
        parameter._deferred_init = ()
    except BaseException:
        undo()
        raise
    return undo


def tie(source: Any, tree: ParamTree, first: str, others: Sequence[str]) -> Any:
    """Put the parameter ``first`` in the place of the others, in whatever Gluon looks parameters up in.

    A ``Trainer`` keeps the parameters it was made with: make it afterwards. If the source is part of a larger
    model that is hybridized, give that model, whose compiled graph holds the old parameter.
    """
    found = {place[0]: place for place in _places(source, others)}
    for name in others:
        _movable(found[name])
    for name in others:
        _put(found[name], tree[first].handle)
    _forget_compiled(source)
    return source


def untie(source: Any, tree: ParamTree, names: Sequence[str]) -> Any:
    """Put a copy in each name's place; a block that stands under several names is parted, too, shallowly.

    A ``Trainer`` keeps the parameters it was made with: make it afterwards.
    """
    found = {place[0]: place for place in _places(source, names)}
    for name in names:
        _movable(found[name])
    for name in names:
        _part(source, found[name][2].path)
        place = next(place for place in places(source) if place[0] == name)
        _put(place, _copy(place, _names(source)))
    _forget_compiled(source)
    return source


def freeze(source: Any, tree: ParamTree, names: Collection[str], frozen: bool) -> Any:
    """Set ``grad_req`` to ``"null"``, or back to what it was (``"write"`` if that is not known)."""
    for parameter in tree.handles(names):
        if frozen and parameter.grad_req != "null":
            _before_freezing[parameter] = parameter.grad_req
            parameter.grad_req = "null"
        elif not frozen and parameter.grad_req == "null":
            parameter.grad_req = _before_freezing.pop(parameter, "write")
    return source


def groups(source: Any, tree: ParamTree, groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return multiplier -> name that Gluon gives the parameter -> value.

    They are attributes of the parameters, and hold in every ``Trainer``, made before or after::

        for multiplier, values in pt.groups(net, {"**.bias": {"lr_mult": 0.1}}).items():
            for name, value in values.items():
                setattr(net.collect_params()[name], multiplier, value)
    """
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        for option, value in group.options.items():
            if option not in _MULTIPLIERS:
                raise UnsupportedError(
                    f"{group.label}: Gluon has no {printable(str(option))} of single parameters, only "
                    f"{' and '.join(_MULTIPLIERS)}; give it to the Trainer, for all of them"
                )
            found.setdefault(option, {}).update({tree[name].handle.name: value for name in group.names})
    return found


# Where parameters are


def _places(source: Any, names: Sequence[str]) -> list[Place]:
    if not isinstance(source, Block):
        raise UnsupportedError(
            f"{printable(names[0])}: a {type(source).__name__} does not know the blocks that use its "
            "parameters; give the model"
        )
    return places(source)


def _movable(place: Place) -> None:
    name, _, owner, key = place
    if isinstance(owner.block, SymbolBlock):
        raise UnsupportedError(
            f"{printable(name)}: the graph of a SymbolBlock asks for this parameter by its Gluon name; tie "
            "or untie in the model that was exported, and export it again"
        )
    if not key:
        raise UnsupportedError(
            f"{printable(name)}: it is no attribute of its block, whose code may take it from anywhere; "
            "make it one with setattr"
        )


def _put(place: Place, new: Any) -> None:
    """Register a parameter under the owner's own name for it, in the place of the one that is there."""
    name, _, owner, key = place
    block = owner.block
    old = block._reg_params[key]
    by_name = block._params._params
    if new.name in by_name and by_name[new.name] not in (new, old):
        raise UnsupportedError(
            f"{printable(name)}: its block has another parameter of the Gluon name {printable(new.name)}; "
            "give the blocks prefixes of their own"
        )
    block._reg_params[key] = new
    for attribute, value in list(vars(block).items()):
        if value is old and (attribute == key or attribute not in block._reg_params):
            block.__dict__[attribute] = new
    if old not in block._reg_params.values():
        by_name.pop(old.name, None)
    by_name[new.name] = new


def _copy(place: Place, taken: Collection[str]) -> Any:
    """Return a parameter of equal values that is another one for Gluon, by a name that nothing else has."""
    _, parameter, _, key = place
    start = parameter.name.removesuffix(str(key))
    own = copy.copy(parameter)
    number = 1
    while (name := f"{start}{number}_{key}") in taken:
        number += 1
    own.name, own._var, own._trainer, own._grad = name, None, None, None
    with mxnet.util.np_shape(True), autograd.pause():
        own._data = [array.copy() for array in parameter._data]
        own._init_grad()
    if parameter in _before_freezing:
        _before_freezing[own] = _before_freezing[parameter]
    return own


def _names(source: Any) -> set[str]:
    """Return the names that Gluon gives the parameters of a model."""
    return {name for owner in owners(source) for name in owner.block._params._params}


def _forget_compiled(source: Any) -> None:
    """Drop the compiled graphs, which hold the parameters they were made with; the next call compiles."""
    for owner in owners(source):
        if isinstance(owner.block, HybridBlock):
            owner.block._clear_cached_op()


# Blocks that stand under several names


def _part(root: Any, path: Sequence[str]) -> None:
    """Make every block on a path stand under that path alone: one met elsewhere, too, is copied shallowly."""
    parent = root
    for depth, key in enumerate(path, 1):
        child, here = parent._children[key], tuple(path[:depth])
        if any(owner.block is child and owner.path != here for owner in owners(root)):
            twin = _shallow(child)
            _replace(parent, key, twin)
            child = twin
        parent = child


def _shallow(block: Any) -> Any:
    twin = copy.copy(block)
    for name, value in vars(block).items():
        if isinstance(value, dict | list | set):
            twin.__dict__[name] = value.copy()
    twin._params = ParameterDict(block._params.prefix, block._params._shared)
    twin._params._params = OrderedDict(block._params._params)
    twin._scope = copy.copy(block._scope)
    twin._scope._block = twin
    return twin


def _replace(parent: Any, key: str, twin: Any) -> None:
    """Put a block in the place of a child, also where the parent's own attributes and lists hold it."""
    child = parent._children[key]
    same = [name for name, other in parent._children.items() if other is child]
    for attribute, value in list(vars(parent).items()):
        if isinstance(value, list | tuple) and (held := [i for i, v in enumerate(value) if v is child]):
            if len(held) != len(same):
                raise UnsupportedError(
                    f"{printable(key)}: {printable(attribute)} of {type(parent).__name__} holds the shared "
                    f"block {len(held)} times, and it has {len(same)} names; register each"
                )
            items = list(value)
            items[held[same.index(key)]] = twin
            parent.__dict__[attribute] = items if isinstance(value, list) else type(value)(items)
        elif value is child and (attribute == key or attribute not in same):
            parent.__dict__[attribute] = twin
    parent._children[key] = twin
