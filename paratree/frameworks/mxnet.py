"""MXNet Gluon: every parameter of a block, under all its names, in its own memory.

Names are those of ``save_parameters`` (``0.weight``); the name that Gluon gives the parameter itself
(``dense0_weight``) is an alias. Names and kinds are those of the moment the block was opened; shape, dtype,
value, gradient and whether it is trained are asked of the live parameter each time. On several contexts the
value and the gradient are those of the first. MXNet calculates in the background: reading waits for what is
under way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import mxnet
import numpy as np
from mxnet.gluon import Block, Constant, Parameter, ParameterDict

from paratree.core.array import basic_index
from paratree.core.errors import MismatchError, UnreadableError, printable
from paratree.core.layout import GLUON, layout_of
from paratree.core.names import BUFFER, PARAMETER
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.frameworks._mxnet_arrays import (
    HeldArray,
    dtype_name,
    problem_of,
    shape_of,
    storage_of,
    storage_of_object,
    values_of,
)
from paratree.frameworks._mxnet_blocks import expression, places
from paratree.frameworks._mxnet_changes import allocate, assign, freeze, groups, tie, untie
from paratree.frameworks._mxnet_gradients import gradients

if TYPE_CHECKING:
    from typing import Any

    from paratree.core.array import Index, Shape, Storage
    from paratree.frameworks._mxnet_blocks import Owner

    Values = np.ndarray[Any, Any]

__all__ = ["allocate", "array", "assign", "freeze", "gradients", "groups", "matches", "open", "tie", "untie"]

_OF_RNN = re.compile(r"^[lr]\d+_")  # a fused layer numbers its weights: l0_i2h_weight
_WRITTEN_BY_FORWARD = ("running_mean", "running_var", "moving_mean", "moving_var")


def matches(source: object) -> bool:
    """Tell whether ``source`` is a block, a parameter or a ``ParameterDict``."""
    return isinstance(source, Block | Parameter | ParameterDict)


def open(source: Any, *, grads: Any = None) -> ParamTree:
    """Return the tree of a block in the order of ``save_parameters``; no value is read or copied.

    A parameter that the block holds under several names stands under each. One that is trained but not saved,
    as it is no attribute of its block, comes last, with a note. What Gluon never differentiates (running
    statistics, constants) are buffers; what you froze are parameters.

    Args:
        source: a ``Block``, ``HybridBlock`` or ``SymbolBlock``, initialised or not; a ``ParameterDict``,
            whose keys are then the names; or one ``Parameter``.
        grads: gradients by name, NumPy or MXNet arrays; by default those that the parameters hold. Gluon
            fills these with zeros before there are any: a gradient of zeros that no backpropagation has
            written since the last step of a ``Trainer`` is ``None`` here.

    Returns:
        The tree. ``value`` shares memory with the parameter. It is a copy that cannot be written to if the
        parameter is on a device, or if oneDNN may lay it out anew in memory, as the weights of convolutions;
        give these new values by ``paratree.update``.

    Raises:
        MismatchError: ``grads`` do not fit the parameters.

    Example:
        >>> open(mxnet.gluon.nn.Dense(8, in_units=4))["weight"].layout
        'out in'
    """
    notes: list[str] = []
    tree = ParamTree(_params(source, notes), Origin(type(source).__name__, "MXNet Gluon", notes=notes))
    if grads is not None:
        _hand_out(grads, tree)
    return tree


def _params(source: Any, notes: list[str]) -> dict[str, Param]:
    if isinstance(source, Block):
        return _of_block(source, notes)
    if isinstance(source, Parameter):
        return {source.name: _param(source.name, source, "params")}
    return {name: _param(name, parameter, f"params[{name!r}]") for name, parameter in source.items()}


def array(value: Any, name: str) -> HeldArray:
    """Return an MXNet array as what can be read; ``name`` is what messages call it."""
    return HeldArray(value, name)


def _of_block(root: Any, notes: list[str]) -> dict[str, Param]:
    params: dict[str, Param] = {}
    for name, parameter, owner, key in places(root):
        if key is None:
            name = parameter.name if name in params else name
            where = printable(f"{owner.native}.params")
            notes.append(
                f"{printable(name)} is trained and not saved: no attribute of its block, only in {where}"
            )
        live = _Live(parameter, name, owner, key)
        kind = PARAMETER if parameter._grad_req == "write" else _kind(parameter)
        params[name] = Param(name, live, kind, live=live)
    return params


def _param(name: str, parameter: Any, native: str) -> Param:
    live = _Live(parameter, name, None, native)
    return Param(name, live, _kind(parameter), live=live)


def _kind(parameter: Any) -> str:
    if parameter.grad_req != "null":
        return PARAMETER
    auxiliary = not parameter._differentiable or isinstance(parameter, Constant)
    return BUFFER if auxiliary or parameter.name.endswith(_WRITTEN_BY_FORWARD) else PARAMETER


def _hand_out(grads: Any, tree: ParamTree) -> None:
    """Give each parameter its gradient of ``grads``."""
    if not isinstance(grads, Mapping):
        raise MismatchError("grads of a Gluon model are given by name: {'1.weight': array}")
    for name, gradient in grads.items():
        param = tree.get(name)
        if not isinstance(param, Param):
            raise MismatchError(f"grads: no parameter '{printable(str(name))}' in {printable(tree.source)}")
        if (has := tuple(gradient.shape)) != param.shape:
            raise MismatchError(
                f"grads: '{printable(name)}' has the shape {has}, its parameter {param.shape}"
            )
    given = {tree[name].name: gradient for name, gradient in grads.items()}
    for name, param in tree.items():
        live: Any = param.live
        live.gradient = given.get(name, False)


class _Live:
    """A parameter of a block, or of no known owner: its array, and what only a live one has.

    ``gradient`` is what was given to ``open``: ``None`` if nothing was, ``False`` if nothing for this one.
    """

    __slots__ = ("_key", "_owner", "gradient", "handle", "name")

    def __init__(self, handle: Any, name: str, owner: Owner | None, key: str | None) -> None:
        self.handle, self.name, self._owner, self._key = handle, name, owner, key
        self.gradient: Any = None

    # The array

    @property
    def shape(self) -> Shape:
        """Length along each axis; Gluon says 0 or -1 of what it does not know yet."""
        if self.handle._data is not None:
            return shape_of(self.handle._data[0])
        known = self.handle._shape
        if known is None or (known == () and not mxnet.util.is_np_shape()):
            return (None,)
        return tuple(int(n) if n > 0 else None for n in known)

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        data = self.handle._data
        return dtype_name(self.handle.dtype if data is None else data[0].dtype)

    @property
    def storage(self) -> Storage:
        """The memory of the first context; the parameter itself while it has none."""
        data = self.handle._data
        return storage_of_object(self.handle) if data is None else storage_of(data[0])

    @property
    def problem(self) -> str | None:
        """Why there is no value to read now."""
        if (data := self.handle._data) is not None:
            return problem_of(data[0], self.name)
        once = "run the model once on a batch of data, net(X)"
        if not self.handle._deferred_init:
            source = "params" if self._owner is None else "net"
            once = f"call {source}.initialize()" + (f", then {once}" if None in self.shape else "")
        return f"{printable(self.name)}: not initialised yet; {once}"

    @property
    def deferred(self) -> bool:
        """Whether it has no array yet, and ``allocate`` can give it one."""
        return self.handle._data is None and self.handle._stype == "default"

    def read(self, index: Index = ...) -> Values:
        """Return the live memory at a basic index, or a copy of that part.

        Raises:
            IndexError: the index does not fit the shape.
            UnreadableError: NumPy cannot hold the values, or there are none yet.
        """
        if (problem := self.problem) is not None:
            raise UnreadableError(problem)
        values = values_of(self.handle._data[0])
        if index is ...:
            return values
        parts = basic_index(index, values.shape)
        return values[(*(part if isinstance(part, int) else _slice(part) for part in parts), ...)]

    # What only a live parameter has

    @property
    def native(self) -> str:
        """The expression: ``net[1].bias``."""
        if self._owner is None:
            return str(self._key)
        return expression((self.name, self.handle, self._owner, self._key))

    @property
    def aliases(self) -> tuple[str, ...]:
        """The name that Gluon gives the parameter itself: ``dense1_bias``."""
        full = self.handle.name
        return () if full == self.name else (full,)

    @property
    def trainable(self) -> bool:
        """Whether Gluon computes its gradient."""
        return bool(self.handle.grad_req != "null")

    @property
    def layout(self) -> str | None:
        """Names of the axes, by the class of the block and the layout of its data."""
        if self._owner is None or self._key is None or (shape := self.shape) == ():
            return None
        if self.handle._data is None and self.handle._shape is None:
            return None
        block = self._owner.block
        kind: type = type(block)
        layout = _layout(kind, self._key, len(shape))
        of_data = block.__dict__.get("_kwargs", {}).get("layout") if len(shape) > 2 else None
        return layout if layout is None or of_data is None else _reordered(layout, of_data)

    @property
    def grad(self) -> Values | None:
        """The gradient given to ``open``, else the one that the parameter holds.

        It is ``None`` while Gluon's buffer is not fresh and holds zeros only: before backpropagation.
        """
        name = f"gradient of {self.name}"
        if self.gradient is not None:
            return None if self.gradient is False else _read(self.gradient, name)
        if self.handle._grad is None or self.handle._data is None:
            return None
        values = _read(self.handle._grad[0], name)
        return values if self.handle._data[0]._fresh_grad or values.any() else None


def _read(array: Any, name: str) -> Values:
    if isinstance(array, np.ndarray):
        return array
    if (problem := problem_of(array, name)) is not None:
        raise UnreadableError(problem)
    return values_of(array)


def _slice(part: range) -> slice:
    """Return the slice that takes what a range names."""
    if not part:
        return slice(0, 0)
    return slice(part.start, None if part.stop < 0 else part.stop, part.step)


@lru_cache(maxsize=1024)
def _layout(block: type, key: str, ndim: int) -> str | None:
    return layout_of(GLUON, _classes(block), _OF_RNN.sub("", key), ndim)


def _classes(block: type) -> Iterator[str]:
    """Name the classes of a block, MXNet's own bare and others with their package, as the table does."""
    for base in block.__mro__:
        root = base.__module__.partition(".")[0]
        yield base.__name__ if root == "mxnet" else f"{root}.{base.__name__}"


def _reordered(layout: str, of_data: str) -> str:
    """Return the layout of a convolution's weight for data of another layout than ``"NCHW"``.

    >>> _reordered("out in height width", "NHWC")
    'out height width in'
    """
    default = "NC" + of_data.translate({ord("N"): None, ord("C"): None})
    words = dict(zip(default, layout.split(), strict=True))
    return " ".join(words[letter] for letter in of_data)
