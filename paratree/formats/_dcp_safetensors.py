"""Shards that several processes of torch saved as safetensors: the parts of a tensor lie in several files.

Layout: ``torch.distributed.checkpoint.hf_storage`` (2.13): files ``shard-PROCESS-model-N-of-M.safetensors``
without an index; the metadata of each hold, as JSON, where its part of every tensor begins.
"""

from __future__ import annotations

import os

from paratree.core.array import RefusedArray
from paratree.core.errors import CorruptFileError
from paratree.core.names import kind_of, natural
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.array import check_shape
from paratree.files.composed import composed_array
from paratree.files.folder import beside, folder_entries
from paratree.files.json import parse_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.local import LocalFile

    Part = tuple[tuple[int, ...], LazyArray]

PARTS = ("DCP_SHARDING_INFO", "DCP_VERSION")  # of the metadata: said by the tree itself
_WORDS = ("shard", "#", "model", "#", "of", "#")
_END = ".safetensors"


def shards_of_processes(file: LocalFile) -> list[str]:
    """Return the names of the shards that ``file`` is one of by its name, itself among them."""
    folder, name = os.path.split(file.path)
    if not _is_shard(name):
        return []
    last = name.rpartition("-")[2]
    found = (os.path.basename(path) for path in folder_entries(folder or ".", (f"shard-*-of-{last}",)))  # noqa: PTH119
    return [other for other in found if _is_shard(other)]


def _is_shard(name: str) -> bool:
    words = name.removesuffix(_END).split("-")
    return name.endswith(_END) and ["#" if word.isdecimal() else word for word in words] == [*_WORDS]


def open_processes(
    file: LocalFile, names: list[str], open_shard: Callable[[LocalFile], ParamTree], format: str
) -> ParamTree:
    """Open the shards of all processes and put the parts of each tensor together.

    Raises:
        CorruptFileError: the parts of a tensor do not make up a whole, or the metadata do not say where they
            begin.
    """
    shards = [open_shard(beside(file, name, links=True)) for name in names]
    parts: dict[str, list[Part]] = {}
    meta: dict[str, Any] = {}
    for name, tree in zip(names, shards, strict=True):
        begins = _begins(file, name, tree.meta.get(PARTS[0]))
        meta.update({key: value for key, value in tree.meta.items() if key not in PARTS})
        for param in tree.values():
            start = begins.get(param.name, {})
            parts.setdefault(param.name, []).append((_start(file, param, start), param.array))
    params = {}
    for name in sorted(parts, key=natural):
        array = _whole(file, name, parts[name])
        params[name] = Param(name, array, kind_of(name, array.dtype))
    closers = [tree.close for tree in shards]
    what = f"{format}, {len(shards)} shard{'s' if len(shards) != 1 else ''} of processes"
    return ParamTree(params, Origin(file.path, what, meta, closers=[*closers, file.close]))


def _begins(file: LocalFile, shard: str, text: Any) -> dict[str, Any]:
    return {} if text is None else parse_object(file, str(text).encode("utf-8", "replace"), member=shard)


def _start(file: LocalFile, param: Param, entry: object) -> tuple[int, ...]:
    """Return where a part begins along each axis: at zero if nothing is said."""
    offsets = entry.get("saved_offsets") if isinstance(entry, dict) else None
    if offsets is None:
        return (0,) * len(param.shape)
    if not isinstance(offsets, list) or len(offsets) != len(param.shape):
        raise CorruptFileError(file.path, "the offsets of a part are no list of its axes", member=param.name)
    return check_shape(offsets, file, param.name)


def _whole(file: LocalFile, name: str, parts: list[Part]) -> LazyArray:
    start, array = parts[0]
    if len(parts) == 1 and not any(start):
        return array
    if any(len(part.shape) != len(array.shape) or None in part.shape for _, part in parts):
        raise CorruptFileError(file.path, "its parts have different numbers of axes", member=name)
    reaches = [[low + (n or 0) for low, n in zip(low_, part.shape, strict=True)] for low_, part in parts]
    shape = tuple(max(ends) for ends in zip(*reaches, strict=True))
    if isinstance(array, RefusedArray):
        return RefusedArray(shape, array.dtype, array.problem)
    return composed_array(file, shape, array.dtype, parts, member=name)
