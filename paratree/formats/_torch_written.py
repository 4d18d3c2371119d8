"""Write the zip of ``torch.save`` without torch: a dictionary of tensors, tied ones on one storage.

Layout: ``torch.serialization`` (2.13); formats._torch_storages reads it. The pickle holds what
``torch.load(weights_only=True)`` allows and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratree.core.array import contiguous
from paratree.core.errors import printable
from paratree.files.archive import Archive
from paratree.formats._torch_tensors import STORAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from paratree.core.param import Param
    from paratree.core.tree import ParamTree
    from paratree.files.output import Output

_ROOT = "archive"
_ALIGNMENT = 64


def write(tree: ParamTree, output: Output) -> list[str]:
    """Write a tree; of a tied group the values are written once."""
    keys: dict[str, str] = {}
    for name in tree:
        keys.setdefault(tree.tied_with(name)[0], str(len(keys)))
    entries = ((name, tree[name], keys[tree.tied_with(name)[0]]) for name in tree)
    with Archive(output) as archive:
        archive.write(f"{_ROOT}/data.pkl", _pickled(entries))
        archive.write(f"{_ROOT}/.format_version", b"1")
        archive.write(f"{_ROOT}/.storage_alignment", str(_ALIGNMENT).encode())
        archive.write(f"{_ROOT}/byteorder", b"little")
        for name, key in keys.items():
            archive.values(f"{_ROOT}/data/{key}", tree[name].array, alignment=_ALIGNMENT)
        archive.write(f"{_ROOT}/version", b"3\n")
    left = ", ".join(map(printable, list(tree.meta)[:5]))
    return [f"a dictionary of tensors has no place for metadata, left out: {left}"] if left else []


# The pickle, protocol 2


def _pickled(entries: Iterable[tuple[str, Param, str]]) -> bytes:
    items = b"".join(_text(name) + _tensor(param, key) for name, param, key in entries)
    return b"\x80\x02}" + (b"(" + items + b"u" if items else b"") + b"."


def _tensor(param: Param, key: str) -> bytes:
    """Return what calls the function that makes a tensor of a storage."""
    shape: tuple[int, ...] = param.shape  # type: ignore[assignment]  # every length is known
    old = STORAGES.get(param.dtype)
    kind = _global("torch.storage", "UntypedStorage") if old is None else _global("torch", old)
    count = param.nbytes if old is None else param.size
    storage = _tuple(_text("storage"), kind, _text(key), _text("cpu"), _int(count or 0)) + b"Q"
    shapes = (_tuple(*map(_int, lengths)) for lengths in (shape, contiguous(shape)))
    no_hooks = _global("collections", "OrderedDict") + b")R"
    parts = [storage, _int(0), *shapes, b"\x89", no_hooks]
    if old is None:
        return (
            _global("torch._utils", "_rebuild_tensor_v3")
            + _tuple(*parts, _global("torch", param.dtype))
            + b"R"
        )
    return _global("torch._utils", "_rebuild_tensor_v2") + _tuple(*parts) + b"R"


def _tuple(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data


def _int(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data
