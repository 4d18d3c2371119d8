"""Write the zip of ``torch.save`` without torch: a dictionary of tensors, tied ones on one storage.

Layout: ``torch.serialization`` (2.13); formats._torch_storages reads it. The pickle holds what
``torch.load(weights_only=True)`` allows and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratree.core.errors import printable
from paratree.files.archive import Archive
from paratree.formats._torch_pickles import PROTOCOL, STOP, dict_of, tensor, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paratree.core.array import LazyArray
    from paratree.core.tree import ParamTree
    from paratree.files.output import Output

ALIGNMENT = 64
_ROOT = "archive"


def write(tree: ParamTree, output: Output) -> list[str]:
    """Write a tree; of a tied group the values are written once."""
    keys: dict[str, str] = {}
    for name in tree:
        keys.setdefault(tree.tied_with(name)[0], str(len(keys)))
    items = (text(name) + tensor(tree[name], keys[tree.tied_with(name)[0]]) for name in tree)
    storages = {key: tree[name].array for name, key in keys.items()}
    write_archive(output, PROTOCOL + dict_of(items) + STOP, storages)
    left = ", ".join(map(printable, list(tree.meta)[:5]))
    return [f"a dictionary of tensors has no place for metadata, left out: {left}"] if left else []


def write_archive(output: Output, pickled: bytes, storages: Mapping[str, LazyArray]) -> None:
    """Write what ``torch.save`` does: a pickle, and the storages that it names by their keys."""
    with Archive(output) as archive:
        archive.write(f"{_ROOT}/data.pkl", pickled)
        archive.write(f"{_ROOT}/.format_version", b"1")
        archive.write(f"{_ROOT}/.storage_alignment", str(ALIGNMENT).encode())
        archive.write(f"{_ROOT}/byteorder", b"little")
        for key, array in storages.items():
            archive.values(f"{_ROOT}/data/{key}", array, alignment=ALIGNMENT)
        archive.write(f"{_ROOT}/version", b"3\n")
