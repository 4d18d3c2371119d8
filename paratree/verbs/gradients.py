"""The gradients of a loss under the names of the tree, and what each use of a tied parameter adds to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from paratree.core.errors import MismatchError, NoSuchParamError, UnreadableError, UnsupportedError, printable
from paratree.core.param import Param
from paratree.registry import find_framework
from paratree.verbs.choose import Choice, trained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from paratree.core.results import Use
    from paratree.core.tree import ParamTree

    Values = np.ndarray[Any, Any]

_ROUNDING = 1e-3  # relative: far above float32 sums in another order, far below a use that is missing
_NOISE = 1e-6  # of the largest gradient: what is left of one that is zero, as a bias before BatchNorm has


class Gradients(Mapping[str, "Values | None"]):
    """Name -> gradient, an array of the parameter's shape; one array under all names of a tied parameter.

    A parameter on which the loss does not depend has ``None`` where the framework says so, else zeros.

    Attributes:
        loss: value of the loss.
        uses: name -> the uses of the parameter, in the order in which the loss meets them: each with
            its ``gradient`` and the operation it is used ``by``; they add up. Empty if not asked for.
    """

    def __init__(
        self,
        loss: float,
        found: Mapping[str, Values | None],
        uses: Mapping[str, Sequence[Use]],
        tree: ParamTree | None = None,
    ) -> None:
        self.loss, self.uses, self._found, self._tree = loss, uses, found, tree

    def __getitem__(self, name: str) -> Values | None:
        """Return the gradient of a parameter, looked up as the tree does."""
        known = self._tree.get(name) if self._tree is not None and name not in self._found else None
        full = known.name if isinstance(known, Param) else name
        if full not in self._found:
            raise NoSuchParamError(name, self._found, "gradients")
        return self._found[full]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        uses = ", with their uses" if self.uses else ""
        return f"<Gradients of a loss of {self.loss:.6g}: {len(self)} names{uses}>"


def gradients(source: Any, loss: Callable[..., Any], *batch: Any, per_use: bool = False) -> Gradients:
    """Differentiate a loss by every trained parameter, under the names of the tree.

    The gradient of a tied parameter is the sum over its uses. The model is not changed: no gradient is
    stored in it, and what a forward pass updates (running statistics) is put back or not kept.

    Args:
        source: a live model, or a tree of arrays.
        loss: ``loss(source, *batch)``, in the framework's own terms: it returns one number of the framework.
        batch: what else the loss takes.
        per_use: whether to tell apart what each use of a parameter adds: an operation that takes it (PyTorch,
            JAX), or a reading of it by a layer (Gluon, Keras, TensorFlow).

    Returns:
        The gradients, by name.

    Raises:
        MismatchError: the loss is not one number.
        UnreadableError: a parameter has no values yet.
        UnsupportedError: the framework cannot tell, as inside compiled code.

    Example:
        >>> found = pt.gradients(net, lambda net, X: net(X).sum(), X, per_use=True)  # doctest: +SKIP
        >>> found["2.weight"], [use.by for use in found.uses["2.weight"]]  # doctest: +SKIP
    """
    framework = find_framework(source)
    tree = framework.open(source)
    choice = Choice(tree)
    names = trained(tree, choice)
    if problem := next((p for name in names if (p := tree[name].array.problem) is not None), None):
        raise UnreadableError(problem)
    found = framework.gradients(source, tree, loss, batch, names, per_use)
    by_name: dict[str, Values | None] = {}
    uses: dict[str, Sequence[Use]] = {}
    for place, first in enumerate(names):
        for name in choice.group(first):
            by_name[name] = found.gradients[place]
            if found.uses is not None:
                uses[name] = tuple(found.uses[place])
    largest = max((_largest(gradient) for gradient in by_name.values() if gradient is not None), default=0.0)
    for name in names if found.uses is not None else ():
        _check(name, by_name[name], uses[name], largest)
    ordered = [name for name in tree if name in by_name]
    if names and all(gradient is None for gradient in by_name.values()):
        raise MismatchError("the loss depends on no parameter of the model: is it detached, or of another?")
    return Gradients(
        found.loss, {n: by_name[n] for n in ordered}, {n: uses[n] for n in ordered if n in uses}, tree
    )


def _check(name: str, total: Values | None, uses: Sequence[Use], largest: float) -> None:
    """Make sure that the uses are all there: they add up to what the framework itself says of the whole.

    Raises:
        UnsupportedError: they do not.
    """
    if total is None and not uses:
        return
    parts = [_wide(use.gradient) for use in uses]
    wanted = np.zeros(()) if total is None else _wide(total)
    added = sum(parts, np.zeros(wanted.shape))
    size = max(_largest(part) for part in (wanted, *parts))
    rounding = max(_ROUNDING, 2 * len(uses) * _epsilon(total))
    if not np.allclose(added, wanted, rtol=0, atol=max(rounding * size, _NOISE * largest), equal_nan=True):
        raise UnsupportedError(
            f"{printable(name)}: {len(uses)} uses were seen, and they do not add up to its gradient: "
            "another is where it cannot be seen (compiled code, a custom function, a hook that changes "
            "gradients); run the model without that, or without per_use=True"
        )


def _largest(values: Values) -> float:
    """Return the largest size of a number; those that are none do not count."""
    sizes = np.abs(_wide(values))
    return float(sizes.max(initial=0.0, where=np.isfinite(sizes)))


def _wide(values: Values) -> Values:
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def _epsilon(values: Values | None) -> float:
    """Return the rounding of bfloat16 for types of two bytes or one; sums of uses in them differ most."""
    return 0.0 if values is None or values.itemsize > 2 else 2.0**-7
