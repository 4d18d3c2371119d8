"""Hugging Face transformers: its Flax models, which keep their parameters beside a linen module.

Its models for PyTorch and TensorFlow are models of those. Nothing is imported here but JAX, which a Flax
model has.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from paratree.core.array import RefusedArray
from paratree.core.errors import UnsupportedError, printable
from paratree.core.names import PARAMETER
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import ModuleType
    from typing import Any

    import numpy as np

    from paratree.core.results import Derivative, Group

NOT_INITIALISED = "not initialised yet; run params = net.init_weights(net.key, net.input_shape) and open that"


def matches(source: object) -> bool:
    """Tell whether ``source`` is a Flax model of transformers."""
    return any(
        base.__name__ == "FlaxPreTrainedModel" and base.__module__.partition(".")[0] == "transformers"
        for base in type(source).__mro__
    )


def open(source: Any, *, grads: Any = None) -> ParamTree:
    """Return the tree of ``net.params``; no value is read or moved.

    Args:
        source: a Flax model; of one made with ``_do_init=False``, the shapes are known.
        grads: gradients in the structure of ``net.params``.

    Returns:
        The tree. ``value`` is the memory of the array, read-only, if that is on the host, else a copy.

    Raises:
        MismatchError: ``grads`` are of another structure or shape; it names the first path.

    Example:
        >>> open(FlaxBertModel(config))["pooler.dense.kernel"].native  # doctest: +SKIP
        "net.params['pooler']['dense']['kernel']"
    """
    from paratree.frameworks._jax_open import tree_of

    title = type(source).__name__
    if source._is_initialized:
        held, native = source.params, "net.params"
        return tree_of(held, native=native, title=title, grads=grads, format="Flax", kind=PARAMETER)
    shapes = tree_of(source.params_shape_tree, native="net", title=title, grads=grads, kind=PARAMETER)
    params = [_without_values(param) for param in shapes.values()]
    return ParamTree(params, Origin(title, "Flax"))


def _without_values(param: Param) -> Param:
    problem = f"{printable(param.name)}: {NOT_INITIALISED}"
    array = RefusedArray(param.shape, param.dtype, problem)
    return Param(param.name, array, param.kind, trainable=param.trainable)


def assign(source: Any, tree: ParamTree, values: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """Set ``net.params``."""
    source.params = _jax().assign(_params(source), tree, values)
    return source


def tie(source: Any, tree: ParamTree, first: str, others: Sequence[str]) -> Any:
    """Part ``net.params`` into a ``Tied``: ``net(X, params=tied.expand(variables))``."""
    return _jax().tie(_params(source), tree, first, others)


def untie(source: Any, tree: ParamTree, names: Sequence[str]) -> Any:
    """Set ``net.params`` to one with copies."""
    source.params = _jax().untie(_params(source), tree, names)
    return source


def freeze(source: Any, tree: ParamTree, names: Collection[str], frozen: bool) -> Any:
    """Part ``net.params`` into a ``Partition``."""
    return _jax().freeze(_params(source), tree, names, frozen)


def groups(source: Any, tree: ParamTree, groups: Sequence[Group]) -> Any:
    """Return ``Labels`` of the structure of ``net.params``."""
    return _jax().groups(_params(source), tree, groups)


def gradients(
    source: Any,
    tree: ParamTree,
    loss: Callable[..., Any],
    batch: tuple[Any, ...],
    names: Sequence[str],
    per_use: bool,
) -> Derivative:
    """Differentiate the loss of a copy of the model, whose parameters are those that JAX traces."""

    def of_params(params: Any, *rest: Any) -> Any:
        twin = copy.copy(source)
        twin.params = params
        return loss(twin, *rest)

    found: Derivative = _jax().gradients(_params(source), tree, of_params, batch, names, per_use)
    return found


def _params(source: Any) -> Any:
    if not source._is_initialized:
        raise UnsupportedError(f"{type(source).__name__}: {NOT_INITIALISED}")
    return source.params


def _jax() -> ModuleType | Any:
    from paratree.frameworks import jax

    return jax
