"""Write a PyTorch distributed checkpoint without torch: one shard, and the metadata that say what lies where.

Layout: ``torch.distributed.checkpoint`` (2.13), ``metadata.py`` and ``filesystem.py``; formats.dcp reads it.
Each tensor is a file of ``torch.save`` of its own inside the shard.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from paratree.core.errors import printable
from paratree.files.output import Output
from paratree.formats._torch_pickles import (
    FALSE,
    PROTOCOL,
    STOP,
    built,
    call,
    dict_of,
    global_name,
    integer,
    list_of,
    tensor,
    text,
    tuple_of,
)
from paratree.formats._torch_written import ALIGNMENT, write_archive

if TYPE_CHECKING:
    from collections.abc import Callable

    from paratree.core.param import Param
    from paratree.core.tree import ParamTree

    Place = tuple[int, int]  # offset and length in the shard

METADATA, SHARD = ".metadata", "__0_0.distcp"
_VERSION = "1.0.0"  # CURRENT_DCP_VERSION


def write(tree: ParamTree, folder: str, written: Callable[[int], None]) -> list[str]:
    """Write a tree; every name has values of its own, as torch has it, too."""
    notes = check(tree)
    with Path(folder, SHARD).open("wb") as file:
        places = _write_shard(tree, Output(file, file.name, written))
    Path(folder, METADATA).write_bytes(PROTOCOL + _metadata(tree, places) + STOP)
    return notes


def check(tree: ParamTree) -> list[str]:
    """Return what a checkpoint has no place for; no name is refused, and no value."""
    left = ", ".join(map(printable, list(tree.meta)[:5]))
    return [f"metadata are not written, left out: {left}"] if left else []


def _write_shard(tree: ParamTree, output: Output) -> dict[str, Place]:
    places = {}
    for name, param in tree.items():
        output.write(bytes(-output.offset % ALIGNMENT))
        start = output.offset
        write_archive(output, PROTOCOL + tensor(param, "0") + STOP, {"0": param.array})
        places[name] = start, output.offset - start
    return places


def _metadata(tree: ParamTree, places: dict[str, Place]) -> bytes:
    state = {
        "state_dict_metadata": dict_of(text(name) + _tensor(param) for name, param in tree.items()),
        "planner_data": dict_of(text(name) + tuple_of(text(name)) for name in tree),
        "storage_data": dict_of(_index(name, tree[name]) + _place(place) for name, place in places.items()),
        "storage_meta": b"N",
        "version": text(_VERSION),
    }
    return _object("metadata", "Metadata", state)


def _object(module: str, name: str, state: dict[str, bytes]) -> bytes:
    kind = global_name(f"torch.distributed.checkpoint.{module}", name)
    return built(kind, dict_of(text(key) + value for key, value in state.items()))


def _tensor(param: Param) -> bytes:
    shape = cast("tuple[int, ...]", param.shape)
    chunk = {"offsets": _size((0,) * len(shape)), "sizes": _size(shape)}
    state = {
        "properties": _properties(param.dtype),
        "size": _size(shape),
        "chunks": list_of(_object("metadata", "ChunkStorageMetadata", chunk)),
    }
    return _object("metadata", "TensorStorageMetadata", state)


def _properties(dtype: str) -> bytes:
    """Return dtype, layout, whether it requires a gradient, memory format, whether it is pinned."""
    layout = call(global_name("torch.serialization", "_get_layout"), text("torch.strided"))
    contiguous = call(
        global_name("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"), integer(0)
    )
    state = tuple_of(global_name("torch", dtype), layout, FALSE, contiguous, FALSE)
    return built(global_name("torch.distributed.checkpoint.metadata", "TensorProperties"), state)


def _index(name: str, param: Param) -> bytes:
    start = _size((0,) * len(param.shape))
    return _object("metadata", "MetadataIndex", {"fqn": text(name), "offset": start, "index": integer(0)})


def _place(place: Place) -> bytes:
    offset, length = map(integer, place)
    state = {"relative_path": text(SHARD), "offset": offset, "length": length}
    return _object("filesystem", "_StorageInfo", state)


def _size(lengths: tuple[int, ...]) -> bytes:
    return call(global_name("torch", "Size"), tuple_of(*map(integer, lengths)))
