"""Keras and HDF5: ``.keras`` archives, weights of Keras 3 (also in shards), older ``.h5``, other HDF5 files.

Configurations are parsed as JSON and never built: a Lambda layer in one stays text.
Layouts: ``saving_lib.py`` and ``legacy_h5_format.py`` of Keras 3.15, ``hdf5_format.py`` of tf-keras 2.20.
"""

from __future__ import annotations

from collections import Counter
from os import PathLike

from paratree.core.errors import CorruptFileError, UnsafeFileError, UnsupportedError, printable
from paratree.core.names import OTHER, PARAMETER, STATE, kind_of, natural
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.hdf5 import Dataset, Group, is_hdf5, read_tree
from paratree.files.json import parse_object
from paratree.files.local import LocalFile, Memory, read
from paratree.files.shards import is_index
from paratree.files.zip import STORED, archive
from paratree.formats._keras_names import (
    Inner,
    Layer,
    Variable,
    kind_and_layout,
    part,
    root_layer,
    trained,
    variables,
)
from paratree.formats._keras_shards import SHARD, read_shards

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from paratree.files.local import Source
    from paratree.files.output import Output
    from paratree.files.zip import Member

    Config = dict[str, Any]

NAME = "Keras"
SUFFIXES = (".keras", ".weights.h5", ".h5", ".hdf5", ".weights.json")
FOLDER = ("*.weights.json", "model.weights.h5", "*.weights.h5", "*.keras", "*.h5", "*.hdf5")
LAZY = "yes; compressed chunks are inflated when asked for"
TIES = "hard links"
READS = "Keras 1 to 3: models, weights, shards, optimizer state; other HDF5 files by their paths"
EXTRA = None
MAKES = "copy"
WRITES = (
    "float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "bool", "uint8", "uint16",
    "uint32", "uint64", "int8", "int16", "int32", "int64", "complex64", "complex128",
)  # fmt: skip

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_LARGEST_JSON = 64 << 20
_LARGEST_INFLATED = 1 << 30
_TEXTS = ("keras_version", "backend", "name")
_JSON_TEXTS = ("model_config", "training_config")
_LISTS = ("layer_names", "weight_names")
_TOP_LEVEL = "top_level_model_weights"  # of a model itself, beside those of its layers


def sniff(file: LocalFile) -> bool:
    """Tell whether the file is HDF5 or an archive that Keras wrote."""
    if is_hdf5(file.head) or is_index(file, SHARD):
        return True
    members = archive(file)
    return members is not None and _CONFIG in members and _WEIGHTS in members


def open(file: LocalFile) -> ParamTree:
    """Walk the file, name its arrays as the model does, and return the tree.

    Raises:
        CorruptFileError: the file is damaged, or its parts contradict each other.
        UnsafeFileError: the file leads out of itself, or claims far more than it stores.
    """
    if is_index(file, SHARD):
        root, shards = read_shards(file, _wanted)
        return _tree(file, file, root, {}, {}, shards)
    return _opened(file)[0]


def _opened(file: LocalFile) -> tuple[ParamTree, Source]:
    """Return the tree of one file, and the HDF5 file that its arrays lie in: itself, or the archive's."""
    members = archive(file)
    if members is None:
        return _tree(file, file, read_tree(file, _wanted), {}, {}), file
    metadata = _json(file, members[_METADATA]) if _METADATA in members else {}
    config, source = _json(file, members[_CONFIG]), _weights(members[_WEIGHTS])
    return _tree(file, source, read_tree(source, _wanted), metadata, config), source


def holds_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell that names are not tied by what is written: how many arrays there are is as in the copy."""
    return False


def save_copy(tree: ParamTree, output: Output, like: object) -> Sequence[str]:
    """Write a copy of a file, or of what Keras saves of a live model, with the values of a tree."""
    from paratree.formats._keras_written import as_file, write

    with as_file(like, output.path) as path:
        file = LocalFile(path)
        try:
            if is_index(file, SHARD) or not sniff(file):
                what = "weights in shards" if is_index(file, SHARD) else "no file of Keras or HDF5"
                raise UnsupportedError(f"{printable(path)}: {what}; give one file to write into a copy of")
            layout, source = _opened(file)
            said = printable(path) if isinstance(like, str | PathLike) else type(like).__name__
            return write(tree, output, layout, source, archive(file) or {}, said)
        finally:
            file.close()


def _json(file: LocalFile, member: Member) -> Config:
    if member.size > _LARGEST_JSON:
        raise CorruptFileError(
            file.path, f"{member.size} bytes are too many for a configuration", member=member.name
        )
    source = member.verified()
    return parse_object(file, read(source, 0, source.size), 0, member.name)


def _weights(member: Member) -> Source:
    """Return the HDF5 file in the archive: a window if stored; inflated once if not, as HDF5 jumps about."""
    if member.method == STORED:
        return member.source()
    if member.size > _LARGEST_INFLATED:
        raise UnsafeFileError(
            member.file.path, f"it is compressed, and would take {member.size} bytes of memory",
            member=member.name, advice="unpack it and open what is inside",
        )  # fmt: skip
    source = member.verified()
    read(source, 0, min(member.size, 1))  # a bomb is refused before there is memory for it
    return Memory(read(source, 0, member.size), member.file.path, member.name)


def _wanted(name: str) -> bool:
    """Tell which attributes to read; long lists are cut into numbered pieces (``weight_names0``)."""
    return name in _TEXTS or name in _JSON_TEXTS or name.rstrip("0123456789") in _LISTS


def _tree(
    file: LocalFile, source: Source, root: Group, metadata: Config, config: Config,
    shards: Sequence[LocalFile] = (),
) -> ParamTree:  # fmt: skip
    weights = root.children.get("model_weights", root)
    notes: list[str] = []
    found: Iterable[Variable]
    if isinstance(weights, Group) and _list(weights, "layer_names") is not None:
        meta = _legacy_meta(source, root, weights)
        form, found = "Keras HDF5", _legacy(source, root, weights, meta.get("model_config", {}))
    elif _is_keras_3(root):
        meta = _meta(metadata, config)
        form = "Keras" if config else "Keras weights"
        found, inferred = variables(root, config, _generation(metadata, root))
        if inferred:
            notes.append(
                "The order of the layers is that of their places in the file, which does not record it."
            )
    else:
        meta, form = {}, "HDF5"
        found = [Variable(("/".join(d.path),), d, _kind(d, d.path[-1])) for d in root.datasets()]
    params = _params(source, found)
    if any(p.kind == PARAMETER and name.rpartition(".")[2].isdecimal() for name, p in params.items()):
        notes.append("Variables with a number for a name: the file does not say the class of their layer.")
    if shards:
        form = f"{form}, {len(shards)} shard{'s' if len(shards) != 1 else ''}"
    closers = [opened.close for opened in (*shards, file)]
    return ParamTree(params, Origin(file.path, form, meta, notes, closers))


def _params(source: Source, found: Iterable[Variable]) -> dict[str, Param]:
    """Give every variable its name; those that would share one get their whole paths."""
    given = [(".".join(variable.name), variable) for variable in found]
    times = Counter(name for name, _ in given)
    params: dict[str, Param] = {}
    for name, variable in given:
        if times[name] > 1:
            path = [key for key in variable.dataset.path[:-1] if key != "vars"]
            name = ".".join((*path, variable.name[-1]))
        if name in params:
            raise CorruptFileError(source.path, "two arrays have this name", member=name)
        params[name] = Param(
            name, variable.dataset.array, variable.kind, trainable=variable.trainable, layout=variable.layout
        )
    return params


def _kind(dataset: Dataset, name: str) -> str:
    return OTHER if dataset.array.problem else kind_of(name, dataset.array.dtype)


def _is_keras_3(root: Group) -> bool:
    """Tell whether the file has groups called ``vars`` with nothing but numbered arrays in them."""
    waiting = [root]
    while waiting:
        group = waiting.pop()
        held = group.children.get("vars")
        if isinstance(held, Group) and all(isinstance(d, Dataset) for d in held.children.values()):
            return True
        waiting += [child for child in group.children.values() if isinstance(child, Group)]
    return False


def _generation(metadata: Config, root: Group) -> str:
    """Return the first digit of the version of Keras; only Keras 3 writes the names of layers into files."""
    version = metadata.get("keras_version")
    if isinstance(version, str) and version:
        return version[0]
    held = root.children.get("vars")
    return "3" if isinstance(held, Group) and held.text("name") else ""


def _meta(metadata: Config, config: Config) -> dict[str, Any]:
    if not config:
        return {}
    training = config.get("compile_config")
    model = {key: value for key, value in config.items() if key != "compile_config"}
    return {**metadata, "model_config": model, **({"training_config": training} if training else {})}


# The older format: names are in attributes, layer by layer


def _legacy_meta(source: Source, root: Group, weights: Group) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    for name in _TEXTS[:2]:
        if (text := weights.text(name) or root.text(name)) is not None:
            meta[name] = text
    for name in _JSON_TEXTS:
        if (text := root.text(name)) is not None:
            meta[name] = parse_object(source, text.encode("utf-8", "surrogateescape"), 0, name)
    return meta


def _list(group: Group, name: str) -> list[str] | None:
    """Return a list of names kept as an attribute, in one piece or in numbered ones."""
    pieces = sorted((key for key in group.texts if key.rstrip("0123456789") == name), key=natural)
    return [text for key in pieces for text in group.texts[key]] if pieces else None


def _legacy(source: Source, root: Group, weights: Group, config: Config) -> Iterator[Variable]:
    """Yield the variables of a file whose attributes list its layers and their weights."""
    model = root_layer(config)
    inner = Inner(model)
    inners = {id(model.config): inner}  # built once for each layer: they list all that is inside
    seen: set[int] = set()
    layers = _list(weights, "layer_names") or []
    for name in [*layers, *([_TOP_LEVEL] if _TOP_LEVEL in weights.children else [])]:
        group = weights.find(name)
        if not isinstance(group, Group):
            raise CorruptFileError(source.path, "layer_names names it and it is not there", member=name)
        if id(group) in seen:
            raise CorruptFileError(source.path, "layer_names names it twice", member=name)
        seen.add(id(group))
        layer = part(model, name, config=inner.by_name.get(name))
        for weight, dataset in _listed(source, group):
            seen.add(id(dataset))
            prefix = () if name == _TOP_LEVEL else (name,)
            yield _variable(layer, inners, prefix, _short(name, weight), dataset)
    state = root.children.get("optimizer_weights") if weights is not root else None
    if isinstance(state, Group):
        for weight, dataset in _listed(source, state):
            seen.add(id(dataset))
            yield Variable(("optimizer", *_words(weight)), dataset, STATE, trainable=False)
    for dataset in root.datasets():
        if id(dataset) not in seen:
            yield Variable(dataset.path, dataset, OTHER)


def _listed(source: Source, group: Group) -> Iterator[tuple[str, Dataset]]:
    names = _list(group, "weight_names")
    if names is None:
        names = ["/".join(d.path[len(group.path) :]) for d in group.datasets()]
    for name, times in Counter(names).items():
        found = group.find(name)
        if times > 1 or not isinstance(found, Dataset):
            what = "weight_names names it twice" if times > 1 else "weight_names names it and it is not there"
            raise CorruptFileError(source.path, what, member="/".join((*group.path, name)))
        yield name, found


def _words(name: str) -> list[str]:
    """Return the parts of a weight's name; TensorFlow's ``:0`` is no part of it."""
    return [word for word in name.removesuffix(":0").split("/") if word]


def _short(layer: str, weight: str) -> list[str]:
    """Return a weight's name in its layer: older Keras repeats the layer's name, newer the model's as well.

    >>> _short("dense", "model/dense/kernel:0"), _short("bn_1", "bn_1_1/gamma:0"), _short("fc", "fc_W")
    (['kernel'], ['gamma'], ['W'])
    """
    words, own = _words(weight), layer.split("/")
    for start in range(min(2, len(words))):
        if words[start : start + len(own)] == own and len(words) > start + len(own):
            return words[start + len(own) :]
    if len(words) > 1 and words[0].rpartition("_")[0] == layer and words[0].rpartition("_")[2].isdecimal():
        return words[1:]
    if len(words) == 1 and words[0].startswith(f"{layer}_"):
        return [words[0][len(layer) + 1 :]]
    return words


def _variable(
    layer: Layer, inners: dict[int, Inner], prefix: tuple[str, ...], words: list[str], dataset: Dataset
) -> Variable:
    """Describe a weight of a layer or of one inside it, which the configuration may know."""
    for word in words[:-1]:
        if id(layer.config) not in inners:
            inners[id(layer.config)] = Inner(layer)
        inner = inners[id(layer.config)]
        layer = part(layer, word, config=inner.by_name.get(word))
    array = dataset.array
    kind, layout = kind_and_layout(layer, words[-1], array.dtype, len(array.shape))
    return Variable((*prefix, *words), dataset, kind, trained(layer, kind), layout)
