"""Messages that no writer of today makes, spelled out from the HDF5 File Format Specification, IV.A.2."""

from __future__ import annotations

import struct

import pytest

from paratree.files.hdf5_headers import FILL, OLD_FILL
from paratree.files.hdf5_messages import (
    CHUNKED,
    COMPACT,
    CONTIGUOUS,
    NOWHERE,
    VIRTUAL,
    MalformedError,
    fill_of,
    filters_of,
    layout_of,
    space_of,
    type_of,
)


@pytest.mark.parametrize("version", [1, 2])
def test_old_layouts(version):
    """Version, number of axes, kind, five bytes of nothing, place, length of each axis."""
    piece = layout_of(struct.pack("<3B5xQ2I", version, 2, CONTIGUOUS, 4096, 3, 4))
    assert (piece.kind, piece.address, piece.size) == (CONTIGUOUS, 4096, None)
    small = layout_of(struct.pack("<3B5x2II", version, 2, COMPACT, 1, 4, 4) + b"abcdefgh")
    assert (small.kind, small.size, small.data) == (COMPACT, 4, b"abcd")
    chunks = layout_of(struct.pack("<3B5xQ3I", version, 3, CHUNKED, 512, 10, 20, 8))
    assert (chunks.kind, chunks.address, chunks.chunk, chunks.index) == (CHUNKED, 512, (10, 20, 8), 0)


@pytest.mark.parametrize(
    "message",
    [
        struct.pack("<3B5xQI", 1, 1, VIRTUAL, 0, 1),
        struct.pack("<2B", 3, VIRTUAL),
        struct.pack("<2B", 6, COMPACT),
        struct.pack("<2BBQ2I", 3, CHUNKED, 2, 512, 0, 8),
        struct.pack("<2BBQ", 3, CHUNKED, 0, 512),
        struct.pack("<5B", 4, CHUNKED, 0, 2, 9) + bytes(40),
        struct.pack("<5B2BBQ", 4, CHUNKED, 0, 2, 1, 4, 8, 77, 512),
    ],
)
def test_layouts_that_are_none(message):
    with pytest.raises(MalformedError):
        layout_of(message)


def test_values_elsewhere_or_nowhere():
    assert layout_of(struct.pack("<2B", 4, VIRTUAL)).kind == VIRTUAL
    assert layout_of(struct.pack("<2B2Q", 3, CONTIGUOUS, NOWHERE, 0)).address == NOWHERE


def test_spaces():
    assert space_of(struct.pack("<4B4x2Q2Q", 1, 2, 1, 0, 3, 4, 3, NOWHERE)).most == (3, NOWHERE)
    assert space_of(struct.pack("<4B", 2, 0, 0, 2)).shape is None
    for message in (struct.pack("<4B", 3, 0, 0, 0), struct.pack("<4B", 2, 33, 0, 1) + bytes(33 * 8)):
        with pytest.raises(MalformedError, match="is not known"):
            space_of(message)


def _integer(size=1, signed=True):
    return struct.pack("<II2H", 1 << 4 | 8 << (8 if signed else 40), size, 0, 8 * size)


@pytest.mark.parametrize(
    ("version", "members", "name"),
    [
        (3, b"FALSE\0TRUE\0\0\1", "bool"),
        (3, b"TRUE\0FALSE\0\1\0", "bool"),
        (1, b"FALSE\0\0\0TRUE\0\0\0\0\0\1", "bool"),
        (3, b"NO\0YES\0\0\1", "int8"),
    ],
)
def test_enumerations(version, members, name):
    assert type_of(struct.pack("<II", version << 4 | 8 | 2 << 8, 1) + _integer() + members).name == name


@pytest.mark.parametrize("version", [1, 3])
def test_pairs_that_are_no_complex_numbers(version):
    half = struct.pack("<II2H4BI", 0x11 | 0x20 << 8 | 31 << 16, 4, 0, 32, 23, 8, 0, 23, 127)
    pad, place = (7, 4) if version == 1 else (1, 1)
    extra = bytes(28) if version == 1 else b""
    members = [n + bytes(pad) + p.to_bytes(place, "little") + extra + half for n, p in ((b"r", 0), (b"i", 4))]
    head = struct.pack("<II", version << 4 | 6 | 2 << 8, 8)
    assert type_of(head + b"".join(members)).name == "complex64"
    assert type_of(head + members[0] + members[1].replace(b"i", b"j", 1)).name == "compounds"
    assert type_of(head + members[0] + members[1][:-4]).name == "compounds"
    assert type_of(head + members[0] + members[1].replace(b"\x17\x08", b"\x17\x07")).name == "compounds"


def test_the_value_of_what_was_never_written():
    assert fill_of([(OLD_FILL, struct.pack("<I4s", 4, b"abcd") + b"more")]) == b"abcd"
    assert fill_of([(FILL, struct.pack("<4BI2s", 2, 1, 1, 1, 2, b"ab"))]) == b"ab"
    assert fill_of([(FILL, struct.pack("<4B", 2, 1, 1, 0))]) == b""
    assert fill_of([(FILL, struct.pack("<2BI2s", 3, 0x20, 2, b"ab"))]) == b"ab"
    assert fill_of([(FILL, struct.pack("<2B", 3, 0))]) == b""
    assert fill_of([]) == b""


def test_filters():
    old = struct.pack("<2B6x", 1, 2) + struct.pack("<4H8sI4x", 1, 8, 0, 1, b"deflate", 6)
    assert filters_of(old + struct.pack("<4H8sI4x", 2, 8, 0, 1, b"shuffle", 4)) == [1, 2]
    assert filters_of(struct.pack("<2B", 2, 1) + struct.pack("<3HI", 1, 0, 1, 6)) == [1]
    assert filters_of(struct.pack("<2B", 2, 1) + struct.pack("<4H4sI", 32001, 4, 0, 1, b"blo\0", 6)) == [
        32001
    ]
    assert filters_of(None) == []
    for message in (struct.pack("<2B", 3, 1), struct.pack("<2B3H", 2, 1, 1, 0, 9)):
        with pytest.raises(MalformedError):
            filters_of(message)
