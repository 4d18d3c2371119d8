"""MessagePack: every value as the reference library packs it, and of other bytes nothing but errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import paratree as pt
from paratree.files.local import Memory
from paratree.files.msgpack import DEEPEST, Binary, Extension, unpack

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=70)
    | st.binary(max_size=70)
)
KEYS = st.text(max_size=40) | st.integers(-(1 << 31), 1 << 32)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=20) | st.dictionaries(KEYS, v, max_size=20), max_leaves=60
)


def resolved(value, data):
    """The value with bytes and extensions read."""
    if isinstance(value, dict):
        return {key: resolved(child, data) for key, child in value.items()}
    if isinstance(value, list):
        return [resolved(child, data) for child in value]
    if isinstance(value, Binary):
        found = data[value.offset : value.offset + value.length]
        return (value.code, found) if isinstance(value, Extension) else found
    return value


@given(VALUES)
def test_what_the_library_packs_is_what_is_found(value):
    msgpack = pytest.importorskip("msgpack")
    data = msgpack.packb(value)
    assert resolved(unpack(Memory(data, "m")), data) == value


@given(st.integers(0, 127), st.integers(0, 70_000).map(bytes))
def test_extensions_of_every_length(code, payload):
    msgpack = pytest.importorskip("msgpack")
    data = msgpack.packb({"a": msgpack.ExtType(code, payload)})
    assert resolved(unpack(Memory(data, "m")), data) == {"a": (code, payload)}


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error(data):
    try:
        unpack(Memory(data, "m"))
    except pt.CorruptFileError as error:
        assert str(error).startswith("m: at byte ")


def test_as_deep_as_is_allowed_and_no_deeper():
    unpack(Memory(b"\x91" * DEEPEST + b"\x01", "m"))
    with pytest.raises(pt.CorruptFileError, match="over 128 levels deep"):
        unpack(Memory(b"\x91" * (DEEPEST + 1) + b"\x01", "m"))


def test_a_part_of_a_source():
    assert unpack(Memory(b"\xc1\x93\x01\x02\x03\xc1", "m"), 1, 5) == [1, 2, 3]
    with pytest.raises(pt.CorruptFileError, match=r"m: at byte 4: .* go on"):
        unpack(Memory(b"\xc1\x92\x01\x02\x03\xc1", "m"), 1, 5)
