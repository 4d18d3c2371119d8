"""Gradients that a framework holds outside its parameters, paired with them (imports no framework)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from paratree.core.errors import MismatchError, printable
from paratree.core.param import Param

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from paratree.core.tree import ParamTree


def give(tree: ParamTree, grads: Any, trained: Sequence[Any] | None) -> None:
    """Give every parameter its gradient, under all its names.

    Args:
        tree: of which every parameter's ``live`` has an attribute ``gradient`` to be set.
        grads: by name; or in a list, one for each of ``trained``; or in the structure of the container.
        trained: the framework's own list of trained variables; ``None`` for a container.

    Raises:
        MismatchError: the names, the number, or a shape do not fit.
    """
    if isinstance(grads, Mapping):
        found = dict(_flat(grads, ""))
    elif not isinstance(grads, list | tuple):
        kind = type(grads).__name__
        raise MismatchError(f"grads: a {kind}; give a list beside the trained variables, or a dict by name")
    elif trained is None:
        found = dict(_flat(grads, ""))
        if missing := next((name for name in tree if name not in found), None):
            raise MismatchError(
                f"grads: the structure has no '{printable(missing)}'; give it that of the source"
            )
    else:
        found = _beside(tree, grads, trained)
    names_of: dict[int, list[Param]] = {}
    for param in tree.values():
        names_of.setdefault(id(param.handle), []).append(param)
    for name, gradient in found.items():
        param = _fitting(tree, name, gradient)
        for alike in names_of[id(param.handle)]:
            alike.live.gradient = gradient  # type: ignore[union-attr]


def _flat(grads: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what nested dicts and lists hold, by its path."""
    if isinstance(grads, Mapping):
        steps: Any = grads.items()
    elif isinstance(grads, list | tuple):
        steps = enumerate(grads)
    else:
        yield path, grads
        return
    for key, below in steps:
        yield from _flat(below, f"{path}.{key}" if path else str(key))


def _beside(tree: ParamTree, grads: Sequence[Any], trained: Sequence[Any]) -> dict[str, Any]:
    names: dict[int, str] = {}
    for name, param in tree.items():
        names.setdefault(id(param.handle), name)
    if len(grads) != len(trained):
        text = f"grads: {len(grads)} gradients for {len(trained)} trained variables; "
        if len(grads) < len(trained):
            name = names.get(id(trained[len(grads)]), "")
            raise MismatchError(f"{text}the first without one is '{printable(name)}'")
        raise MismatchError(f"{text}the first too many is number {len(trained)}")
    pairs = zip(trained, grads, strict=True)
    return {names[id(variable)]: gradient for variable, gradient in pairs if id(variable) in names}


def _fitting(tree: ParamTree, name: str, gradient: Any) -> Param:
    param = tree.get(name)
    if not isinstance(param, Param):
        raise MismatchError(f"grads: no parameter '{printable(name)}' in {printable(tree.source)}")
    if gradient is not None and (has := tuple(gradient.shape)) != param.shape:
        raise MismatchError(f"grads: '{printable(name)}' has the shape {has}, its parameter {param.shape}")
    return param
