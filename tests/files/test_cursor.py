"""Reading from one value to the next: what is not there is refused before anything is allocated."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratree.core.errors import CorruptFileError
from paratree.files.cursor import Cursor
from paratree.files.local import Memory


def over(data, **options):
    return Cursor(Memory(data, "file"), **options)


@given(
    st.lists(st.tuples(st.sampled_from("BHIQbhiqfd"), st.integers(0, 100))), st.booleans(), st.integers(1, 9)
)
def test_numbers_in_both_byte_orders_whatever_the_window(values, big, window):
    order = ">" if big else "<"
    cursor = over(b"".join(struct.pack(order + w, n) for w, n in values), big_endian=big, window=window)
    assert [cursor.number(letter) for letter, _ in values] == [n for _, n in values]
    assert cursor.left == 0
    with pytest.raises(CorruptFileError, match="1 bytes are needed here and 0 are left"):
        cursor.number("B")


@given(st.lists(st.binary(max_size=300), max_size=40), st.integers(1, 500))
def test_texts_are_passed_over_to_the_byte(texts, window):
    data = b"".join(struct.pack("<Q", len(text)) + text for text in texts)
    cursor = over(data + b"end", window=window)
    cursor.skip_texts(len(texts))
    assert (cursor.place, cursor.bytes(3)) == (len(data), b"end")


@pytest.mark.parametrize("length", [3, 1 << 31, 1 << 62, (1 << 63) - 8, (1 << 64) - 8, (1 << 64) - 1])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_text_that_reaches_beyond_the_end_is_refused(length, at):
    lengths = [length if i == at else 0 for i in range(3)]
    with pytest.raises(CorruptFileError, match="beyond the end"):
        over(b"".join(struct.pack("<Q", n) for n in lengths) + b"ab").skip_texts(3)


def test_counts_names_and_skips_are_checked():
    cursor = over(struct.pack("<Q", 3) + b"a\xffb")
    for refused, message in (
        (lambda: cursor.check_count(1 << 62, 8, "things"), "things are claimed and 11 bytes are left"),
        (lambda: cursor.bytes(1 << 40), "bytes are needed here"),
        (lambda: cursor.skip(12), "12 bytes are needed here and 11 are left"),
        (lambda: cursor.numbers("Q", 1 << 60), "numbers are claimed"),
        (lambda: cursor.at(0).name(2), "the limit is 2"),
        (lambda: cursor.at(0).name(9), "a name is not UTF-8"),
    ):
        with pytest.raises(CorruptFileError, match=message):
            refused()
    cursor.skip(11)
    assert (cursor.left, cursor.at(0).number("Q")) == (0, 3)
