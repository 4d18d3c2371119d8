"""Protocol buffers: what Google's own writer wrote is read back, and damage is one clear error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import paratree as pt
from paratree.files.local import Memory
from paratree.files.protobuf import BYTES, FIXED32, FIXED64, VARINT, Wire, signed

NUMBERS = st.integers(1, (1 << 29) - 1)


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, wire, value):
    key = varint(number << 3 | wire)
    if wire == VARINT:
        return key + varint(value)
    if wire == BYTES:
        return key + varint(len(value)) + value
    return key + value.to_bytes(4 if wire == FIXED32 else 8, "little")


FIELDS = st.one_of(
    st.tuples(NUMBERS, st.just(VARINT), st.integers(0, (1 << 64) - 1)),
    st.tuples(NUMBERS, st.just(FIXED64), st.integers(0, (1 << 64) - 1)),
    st.tuples(NUMBERS, st.just(FIXED32), st.integers(0, (1 << 32) - 1)),
    st.tuples(NUMBERS, st.just(BYTES), st.binary(max_size=40) | st.just(bytes(9000))),
)


@given(st.lists(FIELDS))
def test_what_is_written_is_read(fields):
    wire = Wire(Memory(b"".join(field(*f) for f in fields), "m"))
    found = [(n, w, wire.raw(v) if w == BYTES else v) for n, w, v in wire.fields()]
    assert found == fields


def test_what_the_reference_writes_is_read():
    descriptor = pytest.importorskip("google.protobuf.descriptor_pb2")
    message = descriptor.FileDescriptorProto(name="é.proto", dependency=["a", "b"])
    message.options.java_multiple_files = True
    message.message_type.add(name="Inner").field.add(name="x", number=-7)
    wire = Wire(Memory(message.SerializeToString(), "m"))
    found = [(number, value) for number, _, value in wire.fields()]
    assert [wire.text(span) for number, span in found if number in (1, 3)] == ["é.proto", "a", "b"]
    inner = next(span for number, span in found if number == 4)
    fields = {number: span for number, _, span in wire.fields(inner)}
    assert [signed(v) for n, _, v in wire.fields(fields[2]) if n == 3] == [-7]


def test_only_wanted_fields_are_given_and_of_the_wanted_type():
    data = field(1, VARINT, 7) + field(2, BYTES, b"ab") + field(3, VARINT, 9) + field(1, BYTES, b"cd")
    wire = Wire(Memory(data, "m"))
    assert [number for number, _, _ in wire.fields(None, {1: (VARINT, BYTES)})] == [1, 1]
    with pytest.raises(pt.CorruptFileError, match="field 1 is of wire type 2 and not 0"):
        list(wire.fields(None, {1: (VARINT,), 3: (VARINT,)}))


def test_packed_numbers():
    wire = Wire(Memory(field(5, BYTES, varint(1) + varint(300) + varint(1 << 63)), "m"))
    assert wire.varints(next(wire.fields())[2]) == [1, 300, 1 << 63]


@given(st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 300)))
def test_many_packed_numbers_are_an_array(numbers):
    data = field(5, BYTES, b"".join(map(varint, numbers)))
    wire = Wire(Memory(data, "m"))
    found = wire.many_varints(next(wire.fields())[2])
    assert found.dtype == "uint64"
    assert found.tolist() == numbers


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x01\x80", "byte 3: a number is cut short"),
        (b"\xff", "cut short"),
        (b"\xff" * 9 + b"\x02", "64 bits"),
        (b"\x05" + b"\x80" * 10 + b"\x01", "64 bits"),
    ],
)
def test_damaged_packed_numbers_are_one_clear_error(data, message):
    wire = Wire(Memory(field(5, BYTES, data), "m"))
    span = next(wire.fields())[2]
    for read in (wire.varints, wire.many_varints):
        with pytest.raises(pt.CorruptFileError, match=message):
            read(span)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80", "cut short"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "64 bits"),
        (b"\x0a\x05abc", "claims 5 bytes and 3 are left"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "claims 18446744073709551615 bytes"),
        (b"\x0d\0\0", "cut short"),
        (b"\x09\0\0", "cut short"),
        (b"\x0b\x0c", "a group"),
        (b"\x0f", "wire type 7"),
        (b"\x00\x01", "0 is no field number"),
    ],
)
def test_damage_is_one_clear_error(data, message):
    with pytest.raises(pt.CorruptFileError, match=message):
        list(Wire(Memory(data, "m")).fields())


def test_a_field_ends_where_its_message_does():
    wire = Wire(Memory(field(1, BYTES, b"\x0a\x09abc") + b"\x10\x01" * 9, "m"))
    with pytest.raises(pt.CorruptFileError, match="claims 9 bytes and 3 are left"):
        list(wire.fields(next(wire.fields())[2]))


def test_text_is_utf8_and_short():
    wire = Wire(Memory(field(1, BYTES, b"a\xff"), "m"))
    with pytest.raises(pt.CorruptFileError, match="byte 3: this byte is not UTF-8"):
        wire.text(next(wire.fields())[2])
    wire = Wire(Memory(field(1, BYTES, bytes(1 << 25)), "m"))
    with pytest.raises(pt.CorruptFileError, match="too many"):
        wire.text(next(wire.fields())[2])
