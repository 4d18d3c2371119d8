"""The Hugging Face shard index: a JSON file that says which shard holds which tensor.

Layout: ``{"metadata": {"total_size": N}, "weight_map": {tensor: shard}}``; the shards lie beside it. The
metadata may also map the name of a tensor that was left out to that of the one it is (``huggingface_hub``).
Keras writes layers instead of tensors, each with a list of shards.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.core.names import natural
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.folder import beside
from paratree.files.json import parse_object
from paratree.files.local import LocalFile, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LARGEST_INDEX = 100_000_000
MIXED = "the download is incomplete or mixed: fetch the index and all shards again"


def is_index(file: LocalFile, shard_suffix: str) -> bool:
    """Tell whether ``file`` is a shard index whose shards end in ``shard_suffix``.

    Raises:
        CorruptFileError: it is called an index, and it is none.
    """
    if not file.path.endswith(".json") or not file.head.lstrip().startswith(b"{"):
        return False
    if f'{shard_suffix}"'.encode() in file.head:
        return True
    try:
        return any(shard.endswith(shard_suffix) for shards in shards_of(file).values() for shard in shards)
    except CorruptFileError:
        if file.path.endswith((".index.json", ".weights.json")):
            raise
        return False


def open_index(file: LocalFile, open_shard: Callable[[LocalFile], ParamTree], format: str) -> ParamTree:
    """Open every shard of an index and join their trees.

    The order is that of the index, unless that is only sorted by name, as transformers writes it: then it
    is that of the shards, one after the other, or of the numbers in the names if the shards are sorted too.

    Raises:
        CorruptFileError: the index and a shard disagree on a tensor, or the index is no index.
        SourceNotFoundError: a shard is missing.
        UnsafeFileError: the index names a file outside its folder.
    """
    index = index_of(file)
    weight_map = weight_map_of(file, index)
    shards = {name: open_shard(beside(file, name, links=True)) for name in dict.fromkeys(weight_map.values())}
    params: dict[str, Param] = {}
    for name in _order(weight_map, shards):
        shard = weight_map[name]
        if not isinstance(param := shards[shard].get(name), Param):
            raise CorruptFileError(
                file.path, f"the shard {shard} has no such tensor", member=name, advice=MIXED
            )
        params[name] = param
    for shard, tree in shards.items():
        aliases = {name for group in tree.ties if weight_map.keys() & set(group) for name in group}
        for name, param in tree.items():
            if weight_map.get(name) != shard and (name in weight_map or name not in aliases):
                raise CorruptFileError(
                    file.path,
                    f"the shard {shard} holds it and the index does not say so",
                    member=name,
                    advice=MIXED,
                )
            params.setdefault(name, param)
    add_aliases(params, index)
    notes = dict.fromkeys(note for tree in shards.values() for note in tree.notes)
    meta = {shard: tree.meta for shard, tree in shards.items() if tree.meta}
    if meta and all(own == next(iter(meta.values())) for own in meta.values()):
        meta = dict(next(iter(meta.values())))
    closers = [tree.close for tree in shards.values()]
    what = f"{format}, {len(shards)} shard{'s' if len(shards) != 1 else ''}"
    return ParamTree(params, Origin(file.path, what, meta, notes, [*closers, file.close]))


def add_aliases(params: dict[str, Param], index: dict[str, Any]) -> None:
    """Add the names that the metadata of an index says are others."""
    metadata = index.get("metadata")
    for alias, kept in metadata.items() if isinstance(metadata, dict) else ():
        if isinstance(kept, str) and kept in params and alias not in params:
            params[alias] = Param(alias, params[kept].array, params[kept].kind)


def _order(weight_map: dict[str, str], shards: dict[str, ParamTree]) -> list[str]:
    names = list(weight_map)
    if names != sorted(names):
        return names
    within = [[name for name in shards[shard] if name in weight_map] for shard in sorted(shards)]
    if all(own == sorted(own, key=natural) for own in within):
        return sorted(names, key=natural)
    return list(dict.fromkeys([name for own in within for name in own] + names))


def weight_map_of(file: LocalFile, index: dict[str, Any]) -> dict[str, str]:
    """Return the one shard of each tensor.

    Raises:
        CorruptFileError: the index has no shards, or several for one tensor.
    """
    found = _shards(file, index)
    if any(len(shards) != 1 for shards in found.values()):
        raise _no_index(file)
    return {name: shards[0] for name, shards in found.items()}


def shards_of(file: LocalFile) -> dict[str, list[str]]:
    """Return the shards of each entry of an index.

    Raises:
        CorruptFileError: it is no index.
    """
    return _shards(file, index_of(file))


def _shards(file: LocalFile, index: dict[str, Any]) -> dict[str, list[str]]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict):
        raise _no_index(file)
    found = {name: [entry] if isinstance(entry, str) else entry for name, entry in weight_map.items()}
    for shards in found.values():
        if not isinstance(shards, list) or not shards or not all(isinstance(shard, str) for shard in shards):
            raise _no_index(file)
    return found


def index_of(file: LocalFile) -> dict[str, Any]:
    """Return the JSON object that an index is.

    Raises:
        CorruptFileError: it is none.
    """
    if file.size > _LARGEST_INDEX:
        raise CorruptFileError(file.path, f"{file.size} bytes are too many for a shard index")
    return parse_object(file, read(file, 0, file.size))


def _no_index(file: LocalFile) -> CorruptFileError:
    return CorruptFileError(
        file.path,
        "no weight_map from tensor names to shard files",
        advice="it is no shard index: open the weights",
    )
