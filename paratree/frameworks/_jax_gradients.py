"""JAX: the gradients of a loss, and what each use of a parameter adds to them.

A use is an operand of an operation in the jaxpr of the loss. For each, an array of its own stands in for the
parameter, and JAX differentiates by all of them. What only reshapes or casts a parameter (a transpose, a
cast to bfloat16) is no use: the operation that takes its result is. Jitted functions and
``jax.checkpoint`` are looked into; ``scan``, ``while`` and ``cond`` are one use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from paratree.core.errors import MismatchError, UnsupportedError
from paratree.core.results import Derivative, Use
from paratree.frameworks._jax_changes import places_of
from paratree.frameworks._jax_trees import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from paratree.core.tree import ParamTree

    Read = Callable[[int, str], Any]  # the value of the parameter at a position, and what takes it
    Origin = tuple[int, tuple[Any, ...]]  # position of a parameter, the equations that reshaped it since

_LOOKED_INTO = {  # primitive -> where its jaxpr is
    "jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr",
    "remat": "jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr",
}  # fmt: skip
_VIEWS = {"broadcast_in_dim", "convert_element_type", "copy", "copy_p", "reshape", "squeeze", "transpose"}


def gradients(
    source: Any,
    tree: ParamTree,
    loss: Callable[..., Any],
    batch: tuple[Any, ...],
    names: Sequence[str],
    per_use: bool,
) -> Derivative:
    """Differentiate by ``jax.value_and_grad``; the loss gets the whole source, in its own type."""
    places = [places_of(tree, name) for name in names]

    def of_leaves(leaves: Sequence[Any]) -> Any:
        new = {place: leaf for leaf, at in zip(leaves, places, strict=True) for place in at}
        return loss(replaced(source, new), *batch)

    return derivative(of_leaves, [tree[name].handle for name in names], per_use)


def derivative(of_leaves: Callable[[Sequence[Any]], Any], values: Sequence[Any], per_use: bool) -> Derivative:
    """Differentiate a function of a list of arrays by each of them."""
    total = _total(of_leaves, values)
    if not per_use:
        return total
    try:
        jaxpr = jax.make_jaxpr(lambda leaves: _number(of_leaves(leaves)))(list(values))
    except jax.errors.ConcretizationTypeError as error:
        first = str(error).splitlines()[0]
        raise UnsupportedError(
            f"the loss asks for values ({first}), so its operations cannot be listed beforehand; "
            "use jax.lax.cond or jnp.where in it, or leave out per_use=True"
        ) from None
    origins: list[Origin | None] = [(position, ()) for position in range(len(values))]

    def of_reads(read: Read) -> Any:
        given = [None] * len(values)
        (result,), (origin,) = _run(jaxpr.jaxpr, jaxpr.consts, given, origins, read)
        return result if origin is None else _viewed(origin, read, "read")

    return total._replace(uses=_uses(of_reads, values))


def differentiate(
    function: Callable[[Callable[[int], Any]], Any], values: Sequence[Any], per_use: bool
) -> Derivative:
    """Differentiate ``function(read)``, which asks for the value at a position by ``read(position)``.

    Args:
        function: returns a scalar array; it is called several times, and reads in the same order each time.
        values: arrays; a use is a call of ``read``.
        per_use: whether to return the uses.

    Returns:
        The loss, its gradient by each value, and the uses of each if they were asked for.
    """
    total = _total(lambda leaves: function(lambda place: leaves[place]), values)
    if not per_use:
        return total
    return total._replace(uses=_uses(lambda read: function(lambda place: read(place, "read")), values))


def _total(of_leaves: Callable[[Sequence[Any]], Any], values: Sequence[Any]) -> Derivative:
    number, found = jax.value_and_grad(lambda leaves: _number(of_leaves(leaves)))(list(values))
    return Derivative(float(number), [np.asarray(gradient) for gradient in found], None)


def _uses(of_reads: Callable[[Read], Any], values: Sequence[Any]) -> list[list[Use]]:
    """Count the uses, then differentiate with a stand-in for each."""
    readings: list[tuple[int, str]] = []

    def counted(leaves: Sequence[Any]) -> Any:
        readings.clear()

        def read(place: int, by: str) -> Any:
            readings.append((place, by))
            return leaves[place]

        return of_reads(read)

    jax.eval_shape(counted, list(values))

    def apart(stand_ins: Sequence[Any]) -> Any:
        waiting = iter(stand_ins)
        return _number(of_reads(lambda place, by: next(waiting)))

    found = jax.grad(apart)([jnp.asarray(values[place]) for place, _ in readings]) if readings else []
    uses: list[list[Use]] = [[] for _ in values]
    for (place, by), gradient in zip(readings, found, strict=True):
        uses[place].append(Use(np.asarray(gradient), by))
    return uses


def _number(value: Any) -> Any:
    if isinstance(value, tuple | list | dict):
        raise MismatchError(f"the loss is a {type(value).__name__}; a gradient needs one real number")
    if np.ndim(value) and np.size(value) == 1:
        value = jnp.reshape(value, ())
    real = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)
    if not np.ndim(value) and (real or isinstance(value, float)):
        return jnp.asarray(value)
    what = f"{type(value).__name__} of shape {np.shape(value)}" if hasattr(value, "shape") else repr(value)
    raise MismatchError(f"the loss is {what[:80]}; a gradient needs one real number: take its mean or sum")


# The jaxpr of a loss, run with stand-ins


def _run(
    jaxpr: Any, consts: Sequence[Any], values: Sequence[Any], origins: Sequence[Origin | None], read: Read
) -> tuple[list[Any], list[Origin | None]]:
    """Evaluate a jaxpr; what comes from a parameter has no value until an operation takes it."""
    results: Sequence[Any]
    held: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    held.update(zip(jaxpr.invars, values, strict=True))
    come_from = {v: o for v, o in zip(jaxpr.invars, origins, strict=True) if o is not None}

    def origin_of(atom: Any) -> Origin | None:
        return None if isinstance(atom, Literal) else come_from.get(atom)

    def value_of(atom: Any, by: str) -> Any:
        if isinstance(atom, Literal):
            return atom.val
        origin = come_from.get(atom)
        return held[atom] if origin is None else _viewed(origin, read, by)

    for equation in jaxpr.eqns:
        name, given = equation.primitive.name, [origin_of(atom) for atom in equation.invars]
        if name in _VIEWS and len(given) == 1 and given[0] is not None:
            position, chain = given[0]
            come_from[equation.outvars[0]] = (position, (*chain, equation))
            continue
        if name in _LOOKED_INTO and any(given):
            inner, inner_consts = _inside(equation)
            operands = [
                None if origin else value_of(atom, name)
                for atom, origin in zip(equation.invars, given, strict=True)
            ]
            results, ends = _run(inner, inner_consts, operands, given, read)
            come_from.update({v: o for v, o in zip(equation.outvars, ends, strict=True) if o is not None})
        else:
            results = _applied(equation, [value_of(atom, name) for atom in equation.invars])
        held.update(zip(equation.outvars, results, strict=True))
    after = [origin_of(atom) for atom in jaxpr.outvars]
    ended = [
        None if origin else value_of(atom, "read") for atom, origin in zip(jaxpr.outvars, after, strict=True)
    ]
    return ended, after


def _inside(equation: Any) -> tuple[Any, Sequence[Any]]:
    found = equation.params[_LOOKED_INTO[equation.primitive.name]]
    return (found.jaxpr, found.consts) if hasattr(found, "consts") else (found, ())


def _viewed(origin: Origin, read: Read, by: str) -> Any:
    position, chain = origin
    value = read(position, by)
    for equation in chain:
        (value,) = _applied(equation, [value])
    return value


def _applied(equation: Any, operands: Sequence[Any]) -> Sequence[Any]:
    bound = equation.primitive.get_bind_params(equation.params)  # a pair in older versions of JAX
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    with equation.ctx.manager:
        results = equation.primitive.bind(*functions, *operands, **params)
    return results if equation.primitive.multiple_results else [results]
