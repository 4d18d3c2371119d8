"""Layers that Keras numbers by counting all of a process: ``dense_3`` may be ``dense`` elsewhere."""

from __future__ import annotations

import re

from paratree.core.names import BUFFER, PARAMETER, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from paratree.core.tree import ParamTree

_NUMBER = re.compile(r"_\d+$")


def renumbered(
    source: ParamTree, model: ParamTree, new_name: Callable[[str], str] = str
) -> dict[str, str] | None:
    """Return name in the source -> name in the model, if they are the same but for numbers of layers.

    As Keras does, layers of a kind are taken in order. ``None`` unless every parameter and buffer of either
    then has one in the other.
    """
    ours = _ranked({new_name(name): name for name in _own(source)})
    theirs = _ranked({name: name for name in _own(model)})
    return {name: theirs[key] for key, name in ours.items()} if ours.keys() == theirs.keys() else None


def _own(tree: ParamTree) -> list[str]:
    return [name for name, param in tree.items() if param.kind in (PARAMETER, BUFFER)]


def _ranked(names: Mapping[str, str]) -> dict[str, str]:
    """Return names with the place of each layer among those of its kind, instead of its number.

    >>> _ranked({"dense_3.kernel": "a", "dense_5.kernel": "b", "dense_5.bias": "c"})
    {'dense_0.kernel': 'a', 'dense_1.kernel': 'b', 'dense_1.bias': 'c'}
    """
    places: dict[str, dict[str, int]] = {}
    found: dict[str, str] = {}
    for name, value in names.items():
        *layers, last = split(name)
        path = ""
        for layer in layers:
            kind = path + _NUMBER.sub("", layer)
            alike = places.setdefault(kind, {})
            path = f"{kind}_{alike.setdefault(layer, len(alike))}."
        found[path + last] = value
    return found
