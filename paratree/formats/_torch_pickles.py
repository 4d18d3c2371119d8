"""Pieces of the pickles that torch loads, written by hand: protocol 2, nothing remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratree.core.array import contiguous
from paratree.formats._torch_tensors import STORAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from paratree.core.param import Param

PROTOCOL, STOP = b"\x80\x02", b"."
FALSE = b"\x89"


def tensor(param: Param, key: str) -> bytes:
    """Return what calls the function that makes a tensor of a storage."""
    shape: tuple[int, ...] = param.shape  # type: ignore[assignment]  # every length is known
    old = STORAGES.get(param.dtype)
    kind = global_name("torch.storage", "UntypedStorage") if old is None else global_name("torch", old)
    count = param.nbytes if old is None else param.size
    storage = tuple_of(text("storage"), kind, text(key), text("cpu"), integer(count or 0)) + b"Q"
    shapes = (tuple_of(*map(integer, lengths)) for lengths in (shape, contiguous(shape)))
    no_hooks = call(global_name("collections", "OrderedDict"))
    parts = [storage, integer(0), *shapes, FALSE, no_hooks]
    if old is None:
        return call(
            global_name("torch._utils", "_rebuild_tensor_v3"), *parts, global_name("torch", param.dtype)
        )
    return call(global_name("torch._utils", "_rebuild_tensor_v2"), *parts)


def tuple_of(*parts: bytes) -> bytes:
    """Return a tuple."""
    return b"(" + b"".join(parts) + b"t"


def dict_of(items: Iterable[bytes]) -> bytes:
    """Return a dictionary; an item is a key and its value."""
    return b"}(" + b"".join(items) + b"u"


def list_of(*parts: bytes) -> bytes:
    """Return a list."""
    return b"](" + b"".join(parts) + b"e"


def call(function: bytes, *arguments: bytes) -> bytes:
    """Return what a function gives."""
    return function + tuple_of(*arguments) + b"R"


def built(kind: bytes, state: bytes) -> bytes:
    """Return an object of a class that gets a state."""
    return kind + b")\x81" + state + b"b"


def global_name(module: str, name: str) -> bytes:
    """Return a class, a function or another object of a module."""
    return f"c{module}\n{name}\n".encode()


def text(text: str) -> bytes:
    """Return a string."""
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data


def integer(value: int) -> bytes:
    """Return a number."""
    if value < 1 << 31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data
