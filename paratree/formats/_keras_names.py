"""What the variables of a Keras file are called: Keras 3 keeps numbers, the class of the layer gives names.

The class is in the configuration (``.keras``) or in the name of the layer's group (``conv2d_3``). A number
becomes a name only where the count, the shapes and the configuration all fit the table in
:mod:`paratree.core.layout`; otherwise it stays a number.
"""

from __future__ import annotations

import re
from itertools import product

from paratree.core.layout import KERAS, KERAS_PARTS, keras_layout
from paratree.core.names import BUFFER, OTHER, PARAMETER, STATE, kind_of, natural
from paratree.files.hdf5 import Dataset, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Config = Mapping[str, Any]
    Keys = tuple[str, ...]

_KINDS = {  # variables that training by gradients does not change
    **dict.fromkeys(
        ("moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev"), BUFFER
    ),
    **dict.fromkeys(("mean", "variance", "count", "vector_u"), BUFFER),
    **dict.fromkeys(("0", "seed_generator_state"), OTHER),
}
_OPTIONS = {  # variable -> entry of the configuration that makes it, and with which value
    "bias": ("use_bias", True), "gamma": ("scale", True), "beta": ("center", True),
    "scale": ("use_scale", True), "concat_score_weight": ("score_mode", "concat"),
    "reverse_embeddings": ("tie_weights", False), "moving_stddev": ("renorm", True),
    "renorm_mean": ("renorm", True), "renorm_stddev": ("renorm", True),
}  # fmt: skip
_ALWAYS = {("RMSNormalization", "scale")}
_QUANTISED = {"Dense": "kernel", "EinsumDense": "kernel", "Embedding": "embeddings"}
_GROUPS = "g_idx"  # of int4 in blocks: the block of each row
_DEPTHWISE_2 = "depthwise_kernel"  # what Keras 2 calls the kernel of a depthwise convolution
_PROJECTIONS = {"query_dense", "key_dense", "value_dense", "output_dense"}  # what only attention holds
_TOP = ("optimizer", "metrics")  # attributes of a model that are none of its layers
_LISTS = ("layers", "_layer_checkpoint_dependencies", "container")  # keys that say nothing
_NOWHERE = Group((), {}, False)  # the group of a layer that is only in a configuration


class Variable:
    """A dataset, its name and what the layer says about it."""

    __slots__ = ("dataset", "kind", "layout", "name", "trainable")

    def __init__(
        self,
        name: Keys,
        dataset: Dataset,
        kind: str,
        trainable: bool | None = None,
        layout: str | None = None,
    ) -> None:
        self.name, self.dataset, self.kind = name, dataset, kind
        self.trainable, self.layout = trainable, layout


class Layer:
    """A layer in the file or in a configuration.

    Attributes:
        kind: its class, if Keras's own and known; else empty.
        config: its entry in the configuration, or that of the layer it is a part of; empty if there is none.
        trainable: whether it and all around it are, if known.
    """

    __slots__ = ("config", "group", "keys", "kind", "names", "trainable")

    def __init__(
        self, kind: str, config: Config, trainable: bool | None, group: Group = _NOWHERE, names: Keys = (),
        keys: Keys = (),
    ) -> None:  # fmt: skip
        self.kind, self.config, self.trainable = kind, config, trainable
        self.group, self.names, self.keys = group, names, keys


def root_layer(config: Config) -> Layer:
    """Return the layer that a model's configuration describes."""
    return Layer(_class(config), config, _flag(config, None))


class Inner:
    """The configurations directly in that of a layer, by name, by key, and by place in a list."""

    def __init__(self, layer: Layer) -> None:
        self.by_name: dict[str, Config | None] = {}  # None if two share the name
        self.by_keys: dict[Keys, Config | None] = {}
        self.places: dict[int, int] = {}
        counts: dict[Keys, int] = {}
        for key, config in _inner(layer.config):
            name, base = name_of(config), _snake(config["class_name"])
            count = counts[key, base] = counts.get((key, base), -1) + 1
            self.by_name[name] = None if name in self.by_name else config
            self.by_keys[key,] = None if (key,) in self.by_keys else config
            self.by_keys[key, f"{base}_{count}" if count else base] = config
            self.places[id(config)] = len(self.places)


def _inner(config: Config) -> Iterator[tuple[str, Config]]:
    """Yield the configurations of the layers directly in a layer, in order, each with the key it is under."""
    content = config.get("config")
    waiting = list(content.items())[::-1] if isinstance(content, dict) else []
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, list):
            waiting += [(key, item) for item in reversed(value)]
        elif isinstance(value, dict):
            inner, kind = value.get("config"), value.get("class_name")
            if isinstance(inner, dict) and isinstance(kind, str) and name_of(value):
                yield key, value
            else:
                waiting += [(key, item) for item in reversed(value.values())]


def name_of(config: Config) -> str:
    """Return the name of a layer: a custom one may leave it to the model that holds it."""
    found = config["config"].get("name", config.get("name"))
    return found if isinstance(found, str) else ""


def part(layer: Layer, name: str, role: str = "", config: Config | None = None) -> Layer:
    """Return a sublayer: from its own configuration, from its role in the layer, or from its name."""
    if config is not None:
        return Layer(_class(config), config, _flag(config, layer.trainable))
    parts = KERAS_PARTS.get(layer.kind, {})
    if kind := parts.get(role or name):
        return Layer(kind, layer.config, layer.trainable)
    return Layer(_class_of_name(name), {}, layer.trainable)


def kind_and_layout(layer: Layer, name: str, dtype: str, ndim: int) -> tuple[str, str | None]:
    """Return what a variable is and the names of its axes."""
    row = _row(layer.kind, name)
    if row not in KERAS.get(layer.kind, {}):
        return BUFFER if name == _GROUPS else kind_of(name, dtype), None
    return _KINDS.get(name, PARAMETER), keras_layout(layer.kind, row, ndim)


def trained(layer: Layer, kind: str) -> bool | None:
    """Tell whether training changes a variable of the layer, if the file says so."""
    return layer.trainable if kind == PARAMETER else False


def variables(root: Group, config: Config, generation: str) -> tuple[list[Variable], bool]:
    """Name every variable of a file of Keras 3.

    Args:
        root: the file.
        config: the model's configuration; empty if there is none.
        generation: the first digit of the version of Keras that wrote the file, empty if not known.

    Returns:
        The variables in the order of the model, then arrays that Keras would not look at; and whether the
        order is only inferred.
    """
    model = root_layer(config)
    model.group = root
    found: list[Variable] = []
    inferred = False
    waiting = [model]
    while waiting:
        layer = waiting.pop()
        found += _own(layer, generation)
        inner = Inner(layer)
        below, guessed = _ordered(layer, inner, [_child(layer, inner, *child) for child in _children(layer)])
        inferred = inferred or guessed
        waiting += reversed(below)
    named = {id(variable.dataset) for variable in found}
    loose = [dataset for dataset in root.datasets() if id(dataset) not in named]
    return found + [Variable(dataset.path, dataset, OTHER) for dataset in loose], inferred


def _own(layer: Layer, generation: str) -> Iterator[Variable]:
    """Yield the variables that a layer holds itself."""
    held = layer.group.children.get("vars")
    if isinstance(held, Group):
        datasets = [
            (k, d)
            for k, d in sorted(held.children.items(), key=lambda i: natural(i[0]))
            if isinstance(d, Dataset)
        ]
        names = _names(layer, [d for _, d in datasets], generation)
        for (key, dataset), name in zip(datasets, names, strict=True):
            array = dataset.array
            known = name if key.isdecimal() else key
            kind, layout = kind_and_layout(layer, known, array.dtype, len(array.shape))
            if layer.keys[:1] in (("optimizer",), ("metrics",)):
                kind, layout = (STATE if layer.keys[0] == "optimizer" else OTHER), None
            yield Variable((*layer.names, known), dataset, kind, trained(layer, kind), layout)


def _names(layer: Layer, datasets: list[Dataset], generation: str) -> list[str]:
    """Return a name for each variable of a layer, or its number where the table leaves a doubt."""
    shapes, count = [d.array.shape for d in datasets], len(datasets)
    numbers = [str(i) for i in range(count)]
    if layer.keys == ("optimizer",) and count and shapes[0] == () and "int" in datasets[0].array.dtype:
        return ["iteration", *numbers[1:]]
    if count and datasets[0].array.dtype == "int8" and (main := _QUANTISED.get(layer.kind)):
        grouped = [f"{main}_scale", f"{main}_zero", _GROUPS]
        packed = {
            2: [main, f"{main}_scale"], 3: [main, "bias", f"{main}_scale"],
            4: [main, *grouped], 5: [main, "bias", *grouped],
        }  # fmt: skip
        return packed.get(count, numbers)
    fitting = [
        names for names in _variants(layer, generation)
        if len(names) == count
        and all(_fits(layer.kind, n, shape) for n, shape in zip(names, shapes, strict=True))
    ]  # fmt: skip
    if not fitting:
        return numbers
    return [at[0] if len(set(at)) == 1 else n for n, *at in zip(numbers, *fitting, strict=True)]


def _variants(layer: Layer, generation: str) -> Iterator[list[str]]:
    """Yield every list of variables that a layer of this class and configuration may have."""
    names, content = list(KERAS.get(layer.kind, {})), layer.config.get("config", {})
    options: dict[tuple[str, object], tuple[bool, ...]] = {}
    for name in names:
        if name in _OPTIONS and (layer.kind, name) not in _ALWAYS:
            key, value = _OPTIONS[name]
            known = isinstance(content, dict) and key in content
            options[key, value] = (content[key] == value,) if known else (True, False)
    words = {"3": ("kernel",), "": ("kernel", _DEPTHWISE_2)}.get(generation, (_DEPTHWISE_2,))
    for chosen in product(*options.values()):
        left = {option for option, on in zip(options, chosen, strict=True) if not on}
        variant = [n for n in names if (layer.kind, n) in _ALWAYS or _OPTIONS.get(n) not in left]
        for word in words if layer.kind.startswith("Depthwise") else ("kernel",):
            yield [word if name == "kernel" else name for name in variant]


def _row(kind: str, name: str) -> str:
    """Return the name under which the table has a variable: Keras 3 renamed one."""
    return "kernel" if name == _DEPTHWISE_2 and kind.startswith("Depthwise") else name


def _fits(kind: str, name: str, shape: tuple[int | None, ...]) -> bool:
    layouts = KERAS[kind][_row(kind, name)].split("|")
    return "*" in layouts or any(len(words.split()) == len(shape) for words in layouts)


def _children(layer: Layer) -> list[tuple[Keys, Group]]:
    """List the groups of the sublayers; a group without variables of its own is a list that holds them."""
    found: list[tuple[Keys, Group]] = []
    waiting: list[tuple[Keys, Group]] = [((), layer.group)]
    while waiting:
        keys, group = waiting.pop()
        if keys and "vars" in group.children:
            found.append((keys, group))
            continue
        inside = ((k, g) for k, g in group.children.items() if isinstance(g, Group) and k != "vars")
        waiting += reversed([((*keys, k), g) for k, g in inside])
    return found


def _child(parent: Layer, inner: Inner, keys: Keys, group: Group) -> Layer:
    """Describe a sublayer, found in the configuration by its name, or by its key or place in a list."""
    held, key, role = group.children["vars"], keys[-1], _role(parent.kind, keys)
    name = held.text("name") if isinstance(held, Group) else None
    own = inner.by_name.get(name) if name else inner.by_keys.get((_list_of(keys), *keys[1:]))
    called = name
    if own is not None:
        called = name or name_of(own)
    elif (
        name is None and parent.kind == "Bidirectional" and (own := inner.by_keys.get(("layer",))) is not None
    ):
        called = key.removesuffix("layer") + name_of(own)  # made twice of the one layer it was given
    elif name is None and role:
        called = _snake(KERAS_PARTS[parent.kind][role]) if role == "cell" else role
    if own is None and {k.strip("_") for k in group.children} >= _PROJECTIONS:
        layer = Layer("MultiHeadAttention", {}, parent.trainable)
    elif own is None and len(keys) > 1:  # in a list: the key is made of the class, the name may be anything
        layer = Layer(_class_of_name(key), {}, parent.trainable)
    else:
        layer = part(parent, name or key, role, own)
    lists = () if name else tuple(k for k in keys[:-1] if k not in _LISTS)
    if keys[0] in _TOP and not parent.names:
        called = None
    layer.group, layer.keys, layer.names = (
        group,
        (*parent.keys, *keys),
        (*parent.names, *lists, called or key),
    )
    return layer


def _list_of(keys: Keys) -> str:
    """Return the configuration's key for the list that a sublayer is in; old files name it differently."""
    return "layers" if keys[0] in _LISTS else keys[0]


def _role(kind: str, keys: Keys) -> str:
    """Return the part that a sublayer plays in a layer of this class, from the attribute that holds it."""
    word = keys[-1].strip("_").removesuffix("_dense")
    word = {"output": "attention_output"}.get(word, word)
    return word if len(keys) == 1 and word in KERAS_PARTS.get(kind, {}) else ""


def _ordered(parent: Layer, inner: Inner, layers: list[Layer]) -> tuple[list[Layer], bool]:
    """Return the sublayers that hold something in the order of the model, and whether that is only inferred.

    The configuration knows it. Without one the order of writing is that of the model, for the layers of
    a Sequential or functional model and for lists; it shows in where things lie in the file, and the
    counters in the names of the groups (dense, dense_1) must agree with it.
    """
    full = [layer for layer in layers if layer.group.end >= 0]
    tops = [layer for layer in full if layer.keys[0] in _TOP and not parent.names]
    rest = [layer for layer in full if layer.keys[0] not in _TOP or parent.names]
    if order := list(KERAS_PARTS.get(parent.kind, ())):
        roles = {id(layer): _role(parent.kind, layer.keys[-1:]) for layer in rest}
        return sorted(
            rest, key=lambda layer: order.index(r) if (r := roles[id(layer)]) else len(order)
        ), False
    known = [layer for layer in rest if id(layer.config) in inner.places]
    known.sort(key=lambda layer: inner.places[id(layer.config)])
    rest = [layer for layer in rest if id(layer.config) not in inner.places]
    if len(rest) < 2 or any(layer.group.tracked for layer in rest):
        return known + rest + tops, False
    by_name = sorted(rest, key=lambda layer: [natural(key) for key in layer.keys])
    by_place = sorted(rest, key=lambda layer: layer.group.end)
    return known + (by_place if _counters(by_place) == _counters(by_name) else by_name) + tops, True


def _counters(layers: Iterable[Layer]) -> dict[Keys, list[int]]:
    """Return, for each list and class, the counters in order."""
    found: dict[Keys, list[int]] = {}
    for layer in layers:
        base, count = _counted(layer.keys[-1])
        found.setdefault((*layer.keys[:-1], base), []).append(count)
    return found


def _class(config: Config) -> str:
    """Return the class of a configuration if it is Keras's own; others may only share the name."""
    module, kind = config.get("module", "keras"), config.get("class_name")
    own = isinstance(module, str) and module.partition(".")[0] in ("keras", "tf_keras", "tensorflow")
    return kind if own and isinstance(kind, str) else ""


def _flag(config: Config, outer: bool | None) -> bool | None:
    content = config.get("config")
    found = content.get("trainable") if isinstance(content, dict) else None
    return False if outer is False or found is False else found if isinstance(found, bool) else outer


def _snake(kind: str) -> str:
    """Return the name that Keras gives to layers of a class.

    >>> _snake("Conv2DTranspose"), _snake("PReLU")
    ('conv2d_transpose', 'p_re_lu')
    """
    kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", kind).lower()


_CLASSES = {_snake(kind): kind for kind in [*KERAS, *KERAS_PARTS] if "." not in kind} | {
    "conv_lstm_cell": "ConvLSTMCell"
}


def _class_of_name(name: str) -> str:
    """Return the class that a name made by Keras stands for (``conv2d_3``), or an empty text."""
    return _CLASSES.get(_counted(name)[0], "")


def _counted(name: str) -> tuple[str, int]:
    """Return a name without the number that Keras appends, and that number.

    >>> _counted("dense_12"), _counted("conv2d")
    (('dense', 12), ('conv2d', 0))
    """
    base, _, count = name.rpartition("_")
    return (base, int(count)) if base and count.isdecimal() and len(count) < 20 else (name, 0)
