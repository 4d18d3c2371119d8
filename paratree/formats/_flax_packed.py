"""MessagePack as Flax writes it: heads, texts, numbers and plain values.

Encoding: the MessagePack specification (github.com/msgpack/msgpack/blob/master/spec.md).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

_COMPLEX = 2  # the extension
_LEAST, _GREATEST = -(1 << 63), (1 << 64) - 1


def head(count: int, fixed: int, below: int, wide: int) -> bytes:
    """Return the start of a map, list or text of so many entries."""
    if count < below:
        return bytes([fixed | count])
    if count < 1 << 16:
        return bytes([wide]) + count.to_bytes(2, "big")
    return bytes([wide + 1]) + count.to_bytes(4, "big")


def map_head(count: int) -> bytes:
    """Return the start of a map."""
    return head(count, 0x80, 16, 0xDE)


def list_head(count: int) -> bytes:
    """Return the start of a list."""
    return head(count, 0x90, 16, 0xDC)


def text(value: str) -> bytes:
    """Return a text.

    Raises:
        UnicodeEncodeError: it is no UTF-8.
    """
    data = value.encode()
    if 32 <= len(data) < 1 << 8:
        return bytes([0xD9, len(data)]) + data
    return head(len(data), 0xA0, 32, 0xDA) + data


def whole(value: int) -> bytes:
    """Return a whole number."""
    if value < 0:
        return b"\xd3" + value.to_bytes(8, "big", signed=True)
    if value < 0x80:
        return bytes([value])
    for code, width in ((0xCC, 1), (0xCD, 2), (0xCE, 4)):
        if value < 1 << 8 * width:
            return bytes([code]) + value.to_bytes(width, "big")
    return b"\xcf" + value.to_bytes(8, "big")


def plain(value: Any) -> bytes:
    """Return a plain value, a list of such, or an empty map.

    Raises:
        ValueError: MessagePack cannot hold it: a number of over 64 bits, a text that is no UTF-8.
    """
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        if not _LEAST <= value <= _GREATEST:
            raise ValueError("a number of over 64 bits")
        return whole(value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, complex):
        return bytes([0xC7, 19, _COMPLEX, 0x92]) + plain(value.real) + plain(value.imag)
    if isinstance(value, str):
        return text(value)
    return map_head(0) if isinstance(value, dict) else list_head(len(value)) + b"".join(map(plain, value))
