"""Bob Jenkins' lookup3 hash of bytes, the checksum of HDF5; he calls it ``hashlittle``."""

from __future__ import annotations

import struct

_START, _ALL = 0xDEADBEEF, 0xFFFFFFFF
_BLOCK = struct.Struct("<3I")


def checksum(data: bytes) -> int:
    """Return the hash of ``data``.

    >>> hex(checksum(b"Four score and seven years ago"))
    '0x17770551'
    """
    a = b = c = (_START + len(data)) & _ALL
    if not data:
        return c
    whole = (len(data) - 1) // _BLOCK.size * _BLOCK.size  # the last block, full or not, is mixed in otherwise
    for x, y, z in _BLOCK.iter_unpack(data[:whole]):
        b, c = (b + y) & _ALL, (c + z) & _ALL
        a = ((a + x - c) & _ALL) ^ (c << 4 & _ALL | c >> 28)
        c = (c + b) & _ALL
        b = ((b - a) & _ALL) ^ (a << 6 & _ALL | a >> 26)
        a = (a + c) & _ALL
        c = ((c - b) & _ALL) ^ (b << 8 & _ALL | b >> 24)
        b = (b + a) & _ALL
        a = ((a - c) & _ALL) ^ (c << 16 & _ALL | c >> 16)
        c = (c + b) & _ALL
        b = ((b - a) & _ALL) ^ (a << 19 & _ALL | a >> 13)
        a = (a + c) & _ALL
        c = ((c - b) & _ALL) ^ (b << 4 & _ALL | b >> 28)
        b = (b + a) & _ALL
    x, y, z = _BLOCK.unpack(data[whole:].ljust(_BLOCK.size, b"\0"))
    a, b, c = (a + x) & _ALL, (b + y) & _ALL, (c + z) & _ALL
    c = ((c ^ b) - _turned(b, 14)) & _ALL
    a = ((a ^ c) - _turned(c, 11)) & _ALL
    b = ((b ^ a) - _turned(a, 25)) & _ALL
    c = ((c ^ b) - _turned(b, 16)) & _ALL
    a = ((a ^ c) - _turned(c, 4)) & _ALL
    b = ((b ^ a) - _turned(a, 14)) & _ALL
    c = ((c ^ b) - _turned(b, 24)) & _ALL
    return int(c)


def _turned(word: int, bits: int) -> int:
    return word << bits & _ALL | word >> 32 - bits
