"""CRC-32C (Castagnoli) of bytes, at the speed of long integers and not of a loop over bytes.

The remainder modulo P of a message does not change when a multiple of P is added to it. P divides
x^5685 + x^1362 + x^426 + 1 (it is divisible by x + 1, so four terms are the fewest), and so, squared j times,
the same with every exponent 2^j times as large. So the first bits of a message can be moved to three places
further on, thousands at once: bits of a long integer, or words of 64 bits in NumPy, which is six squarings.
Only what is left at the end is divided byte by byte.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_POLYNOMIAL = 0x82F63B78  # reflected; RFC 3720, section 12.1
_A, _B, _C = 5685, 1362, 426
_STEP, _LEAST = _A - _B, 2 * _A - _B  # bits that are moved at once, of how many at least
_PIECE = 1 << 17  # bytes in one long integer; longer ones do not fit the processor's cache
_STEPS = 4  # in NumPy, before what is left is moved to the front of the buffer
_LARGE = 1 << 18  # bytes for which NumPy is worth it: 2 GB/s where long integers do 0.1 (measured)
_ALL = 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        entry = byte
        for _ in range(8):
            entry = entry >> 1 ^ (_POLYNOMIAL if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)


_TABLE = _table()


def checksum(data: bytes | memoryview, before: int = 0) -> int:
    """Return the CRC-32C of ``data``, following bytes whose CRC-32C is ``before``."""
    register, view = before ^ _ALL, memoryview(data)
    if len(view) >= _LARGE and "numpy" in sys.modules:  # never imported for this: not to list a file
        view, register = _shortened(view, register), 0
    for start in range(0, len(view), _PIECE):
        register = _extended(register, view[start : start + _PIECE])
    return register ^ _ALL


def masked(crc: int) -> int:
    """Return a CRC-32C as LevelDB and TensorFlow store it: turned by 15 bits, and a constant added."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _ALL


def _extended(register: int, piece: memoryview) -> int:
    bits = 8 * len(piece)
    if bits >= _LEAST:
        value = int.from_bytes(piece, "little") ^ register  # the lowest bit is the first of the message
        while bits >= _LEAST:
            power = (bits // _LEAST).bit_length() - 1
            step = _STEP << power
            first = value & ((1 << step) - 1)
            value = value >> step ^ first ^ first << (_B - _C << power) ^ first << (_B << power)
            bits -= step
        length = -(-bits // 8)
        piece, register = memoryview((value << 8 * length - bits).to_bytes(length, "little")), 0
    for byte in piece:
        register = _TABLE[(register ^ byte) & 0xFF] ^ register >> 8
    return register


def _shortened(view: memoryview, register: int) -> memoryview:
    """Return a few hundred kilobytes that leaves, from a register of zero, what ``view`` leaves."""
    import numpy as np

    words: np.ndarray[Any, Any] = np.frombuffer(view, "<u8", len(view) // 8)
    buffer = np.empty(_A + _STEPS * _STEP, np.uint64)
    buffer[:_A] = words[:_A]
    buffer[0] ^= np.uint64(register)
    done = _A
    while len(words) - done >= _STEPS * _STEP:
        buffer[_A:] = words[done : done + _STEPS * _STEP]
        done += _STEPS * _STEP
        for i in range(0, _STEPS * _STEP, _STEP):
            first = buffer[i : i + _STEP]
            for distance in (_STEP, _A - _C, _A):
                buffer[i + distance : i + distance + _STEP] ^= first
        buffer[:_A] = buffer[-_A:]
    return memoryview(buffer[:_A].astype("<u8").tobytes() + bytes(view[8 * done :]))
