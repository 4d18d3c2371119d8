"""TensorFlow: checkpoints (TensorBundle), with or without a graph of objects, and SavedModels.

A checkpoint is ``PREFIX.index`` with ``PREFIX.data-00000-of-00001`` beside it; the text file ``checkpoint``
of a training folder names the latest; a SavedModel is ``saved_model.pb`` with ``variables/variables.index``.
"""

from __future__ import annotations

from collections import Counter

from paratree.core.errors import CorruptFileError, printable
from paratree.core.names import OTHER, STATE, kind_of, last_segment, natural
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.folder import beside
from paratree.files.protobuf import BYTES, Wire
from paratree.formats._tensorflow_bundle import DTYPES, GRAPH, QUANTISED, Bundle
from paratree.formats._tensorflow_objects import Graph, Named, short_key, unique
from paratree.formats._tensorflow_table import is_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.local import LocalFile
    from paratree.files.output import Output

NAME = "TensorFlow"
SUFFIXES = (".index", ".pb")
FOLDER = ("saved_model.pb", "checkpoint", "*.index")
LAZY = "yes"
TIES = "the graph of objects, or the same bytes"
READS = "checkpoints of any number of shards, partitioned variables, SavedModels; every numeric dtype"
EXTRA = None
MAKES = "files"
WRITES = tuple(DTYPES.values())

_LATEST = b'model_checkpoint_path: "'
_SAVED_MODEL = b"\x08\x01\x12"  # version 1, then a graph
_WEIGHTS = "variables/variables.index"
_STEPS = frozenset({"global_step", "save_counter"})
_POWERS = ("beta1_power", "beta2_power")
_COPIES = ("ExponentialMovingAverage", "MovingAverage")


def sniff(file: LocalFile) -> bool:
    """Tell whether the file is the index of a checkpoint, a SavedModel, or names the latest checkpoint."""
    return file.head.startswith(_LATEST) or _is_saved_model(file) or is_table(file)


def open(file: LocalFile) -> ParamTree:
    """Read the index, check it against the shards, and return the tree.

    Raises:
        CorruptFileError: the index contradicts itself or the shards.
        SourceNotFoundError: a shard, or what the file names, is missing.
        UnsafeFileError: a file outside the folder is named.
    """
    if file.head.startswith(_LATEST):
        return _open_index(_latest(file), NAME + " checkpoint", {})
    if not _is_saved_model(file):
        return _open_index(file, NAME + " checkpoint", {})
    meta = _saved_model(file)
    return _open_index(beside(file, _WEIGHTS), NAME + " SavedModel", meta)


def holds_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell whether names can share bytes, which those without any cannot."""
    return bool(tree[group[0]].size)


def save(tree: ParamTree, output: Output) -> Sequence[str]:
    """Write a checkpoint that ``tf.train.load_checkpoint`` reads, without a graph of objects."""
    from paratree.formats._tensorflow_written import write

    return write(tree, output)


def _is_saved_model(file: LocalFile) -> bool:
    """Tell whether the first fields are those of a SavedModel: version, graphs, their information."""
    if not file.head.startswith(_SAVED_MODEL):
        return False
    place = next((i for i, byte in enumerate(file.head[3:13], 4) if byte < 0x80), 0)
    return place > 0 and file.head[place : place + 1] == b"\x0a"


def _latest(file: LocalFile) -> LocalFile:
    """Open the index of the checkpoint that the text file of a training folder names as the latest.

    TensorFlow writes absolute paths of the machine that trained: the name in this folder is what is meant.
    """
    text = file.head[len(_LATEST) :].partition(b"\n")[0].rpartition(b'"')[0]
    try:
        path = text.decode("unicode_escape").encode("latin-1").decode("utf-8")
    except (UnicodeDecodeError, UnicodeEncodeError):
        raise CorruptFileError(file.path, "the latest checkpoint has no readable name", offset=0) from None
    if path.startswith("/"):
        return beside(file, path.rpartition("/")[2] + ".index", links=True)
    return beside(file, path + ".index")


def _saved_model(file: LocalFile) -> dict[str, Any]:
    """Return what a SavedModel says about itself: who wrote it, and what it can be called for."""
    wire = Wire(file)
    meta: dict[str, Any] = {"tags": [], "signatures": []}
    for _, _, graph in wire.fields(None, {2: (BYTES,)}):
        for number, _, value in wire.fields(graph, {1: (BYTES,), 5: (BYTES,)}):
            if number == 5:
                meta["signatures"] += [wire.text(key) for _, _, key in wire.fields(value, {1: (BYTES,)})]
                continue
            for which, _, word in wire.fields(value, {4: (BYTES,), 5: (BYTES,)}):
                if which == 4:
                    meta["tags"].append(wire.text(word))
                else:
                    meta["tensorflow_version"] = wire.text(word)
    return meta


def _open_index(file: LocalFile, form: str, meta: dict[str, Any]) -> ParamTree:
    bundle = Bundle(file)
    graph = bundle.graph()
    notes: list[str] = []
    params = _plain(bundle) if graph is None else _objects(bundle, Graph(graph), notes)
    if (count := len(bundle.shards)) > 1:
        form = f"{form}, {count} shards"
    if loose := bundle.loose():
        notes.append(
            f"the shards end in {loose} bytes that belong to no tensor: are they of this checkpoint?"
        )
    for name, entry in bundle.entries.items():
        if entry.dtype in QUANTISED:
            word = QUANTISED[entry.dtype]
            notes.append(
                f"{printable(name)} is {word}: its integers are read; the file holds no scale for them"
            )
    return ParamTree(params, Origin(file.path, form, meta, notes, [bundle.close]))


# Checkpoints of TensorFlow 1: names only


def _plain(bundle: Bundle) -> dict[str, Param]:
    """Return the parameters under their keys; the index is sorted by name, so numbers are put in order."""
    params = {}
    for name in sorted(bundle.entries, key=natural):
        array = bundle.arrays[name]
        params[name] = Param(name, array, _kind(name, array, bundle))
    return params


def _kind(name: str, array: LazyArray, bundle: Bundle) -> str:
    """Return what a tensor is, from its name: slots are called as their variable and one word more."""
    last = last_segment(name)
    if array.problem or last in _STEPS:
        return OTHER
    if name.rpartition("/")[0] in bundle.entries:
        return OTHER if last.startswith(_COPIES) else STATE
    return STATE if last.startswith(_POWERS) else kind_of(name, array.dtype)


# Checkpoints of TensorFlow 2: a graph of objects


def _objects(bundle: Bundle, graph: Graph, notes: list[str]) -> dict[str, Param]:
    found, complete = graph.named()
    doubled = _doubles(bundle, graph, found)
    held = [n for n in found if n.attribute.key in bundle.entries and n.attribute.key not in doubled]
    absent = {n.attribute.key for n in found if n.attribute.key not in bundle.entries}
    full = Counter(named.attribute.full_name for named in {n.attribute.key: n for n in held}.values())
    also = {one: key for key, one in doubled.items()}
    params: dict[str, Param] = {}
    for named in unique(held):
        name, key, full_name = named.name, named.attribute.key, named.attribute.full_name
        array = bundle.arrays[key]
        aliases = [key, short_key(key)]
        if full_name and full[full_name] == 1:
            aliases.append(full_name)
        if double := also.get(key):
            aliases += [double, short_key(double)]
        kind = OTHER if array.problem else named.kind or kind_of(full_name or name, array.dtype)
        unlike = tuple(dict.fromkeys(alias for alias in aliases if alias.replace("/", ".") != name))
        params[name] = Param(name, array, kind, aliases=unlike)
    listed = {named.attribute.key for named in held} | doubled.keys()
    for key in sorted(bundle.entries.keys() - listed, key=lambda key: (key == GRAPH, natural(key))):
        array = bundle.arrays[key]
        params[key] = Param(key, array, OTHER if array.problem else kind_of(key, array.dtype))
    if doubled:
        notes.append(f"{len(doubled)} variables are stored twice, as Keras exports them: each is listed once")
    if absent:
        notes.append(f"the graph of objects names {len(absent)} tensors that the index does not hold")
    if not complete:
        notes.append("some variables are held in more places than are listed as names")
    return params


def _doubles(bundle: Bundle, graph: Graph, found: list[Named]) -> dict[str, str]:
    """Return the keys of what is stored a second time, and of what: same name, dtype, shape, and checksum."""
    nodes = graph.doubles()
    once: dict[tuple[object, ...], list[str]] = {}
    doubled: dict[str, str] = {}
    for second in (False, True):
        for named in found:
            key = named.attribute.key
            if (entry := bundle.entries.get(key)) is None or (named.attribute.node in nodes) is not second:
                continue
            same = once.setdefault((named.attribute.full_name, *entry.content), [])
            if not second:
                same.append(key)
            elif same:
                doubled[key] = same.pop(0)
    return doubled
