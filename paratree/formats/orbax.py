"""Orbax checkpoints: a folder with a tree of names in ``_METADATA``, and Zarr arrays in files or in OCDBT.

Layout: what orbax-checkpoint 0.12 writes. ``_CHECKPOINT_METADATA`` names the items of a step, each a folder.
An OCDBT database is read by tensorstore; without one, only chunks compressed by zstd need it.
"""

from __future__ import annotations

import os
import re

from paratree.core.errors import CorruptFileError, SourceNotFoundError, printable
from paratree.core.names import BUFFER, OTHER
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.folder import beside
from paratree.files.json import parse_object
from paratree.files.local import read
from paratree.formats._orbax_stores import MANIFEST, DatabaseStore, FolderStore, files_of
from paratree.formats._pytrees import Pytree
from paratree.formats._zarr import zarr_array

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.local import LocalFile
    from paratree.formats._zarr import Store

NAME = "Orbax"
SUFFIXES = ()
FOLDER = ("_METADATA", "_CHECKPOINT_METADATA", "#/_METADATA", "#/_CHECKPOINT_METADATA")
LAZY = "yes, a chunk at a time"
TIES = "no"
READS = "OCDBT and plain folders, Zarr 2 and 3, shards; of a CheckpointManager the last step, every item"
EXTRA = "orbax"
MAKES = "folder"
FILES = (
    r"_METADATA|_CHECKPOINT_METADATA|_sharding|_strings\.json|commit_success\.txt|array_metadatas/process_\d+"
    r"|(ocdbt\.process_\d+/)?(manifest\.ocdbt|d/[0-9a-f]+)|.+/(\.zarray|zarr\.json|\d+(\.\d+)*|c(/\d+)*)"
)
WRITES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128", "bfloat16",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e4m3b11fnuz",
)  # fmt: skip

_TREE, _STEP = "_METADATA", "_CHECKPOINT_METADATA"
_LARGEST = 100_000_000  # bytes of JSON
_DEEPEST = 128
_STRINGS, _ARRAYS = "_strings.json", "array_metadatas/process_0"
_NONE = "None"  # kind of the value of a leaf for which nothing is stored
_UNFINISHED = ".orbax-checkpoint-tmp"
_ADVICE = "the save was not finished, or the folder is not whole: fetch it again"


def sniff(file: LocalFile) -> bool:
    """Tell whether the file is the metadata of a checkpoint: by its name and the first of its JSON."""
    key = {_TREE: b'"tree_metadata"', _STEP: b'"item_handlers"'}.get(_name(file))
    return key is not None and file.head.startswith(b"{") and key in read(file, 0, min(file.size, _LARGEST))


def open(file: LocalFile) -> ParamTree:
    """Read the metadata, and the header of every array, and return the tree.

    Raises:
        CorruptFileError: the metadata contradicts itself, or the arrays that it names are not there.
        UnsafeFileError: a link is in the folder, or an item is to be outside of it.
        MissingPackageError: it is a database, and tensorstore is not installed.
    """
    if _name(file) == _TREE:
        params, meta, notes = _item(file)
        return ParamTree(params, Origin(file.path, NAME, meta, notes, [file.close]))
    return _step(file)


def holds_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell that no tied group can be written."""
    return False


def save_folder(tree: ParamTree, folder: str, written: Callable[[int], None]) -> Sequence[str]:
    """Write what Orbax restores: plain Zarr arrays, no database."""
    from paratree.formats._orbax_written import write

    return write(tree, folder, written)


def check_folder(tree: ParamTree) -> Sequence[str]:
    """Refuse what cannot be written, and return what would be left out."""
    from paratree.formats._orbax_written import check

    return check(tree)


def _name(file: LocalFile) -> str:
    return file.path.rpartition("/")[2]


# A step: items beside each other, each a folder


def _step(file: LocalFile) -> ParamTree:
    """Open the items of a step; names begin with that of the item if there are several trees."""
    facts = _json(file)
    items = facts.get("item_handlers")
    found: dict[str, tuple[dict[str, Param], dict[str, Any], list[str]]] = {}
    meta: dict[str, Any] = {key: facts[key] for key in ("metrics", "custom_metadata") if facts.get(key)}
    notes, closers = [_other_steps(file)], [file.close]
    for item in items if isinstance(items, dict) else ():
        tree = _beside(file, f"{item}/{_TREE}")
        if tree is not None:
            closers.append(tree.close)
            found[item] = _item(tree)
        elif (plain := _beside(file, f"{item}/metadata")) is not None:
            meta[item] = _json(plain)
        else:
            notes.append(f"the item {printable(item)} is no tree of arrays, and is not listed")
    if not isinstance(items, dict) and (tree := _beside(file, _TREE)) is not None:
        closers.append(tree.close)
        found[""] = _item(tree)
    if not found:
        raise CorruptFileError(file.path, f"no item of it has {_TREE}", advice=_ADVICE)
    params: dict[str, Param] = {}
    for item, (own, own_meta, own_notes) in found.items():
        prefix = f"{item}." if len(found) > 1 else ""
        for name, param in own.items():
            aliases = tuple(prefix + alias for alias in param.aliases)
            params[prefix + name] = Param(prefix + name, param.array, param.kind, aliases=aliases)
        meta |= {item: own_meta} if prefix and own_meta else own_meta
        notes += own_notes
    return ParamTree(params, Origin(file.path, NAME, meta, dict.fromkeys(filter(None, notes)), closers))


def _beside(file: LocalFile, name: str) -> LocalFile | None:
    try:
        return beside(file, name)
    except SourceNotFoundError:
        return None


def _other_steps(file: LocalFile) -> str:
    """Say which other steps lie beside this one."""
    folder = os.path.dirname(os.path.realpath(file.path))  # noqa: PTH120
    above, _, own = folder.rpartition("/")
    step = re.fullmatch(r"([A-Za-z_-]*)([0-9]{1,18})", own)
    if step is None:
        return ""
    beside_it = re.compile(re.escape(step[1]) + "([0-9]{1,18})")
    names = [entry.name for entry in os.scandir(above or "/") if entry.is_dir(follow_symlinks=False)]
    others = sorted(int(found[1]) for name in names if (found := beside_it.fullmatch(name)) and name != own)
    if not others:
        return ""
    listed = ", ".join(map(str, others[-8:])) + (f" and {len(others) - 8} before" if len(others) > 8 else "")
    return f"this is step {int(step[2])}; beside it: {listed}"


# An item: a tree of names, and its arrays


def _item(file: LocalFile) -> tuple[dict[str, Param], dict[str, Any], list[str]]:
    """Return the parameters, the plain values and the notes of an item."""
    facts = _json(file)
    leaves = facts.get("tree_metadata")
    if not isinstance(leaves, dict):
        raise CorruptFileError(file.path, "tree_metadata is no map of leaves")
    files = files_of(file)
    in_database = MANIFEST in files
    store: Store = DatabaseStore(file, files) if in_database else FolderStore(file, files)
    complete = facts.get("store_array_data_equal_to_fill_value") is True
    strings = _json(beside(file, _STRINGS)) if _STRINGS in files else {}
    stored = [_leaf(file, label, leaf) for label, leaf in leaves.items()]
    stored = [(path, kind) for path, kind in stored if kind != _NONE]
    box = "value" if stored and all(path[-1] == "value" and path[1:] for path, _ in stored) else ""
    root: dict[str, Any] = {}
    kinds = dict.fromkeys(_random_keys(file, files), OTHER)
    for path, kind in stored:
        name = ".".join(path)
        value = str(strings.get(name, "")) if kind == "string" else zarr_array(store, name, complete=complete)
        if kind == "scalar":
            kinds[name] = OTHER
        _put(file, root, path[:-1] if box else path, value)
    if box:
        kinds = _kinds_of_nnx(kinds, [path[:-1] for path, _ in stored])
    tree = Pytree(root, kinds, box)
    notes = [*tree.notes]
    if _UNFINISHED in os.path.realpath(file.path):
        notes.append("this save was not finished: Orbax gives the folder its own name at the end")
    meta = dict(tree.meta)
    if facts.get("custom_metadata"):
        meta["custom_metadata"] = facts["custom_metadata"]
    return tree.params, meta, notes


def _leaf(file: LocalFile, label: str, leaf: object) -> tuple[tuple[str, ...], str]:
    """Return the path of a leaf and the kind of its value."""
    keys = leaf.get("key_metadata") if isinstance(leaf, dict) else None
    value = leaf.get("value_metadata") if isinstance(leaf, dict) else None
    if not isinstance(keys, list) or not isinstance(value, dict):
        raise CorruptFileError(file.path, "a leaf has no key_metadata and value_metadata", member=label)
    if not 0 < len(keys) <= _DEEPEST:
        raise CorruptFileError(file.path, f"a leaf is {len(keys)} levels deep", member=label)
    path = []
    for key in keys:
        word = key.get("key") if isinstance(key, dict) else None
        if not isinstance(word, str):
            raise CorruptFileError(file.path, "a key of its path is no text", member=label)
        path.append(word)
    kind = str(value.get("value_type"))
    return tuple(path), _NONE if value.get("skip_deserialize") is True and kind != "string" else kind


def _put(file: LocalFile, root: dict[str, Any], path: tuple[str, ...], value: LazyArray | str) -> None:
    """Put a leaf in its place."""
    node = root
    for key in path[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise CorruptFileError(file.path, "a leaf and a node have one name", member=".".join(path))
    if path[-1] in node:
        raise CorruptFileError(file.path, "two leaves have one name", member=".".join(path))
    node[path[-1]] = value


def _kinds_of_nnx(kinds: dict[str, str], paths: list[tuple[str, ...]]) -> dict[str, str]:
    """Return the kinds that NNX keeps in the classes of its variables, as far as names tell them."""
    names = {".".join(path) for path in paths}
    found = {name.removesuffix(".value"): kind for name, kind in kinds.items()}
    for name in names:
        above, _, last = name.rpartition(".")
        if "rngs" in name.split("."):
            found[name] = OTHER
        elif last in ("mean", "var") and {f"{above}.mean", f"{above}.var"} <= names:
            found[name] = BUFFER
    return found


def _random_keys(file: LocalFile, files: dict[str, int]) -> set[str]:
    """Return the names of what are keys of random numbers."""
    if _ARRAYS not in files:
        return set()
    listed = _json(beside(file, _ARRAYS)).get("array_metadatas")
    entries = [entry.get("array_metadata") for entry in listed or () if isinstance(entry, dict)]
    return {
        str(entry.get("param_name"))
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(more := entry.get("ext_metadata"), dict)
        and "random_key_impl" in more
    }


def _json(file: LocalFile) -> dict[str, Any]:
    if file.size > _LARGEST:
        raise CorruptFileError(file.path, f"{file.size} bytes are too many for the metadata of a checkpoint")
    return parse_object(file, read(file, 0, file.size))
