"""Gluon blocks: every parameter of a model with its name, its owner and the expression that leads to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mxnet.gluon import Block
from mxnet.gluon.nn import HybridSequential, Sequential

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    # A parameter under one of its names: name, gluon.Parameter, the block that holds it, that block's own
    # name for it (None if it is no attribute of the block, "" if only the model's own listing has it). It is
    # a plain tuple because a model has thousands of them.
    Place = tuple[str, Any, "Owner", str | None]

_INDEXED = (Sequential, HybridSequential)
_PLAIN = Block._collect_params_with_prefix


class Owner:
    """A block, as it stands at one place of a model.

    Attributes:
        block: the block.
        prefix: what the names of its parameters begin with, as ``"encoder.0."``.
        above: the owner that holds it; ``None`` for the whole model.
        key: the name under which that one holds it.
    """

    __slots__ = ("above", "block", "key", "prefix")

    def __init__(self, block: Any, prefix: str = "", above: Owner | None = None, key: str = "") -> None:
        self.block, self.prefix, self.above, self.key = block, prefix, above, key

    @property
    def path(self) -> tuple[str, ...]:
        """The keys that lead from the model to the block."""
        return () if self.above is None else (*self.above.path, self.key)

    @property
    def native(self) -> str:
        """The expression that leads to the block, as ``"net.encoder[0]"``."""
        if self.above is None:
            return "net"
        native, holder, key = self.above.native, self.above.block, self.key
        if isinstance(holder, _INDEXED):
            return f"{native}[{list(holder._children).index(key)}]"
        if key.isidentifier() and holder.__dict__.get(key) is self.block:
            return f"{native}.{key}"
        return f"{native}._children[{key!r}]"

    def is_inside_itself(self) -> bool:
        """Tell whether the block is met again above."""
        above = self.above
        while above is not None and above.block is not self.block:
            above = above.above
        return above is not None


def places(root: Any) -> list[Place]:
    """Return what a model saves, in the order of ``save_parameters``; then what it only trains."""
    found: list[Place] = []
    hidden: list[Place] = []
    renamed = False
    for owner in owners(root):
        block, prefix = owner.block, owner.prefix
        registered = block._reg_params
        found += [(prefix + key, parameter, owner, key) for key, parameter in registered.items()]
        if len(block._params._params) > len(registered):
            hidden += _unregistered(owner)
        renamed = renamed or type(block)._collect_params_with_prefix is not _PLAIN
    return (_renamed(root, found) if renamed else found) + hidden


def owners(root: Any) -> Iterator[Owner]:
    """Yield every block under all its names; one that holds itself, which Gluon cannot list, only once."""
    waiting = [Owner(root)]
    while waiting:
        owner = waiting.pop()
        children = owner.block._children
        if children and owner.is_inside_itself():
            continue
        yield owner
        if children:
            prefix = owner.prefix
            below = [Owner(child, f"{prefix}{key}.", owner, key) for key, child in children.items()]
            waiting += reversed(below)


def expression(place: Place) -> str:
    """Return the expression for a parameter: ``net[2].bias``, or where its block keeps it."""
    name, parameter, owner, key = place
    block, native = owner.block, owner.native
    if key is not None and key.isidentifier() and block.__dict__.get(key) is parameter:
        return f"{native}.{key}"
    if block.params._params.get(parameter.name) is parameter:
        return f"{native}.params[{parameter.name!r}]"
    if block._reg_params.get(key) is parameter:
        return f"{native}._reg_params[{key!r}]"
    return f"net._collect_params_with_prefix()[{name!r}]"


def _renamed(root: Any, found: list[Place]) -> list[Place]:
    """Give places the names of a model with blocks that name them otherwise, as the fused RNN layers do."""
    waiting: dict[int, list[Place]] = {}
    for place in found:
        waiting.setdefault(id(place[1]), []).append(place)
    whole = Owner(root)
    renamed: list[Place] = []
    for name, parameter in root._collect_params_with_prefix().items():
        same = waiting.get(id(parameter))
        renamed.append((name, *same.pop(0)[1:]) if same else (name, parameter, whole, ""))
    return renamed


def _unregistered(owner: Owner) -> Iterator[Place]:
    known = {id(parameter) for parameter in owner.block._reg_params.values()}
    held = owner.block._params
    for full, parameter in held._params.items():
        if id(parameter) not in known:
            yield owner.prefix + full.removeprefix(held.prefix), parameter, owner, None
