"""Arrays made of parts, and arrays that are decoded when they are read."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

import paratree as pt
from paratree.files.array import file_array
from paratree.files.composed import ComposedArray, DecodedArray, composed_array
from paratree.files.local import Memory


def part(values, start):
    source = Memory(np.ascontiguousarray(values).tobytes(), "part")
    return start, file_array(source, 0, values.shape, str(values.dtype))


@st.composite
def cut_arrays(draw):
    """An array, and the parts into which a grid cuts it, in any order."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    whole = np.arange(np.prod(shape), dtype="int16").reshape(shape)
    cuts = [sorted({0, n, *draw(st.lists(st.integers(0, n), max_size=2))}) for n in shape]
    starts = [list(pairwise(c)) or [(0, 0)] for c in cuts]
    boxes = [()]
    for axis in starts:
        boxes = [(*box, step) for box in boxes for step in axis]
    parts = [(whole[tuple(slice(*s) for s in box)], tuple(s[0] for s in box)) for box in boxes]
    return whole, draw(st.permutations(parts))


@given(cut_arrays(), st.data())
def test_what_is_cut_is_put_together(cut, data):
    whole, parts = cut
    array = composed_array(Memory(b"", "m"), whole.shape, "int16", [part(*p) for p in parts], member="w")
    assert np.array_equal(array.read(), whole)
    index = data.draw(basic_indices(whole.shape))
    assert np.array_equal(array.read(index), whole[index])


@given(cut_arrays(), st.data())
def test_a_part_twice_or_left_out_or_elsewhere_is_seen(cut, data):
    _, parts = cut
    parts = [p for p in parts if p[0].size]
    if not parts:
        return
    place = data.draw(st.integers(0, len(parts) - 1))
    values, start = parts[place]
    wrong = [[*parts[:place], *parts[place + 1 :]], [*parts, parts[place]]]
    if start:
        wrong.append([*parts[:place], (values, (start[0] + 1, *start[1:])), *parts[place + 1 :]])
    shape = cut[0].shape
    for these in wrong:
        with pytest.raises(pt.CorruptFileError, match="part"):
            composed_array(Memory(b"", "m"), shape, "int16", [part(*p) for p in these], member="w")


def test_two_over_one_and_one_left_out_do_not_make_up_for_each_other():
    quarter = np.zeros((1, 1), "int16")
    for starts in ([(0, 0), (0, 0), (1, 0), (1, 1)], [(0, 0), (0, 0), (1, 1), (1, 1)]):
        with pytest.raises(pt.CorruptFileError, match="overlap"):
            composed_array(
                Memory(b"", "m"), (2, 2), "int16", [part(quarter, start) for start in starts], member="w"
            )


def test_another_dtype_or_number_of_axes_is_refused():
    values = np.zeros((2, 2), "int16")
    for shape, dtype in (((2, 2), "int8"), ((4,), "int16"), ((2, -2), "int16")):
        with pytest.raises(pt.CorruptFileError):
            composed_array(Memory(b"", "m"), shape, dtype, [part(values, (0, 0))], member="w")


def test_only_the_parts_that_are_asked_for_are_read():
    class Unread:
        shape, dtype, storage, problem = (2,), "int16", None, None

        def read(self, index=...):
            raise AssertionError("not asked for")

    parts = [part(np.array([1, 2], "int16"), (0,)), ((2,), Unread())]
    array = composed_array(Memory(b"", "m"), (4,), "int16", parts, member="w")
    assert array.read(1) == 2
    assert array.read(slice(1, None, -1)).tolist() == [2, 1]


@given(st.data())
def test_what_is_decoded_is_indexed_as_numpy_does(data):
    whole = np.arange(24).reshape(2, 3, 4)
    array = DecodedArray((2, 3, 4), "int64", lambda: whole.ravel())
    index = data.draw(basic_indices(whole.shape))
    assert np.array_equal(array.read(index), whole[index])


def test_an_empty_slice_backwards_is_empty():
    array = DecodedArray((3,), "int64", lambda: np.arange(3))
    assert array.read(slice(-9, -9, -1)).tolist() == []


def test_where_no_part_is_the_fill_is():
    parts = (part(np.arange(4, dtype="int16").reshape(2, 2), (1, 2)),)
    found = ComposedArray((4, 5), "int16", parts, 7)
    expected = np.full((4, 5), 7)
    expected[1:3, 2:4] = [[0, 1], [2, 3]]
    np.testing.assert_array_equal(found.read(), expected)
    np.testing.assert_array_equal(found.read((slice(3, 0, -1), 3)), expected[3:0:-1, 3])


def _counted(shape, seen):
    def decode():
        seen.append(1)
        return np.arange(np.prod(shape))

    return DecodedArray(shape, "int64", decode)


def test_parts_in_turn_are_decoded_once():
    seen: list[int] = []
    array = _counted((6, 4), seen)
    parts = [array.read((slice(i, i + 2),)) for i in (0, 2, 4)]
    assert np.array_equal(np.concatenate(parts), np.arange(24).reshape(6, 4))
    assert len(seen) == 1
    parts[0][...] = -1  # a part is the caller's own
    assert array.read((0, 0)) == 0
    assert len(seen) == 2  # what was decoded was let go with its last part


def test_decoded_arrays_are_let_go_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("paratree.files.composed._MOST_KEPT", 1000)
    seen: list[int] = []
    arrays = [_counted((100,), seen) for _ in range(3)]
    for array in (*arrays, *arrays[::-1]):
        array.read((slice(0, 5),))
    assert len(seen) == 5  # only the latest was kept


def test_a_decoded_array_is_let_go_with_its_array():
    from paratree.files import composed

    array = _counted((100,), [])
    array.read((slice(0, 5),))
    assert array in composed._kept
    before = len(composed._kept)
    del array
    assert len(composed._kept) == before - 1
