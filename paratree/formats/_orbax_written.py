"""Write an Orbax checkpoint without Orbax: a tree of names, and each array as Zarr 2, in one plain chunk.

Layout: what orbax-checkpoint 0.12 writes with ``use_ocdbt=False``; it restores both this and a database.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, cast

from paratree.core.dtypes import numpy_dtype
from paratree.core.errors import UnsupportedError, printable
from paratree.files.output import Output
from paratree.formats._pytrees import Pytree, check_nested, with_collections

if TYPE_CHECKING:
    from collections.abc import Callable

    from paratree.core.tree import ParamTree

_HANDLER = "orbax.checkpoint._src.handlers.standard_checkpoint_handler.StandardCheckpointHandler"
_DICT = 2  # key_type of a key of a dict
_LONGEST_NAME = 255  # bytes of a file's name
_RESERVED = ("_METADATA", "_CHECKPOINT_METADATA", "_sharding", "array_metadatas", "manifest.ocdbt")


def write(tree: ParamTree, folder: str, written: Callable[[int], None]) -> list[str]:
    """Write a tree; a name's parts are keys of nested dicts.

    Raises:
        UnsupportedError: as :func:`check`.
    """
    notes, tree = check(tree), with_collections(tree)
    _write_arrays(tree, folder, written)
    leaves = {str(tuple(name.split("."))): _leaf(name.split(".")) for name in tree}
    _write_json(
        f"{folder}/_METADATA",
        {
            "tree_metadata": leaves,
            "use_ocdbt": False,
            "use_zarr3": False,
            "store_array_data_equal_to_fill_value": True,
            "custom_metadata": None,
        },
    )
    _write_json(f"{folder}/_CHECKPOINT_METADATA", {"item_handlers": _HANDLER, "metrics": {}})
    return notes


def check(tree: ParamTree) -> list[str]:
    """Return what is not written as it is.

    Raises:
        UnsupportedError: a name cannot be that of a folder, or is the beginning of another one; an array has
            no values; there are no arrays.
    """
    if not tree:
        raise UnsupportedError(f"{printable(tree.source)}: no parameters, and Orbax saves no empty tree")
    written = with_collections(tree)
    for name, param in written.items():
        _check(name, param.size)
    check_nested(written, "Orbax")
    return _notes(written, sorted(tree))


def _notes(tree: ParamTree, names: list[str]) -> list[str]:
    notes = []
    read = sorted(_names_read(tree))
    if others := [name for name, other in zip(names, read, strict=True) if name != other]:
        notes.append(f"opened again, names are others, as those of Flax's own trees: {_some(others)}")
    if tree.meta:
        notes.append(f"metadata are not written, left out: {_some(list(tree.meta))}")
    return notes


def _names_read(tree: ParamTree) -> list[str]:
    """Return the names that reading gives back: ``params`` and ``value`` may be levels of Flax's own."""
    paths = [name.split(".") for name in tree]
    box = "value" if all(path[-1] == "value" and path[1:] for path in paths) else ""
    root: dict[str, Any] = {}
    for path, param in zip(paths, tree.values(), strict=True):
        place = root
        *above, last = path[:-1] if box else path
        for key in above:
            place = place.setdefault(key, {})
        place[last] = param.array
    return list(Pytree(root, {}, box).params)


def _some(names: list[str]) -> str:
    return ", ".join(map(printable, names[:5])) + ", …" * (len(names) > 5)


def _check(name: str, size: int | None) -> None:
    parts = name.split(".")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        length = _LONGEST_NAME + 1
    if not all(parts) or name in _RESERVED or "/" in name or "\0" in name or length > _LONGEST_NAME:
        raise UnsupportedError(f"'{printable(name)}' cannot be a folder's name, as Orbax has it; rename it")
    if not size:
        raise UnsupportedError(
            f"'{printable(name)}' has no values, which Orbax does not save; drop it (--drop)"
        )


def _write_arrays(tree: ParamTree, folder: str, written: Callable[[int], None]) -> None:
    output: Output | None = None
    for name, param in tree.items():
        place, shape = os.path.join(folder, name), cast("tuple[int, ...]", param.shape)  # noqa: PTH118
        os.mkdir(place)  # noqa: PTH102
        _write_json(f"{place}/.zarray", _header(param.dtype, shape))
        with open(f"{place}/{'.'.join('0' * max(len(shape), 1))}", "wb") as file:  # noqa: PTH123
            if output is None:
                output = Output(file, file.name, written)
            output.file, output.path = file, file.name  # one for all: each would have buffers of its own
            output.values(param.array)


def _header(dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        "chunks": shape,
        "compressor": None,
        "dimension_separator": ".",
        "dtype": _code(dtype),
        "fill_value": None,
        "filters": None,
        "order": "C",
        "shape": shape,
        "zarr_format": 2,
    }


def _code(dtype: str) -> str:
    """Return what Zarr calls a dtype; of those that NumPy does not have, the name."""
    found = numpy_dtype(dtype)
    return found.newbyteorder("<").str if found.isbuiltin == 1 else dtype


def _leaf(path: list[str]) -> dict[str, Any]:
    return {
        "key_metadata": [{"key": key, "key_type": _DICT} for key in path],
        "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False},
    }


def _write_json(path: str, content: dict[str, Any]) -> None:
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(json.dumps(content).encode())
