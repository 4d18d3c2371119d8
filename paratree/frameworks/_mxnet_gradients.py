"""MXNet Gluon: the gradients of a loss, and what each reading of a parameter adds to them."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import mxnet
import numpy as np
from mxnet import autograd
from mxnet.gluon import Block, HybridBlock

from paratree.core.errors import MismatchError, UnsupportedError, printable
from paratree.core.results import Derivative, Use
from paratree.frameworks._mxnet_arrays import shape_of, values_of
from paratree.frameworks._mxnet_blocks import owners

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from paratree.core.tree import ParamTree

    Values = np.ndarray[Any, Any]


class _Part(NamedTuple):
    """An array to differentiate by: of which parameter, and, if it stands for a reading, by what."""

    place: int
    array: Any
    by: str | None = None


class _Watch(NamedTuple):
    """Parameters to be watched (tied ones in one list), their names, and where to note their readings."""

    parameters: Sequence[Sequence[Any]]
    names: Sequence[str]
    readings: list[_Part]


def gradients(
    source: Any,
    tree: ParamTree,
    loss: Callable[..., Any],
    batch: tuple[Any, ...],
    names: Sequence[str],
    per_use: bool,
) -> Derivative:
    """Differentiate by ``autograd.grad``, in training mode: no ``grad`` of a parameter is touched.

    A use is a reading of the parameter by a block (or by the loss itself): for each, an array of zeros is
    added to what is read, and the gradient by those zeros is what the use adds. The model is run uncompiled
    for the time: a compiled graph reads a shared parameter once, and one of static memory would go on
    writing gradients to where it wrote these. On several contexts a gradient is the sum over them.
    """
    parameters = [_distinct(tree, name) for name in names]
    whole = [
        _Part(place, array) for place, several in enumerate(parameters) for p in several for array in p._data
    ]
    readings: list[_Part] = []
    with _kept(tree, {id(p) for several in parameters for p in several}):
        value = _recorded(source, loss, batch, _Watch(parameters, names, readings) if per_use else None)
        number = _number(value)
        found = _differentiated(value, [*whole, *readings])  # it is here that BatchNorm writes its statistics
    sums: list[Values | None] = [None] * len(names)
    for part, gradient in zip(whole, found, strict=False):
        before = sums[part.place]
        sums[part.place] = gradient if before is None else before + gradient
    if not per_use:
        return Derivative(number, sums, None)
    uses: list[list[Use]] = [[] for _ in names]
    for part, gradient in zip(readings, found[len(whole) :], strict=True):
        uses[part.place].append(Use(gradient, str(part.by)))
    return Derivative(number, sums, uses)


def _recorded(source: Any, loss: Callable[..., Any], batch: tuple[Any, ...], watch: _Watch | None) -> Any:
    """Return the loss with what MXNet has recorded of it."""
    with ExitStack() as stack:
        if isinstance(source, Block):
            stack.enter_context(_uncompiled(source))
        if watch is not None:
            spy = _Spy(watch.readings)
            if isinstance(source, Block):
                stack.enter_context(_followed(source, spy))
            stack.enter_context(_watched(watch, spy))
        stack.enter_context(autograd.record())
        return loss(source, *batch)


def _distinct(tree: ParamTree, name: str) -> list[Any]:
    """Return the parameters of a tied group: several, if they are one in memory only."""
    return tree.handles(tree.tied_with(name))


def _number(value: Any) -> float:
    if not isinstance(value, mxnet.nd.NDArray) or value.size != 1:
        what = f"an array of shape {value.shape}" if isinstance(value, mxnet.nd.NDArray) else repr(value)
        raise MismatchError(f"the loss is {what[:80]}; a gradient needs one number: take its mean or sum")
    return float(values_of(value).reshape(()))


def _differentiated(value: Any, parts: Sequence[_Part]) -> list[Values]:
    """Return the gradient by each array: zeros where the loss does not depend on it.

    MXNet refuses an array that the loss does not reach. So each is a result, too, whose own gradient is zero;
    and it refuses a result that nothing recorded leads to. So zero is added to the loss.
    """
    arrays = [part.array for part in parts if 0 not in shape_of(part.array)]
    with mxnet.util.np_shape(True):  # arrays without axes exist in it only
        with autograd.pause():
            zero = _filled(value, 0)
            zero.attach_grad()
        with autograd.record():
            heads = [value + zero, *(array * 1 for array in arrays)]
        with autograd.pause():
            weights = [_filled(value, 1), *(_filled(array, 0) for array in arrays)]
        found = iter(autograd.grad(heads, arrays, weights) if arrays else ())
        return [
            _dense(next(found), part.array) if 0 not in shape_of(part.array) else _empty(part.array)
            for part in parts
        ]


def _filled(like: Any, number: int) -> Any:
    module = mxnet.np if isinstance(like, mxnet.np.ndarray) else mxnet.nd
    return module.zeros_like(like) + number


def _empty(like: Any) -> Values:
    return np.array(values_of(like))


def _dense(gradient: Any, like: Any) -> Values:
    if gradient.stype != "default":
        gradient = gradient.tostype("default")
    return np.array(values_of(gradient)).reshape(shape_of(like))


@contextmanager
def _kept(tree: ParamTree, differentiated: set[int]) -> Iterator[None]:
    """Put back what a forward pass writes, as running statistics: whatever is not differentiated by."""
    others = {id(p.handle): p.handle for p in tree.values() if id(p.handle) not in differentiated}
    with mxnet.util.np_shape(True), autograd.pause():
        before = [(array, array.copy()) for p in others.values() for array in p._data or ()]
    try:
        yield
    finally:
        with mxnet.util.np_shape(True), autograd.pause():
            for array, copied in before:
                copied.copyto(array)


class _Spy:
    """Lets what is read of a parameter be told apart from every other reading of it."""

    def __init__(self, readings: list[_Part]) -> None:
        self.running: list[
            str
        ] = []  # the blocks that are being run, outermost first, in Gluon's words for them
        self._readings = readings

    def read(self, place: int, array: Any) -> Any:
        """Return the array plus zeros of its own; minus zero, to which every number adds unchanged."""
        if not autograd.is_recording() or 0 in shape_of(array):
            return array
        with autograd.pause():
            zeros = _filled(array, 0) * -1
            zeros.attach_grad()
        self._readings.append(_Part(place, zeros, self.running[-1] if self.running else "read"))
        return array + zeros


@contextmanager
def _followed(source: Any, spy: _Spy) -> Iterator[None]:
    """Let the spy know which block of a model is running."""
    blocks = _blocks(source)
    hooks = [block.register_forward_pre_hook(lambda b, _: spy.running.append(b._alias())) for block in blocks]
    hooks += [block.register_forward_hook(lambda *_: spy.running.pop()) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.detach()


@contextmanager
def _uncompiled(source: Any) -> Iterator[None]:
    """Run the blocks of a model as they are written; their compiled graphs are kept for later."""
    compiled = [block for block in _blocks(source) if isinstance(block, HybridBlock) and block._active]
    for block in compiled:
        block._active = False
    try:
        yield
    finally:
        for block in compiled:
            block._active = True


def _blocks(source: Any) -> list[Any]:
    return list({id(owner.block): owner.block for owner in owners(source)}.values())


@contextmanager
def _watched(watch: _Watch, spy: _Spy) -> Iterator[None]:
    """Show the spy every reading of the parameters; refuse compiled graphs, which read once for all uses."""
    places = {p: place for place, several in enumerate(watch.parameters) for p in several}
    run_compiled = HybridBlock._call_cached_op

    def refuse(block: Any, *inputs: Any) -> Any:
        for parameter in block.collect_params().values():
            if parameter in places:
                raise UnsupportedError(
                    f"{printable(watch.names[places[parameter]])}: a compiled graph ({type(block).__name__}) "
                    "reads it once for all its uses; run the model uncompiled, or without per_use=True"
                )
        return run_compiled(block, *inputs)

    HybridBlock._call_cached_op = refuse
    for parameter, place in places.items():
        parameter._check_and_get = _read_by(spy, parameter, place)
    try:
        yield
    finally:
        HybridBlock._call_cached_op = run_compiled
        for parameter in places:
            del parameter._check_and_get


def _read_by(spy: _Spy, parameter: Any, place: int) -> Callable[[Any, Any], Any]:
    original = parameter._check_and_get

    def check_and_get(arrays: Any, context: Any) -> Any:
        found = original(arrays, context)
        if arrays is not parameter._data:
            return found  # a gradient
        return [spy.read(place, array) for array in found] if context is list else spy.read(place, found)

    return check_and_get
