"""What variables and sublayers of a Keras layer are called, and what attributes hold (imports no Keras)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from paratree.frameworks._keras_layers import Place

_BOOKKEEPING = {  # attributes of a layer beside those that its author gave it
    "_trainable_variables", "_non_trainable_variables", "_trainable_weights", "_non_trainable_weights",
    "_layers", "_metrics", "_seed_generators", "_tracker", "_tracked", "_functional", "_operations",
    "_obj_reference_counts_dict", "_unconditional_checkpoint_dependencies", "_inbound_nodes",
    "_outbound_nodes",
    "_parameters", "_buffers", "_build_shapes_dict", "_auto_config", "_torch_params",
}  # fmt: skip


def keys_of(place: Place) -> dict[str, Any]:
    """Return the variables of a layer by their names in it."""
    variables = [variable for part in place.dialect.own(place.layer) for variable in part]
    return dict(zip(names_in(place, variables), variables, strict=True))


def names_in(place: Place, variables: Sequence[Any]) -> list[str]:
    """Name each variable of a layer: as Keras does what the layer made, else by the attribute holding it."""
    keys: list[str] = []
    path_of, name, own = place.dialect.path, place.layer.name, None
    for variable in variables:
        above, _, key = path_of(variable).rpartition("/")
        if above != own:
            if above != name and not above.endswith(f"/{name}"):
                return _othernames_in(place, variables)
            own = above
        keys.append(key)
    return keys if len(set(keys)) == len(keys) else _othernames_in(place, variables)


def _othernames_in(place: Place, variables: Sequence[Any]) -> list[str]:
    keys: list[str] = []
    for variable in variables:
        path = place.dialect.path(variable)
        above, _, key = path.rpartition("/")
        made_here = above.rpartition("/")[2] == place.layer.name
        keys.append(key if made_here and key not in keys else _other_key(place, variable, path, keys))
    return keys


def _other_key(place: Place, variable: Any, path: str, taken: Sequence[str]) -> str:
    *scopes, last = path.split("/")
    inside = _inside(scopes, place.names or (place.layer.name,))
    parts = {child.name for child in place.dialect.children(place.layer)}
    if inside is not None and parts.isdisjoint(inside[:1]):  # what a sublayer made is lent by it
        key = ".".join((*inside, last))
        if key not in taken:
            return key
    attributes = [held.label for held in held_in(place.layer) if held.value is variable]
    key = next((label for label in attributes if label not in taken), last)
    number = 1
    while key in taken:
        key, number = f"{last}_{number}", number + 1
    return key


def _inside(scopes: Sequence[str], names: Sequence[str]) -> Sequence[str] | None:
    """Return the scopes below a layer's names, of which the first may be missing; ``None`` if foreign."""
    for start in range(len(names)):
        wanted = list(names[start:])
        for place in range(len(scopes) - len(wanted) + 1):
            if list(scopes[place : place + len(wanted)]) == wanted:
                return scopes[place + len(wanted) :]
    return None


def child_names(layer: Any, children: Sequence[Any]) -> list[str]:
    """Return the names of sublayers; those that share one go by the attribute that holds them."""
    names = [child.name for child in children]
    if len(set(names)) == len(names):
        return names
    times = Counter(names)
    labels = {id(held.value): held.label for held in reversed(list(held_in(layer)))}
    return [
        name if times[name] == 1 else labels.get(id(child), f"{name}_{i}")
        for i, (child, name) in enumerate(zip(children, names, strict=True))
    ]


class Held(NamedTuple):
    """What an attribute of a layer holds, also in lists and dicts.

    Attributes:
        holder: the layer, or the container.
        key: name of the attribute, or key or place in the container.
        step: expression for it, from that of the layer.
        label: what to call it in a name.
        value: what is held.
    """

    holder: Any
    key: Any
    step: str
    label: str
    value: Any


def held_in(layer: Any) -> Iterator[Held]:
    """Yield what the attributes of a layer hold, without Keras's own bookkeeping."""
    for name, value in list(vars(layer).items()):
        if name == "_modules":  # where PyTorch keeps what is a module
            for key, module in value.items():
                if key not in _BOOKKEEPING:
                    yield Held(layer, key, f".{key}", key.lstrip("_"), module)
        elif name not in _BOOKKEEPING and not name.startswith("_self_"):
            yield from _inside_of(layer, name, f".{name}", name.lstrip("_"), value)


def _inside_of(holder: Any, key: Any, step: str, label: str, value: Any) -> Iterator[Held]:
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _inside_of(value, name, f"{step}[{name!r}]", f"{label}.{name}", below)
    elif isinstance(value, list | tuple):
        for i, below in enumerate(value):
            yield from _inside_of(value, i, f"{step}[{i}]", f"{label}.{i}", below)
    else:
        yield Held(holder, key, step, label, value)


def path_to(top: Any, above: Sequence[Any]) -> str:
    """Return the steps from a layer down to the last of the layers around a variable."""
    start = next(i for i, layer in enumerate(above) if layer is top)
    pairs = zip(above[start:], above[start + 1 :], strict=False)
    return "".join(_step(holder, layer) for holder, layer in pairs)


def _step(holder: Any, layer: Any) -> str:
    listed = enumerate(getattr(holder, "layers", ()))  # of a model; a layer has its layers in attributes
    place = next((i for i, each in listed if each is layer), None)
    if place is not None:
        return f".layers[{place}]"
    return next((held.step for held in held_in(holder) if held.value is layer), "")
