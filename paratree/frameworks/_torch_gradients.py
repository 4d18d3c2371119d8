"""PyTorch: the gradients of a loss, and what each use of a parameter adds to them."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from paratree.core.errors import MismatchError, UnsupportedError
from paratree.core.results import Derivative, Use
from paratree.frameworks._torch_changes import leaves as leaves_of
from paratree.frameworks._torch_tensors import TensorArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.tree import ParamTree

    Values = np.ndarray[Any, Any]
    Reading = tuple[
        int, torch.Tensor, str
    ]  # position of the parameter, the tensor that stood in for it, by what


def gradients(
    source: Any,
    tree: ParamTree,
    loss: Callable[..., Any],
    batch: tuple[Any, ...],
    names: Sequence[str],
    per_use: bool,
) -> Derivative:
    """Differentiate by ``torch.autograd.grad``: no ``.grad`` is touched, and buffers are put back.

    A use is an operation that takes the parameter (its ``__torch_function__`` call): for each, a view stands
    in for the parameter, so that autograd keeps what comes back through it apart.
    """
    places: list[int] = []
    leaves: list[torch.Tensor] = []
    for place, name in enumerate(names):
        for leaf in leaves_of(tree, name):
            places.append(place)
            leaves.append(leaf)
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        if isinstance(source, nn.Module):
            stack.enter_context(_buffers_kept(source))
            if any(type(module).__name__ == "OptimizedModule" for module in source.modules()):
                stack.enter_context(torch.compiler.set_stance("force_eager"))
        spy = _Spy(leaves) if per_use else None
        with nullcontext() if spy is None else spy:
            value = loss(source, *batch)
        found = _derivative(value, leaves, None if spy is None else spy.readings)
    return _merged(found, places, len(names))


def differentiate(
    function: Callable[[Callable[[int], Any]], Any], values: Sequence[Any], per_use: bool
) -> Derivative:
    """Differentiate ``function(read)``, which asks for the value at a position by ``read(position)``.

    Args:
        function: returns a scalar tensor.
        values: tensors; a use is a call of ``read``.
        per_use: whether to return the uses.
    """
    leaves = [value.detach().requires_grad_() for value in values]
    readings: list[Reading] = []

    def read(place: int) -> torch.Tensor:
        readings.append((place, torch.ops.aten.alias(leaves[place]), "read"))
        return readings[-1][1]

    with torch.enable_grad():
        value = function(read)
    return _derivative(value, leaves, readings if per_use else None)


def _derivative(value: Any, leaves: Sequence[torch.Tensor], readings: Sequence[Reading] | None) -> Derivative:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
        raise MismatchError(f"the loss is {what[:80]}; a gradient needs one number: take its mean or sum")
    if value.is_complex():
        raise MismatchError("the loss is a complex number; a gradient needs a real one: take its abs()")
    number = float(value.detach())
    targets = [*leaves, *(tensor for _, tensor, _ in readings or ())]
    if not value.requires_grad:
        found: Sequence[torch.Tensor | None] = [None] * len(targets)
    else:
        _refuse_reentrant(value)
        found = torch.autograd.grad(value.reshape(()), targets, allow_unused=True)
    arrays = [None if g is None else _dense(g) for g in found]
    if readings is None:
        return Derivative(number, arrays, None)
    uses: list[list[Use]] = [[] for _ in leaves]
    for (place, _, by), gradient in zip(readings, arrays[len(leaves) :], strict=True):
        if gradient is not None:
            uses[place].append(Use(gradient, by))
    return Derivative(number, arrays[: len(leaves)], uses)


def _dense(gradient: torch.Tensor) -> Values:
    dense = gradient if gradient.layout is torch.strided else gradient.to_dense()
    return TensorArray(dense, "gradient").read()


def _refuse_reentrant(value: torch.Tensor) -> None:
    """Refuse a checkpoint that runs backward inside backward: autograd.grad cannot look through it."""
    waiting, seen = [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "CheckpointFunctionBackward":
            raise UnsupportedError(
                "the loss runs through a reentrant checkpoint, which hides the parameters inside; "
                "use torch.utils.checkpoint with use_reentrant=False"
            )
        waiting += [before for before, _ in node.next_functions]


def _merged(found: Derivative, places: Sequence[int], number: int) -> Derivative:
    """Add together what belongs to one parameter."""
    if len(places) == number:
        return found
    sums: list[Values | None] = [None] * number
    uses: list[list[Use]] = [[] for _ in range(number)]
    for i, place in enumerate(places):
        gradient, before = found.gradients[i], sums[place]
        if gradient is not None:
            sums[place] = gradient if before is None else before + gradient
        if found.uses is not None:
            uses[place] += found.uses[i]
    return Derivative(found.loss, sums, None if found.uses is None else uses)


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Put back what a forward pass writes into buffers, as the running statistics of BatchNorm."""
    kept = [
        (owner, key, buffer, None if buffer is None or buffer.is_meta else buffer.detach().clone())
        for owner in module.modules()
        for key, buffer in owner._buffers.items()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for owner, key, buffer, before in kept:
                owner._buffers[key] = buffer
                if buffer is not None and before is not None and not torch.equal(buffer, before):
                    buffer.copy_(before)


class _Spy(TorchFunctionMode):  # type: ignore[misc]
    """Lets a view of its own stand in for a parameter wherever an operation takes it."""

    def __init__(self, leaves: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._places = {id(leaf): place for place, leaf in enumerate(leaves)}
        self.readings: list[Reading] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the operation with the stand-ins."""
        by = func.__self__.__name__ if func.__name__ == "__get__" else func.__name__
        return func(*self._replaced(args, by), **self._replaced(kwargs or {}, by))

    def _replaced(self, value: Any, by: str) -> Any:
        if isinstance(value, torch.Tensor):
            place = self._places.get(id(value))
            if place is None:
                return value
            self.readings.append((place, torch.ops.aten.alias(value), by))
            return self.readings[-1][1]
        if type(value) in (list, tuple):
            return type(value)(self._replaced(below, by) for below in value)
        if type(value) is dict:
            return {key: self._replaced(below, by) for key, below in value.items()}
        return value
