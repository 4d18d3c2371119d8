"""Ties are identity, proven by storage: over files in memory, against the truth by construction."""

from hypothesis import given
from hypothesis import strategies as st

from paratree.core.array import RefusedArray, Storage
from paratree.core.names import BUFFER, PARAMETER
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.array import file_array
from paratree.files.local import Memory, Window
from tests.core.views import STORE, families, truth


def tree_of(arrays):
    params = {f"p{i}": Param(f"p{i}", array) for i, array in enumerate(arrays)}
    return ParamTree(params, Origin("memory", "test"))


def named(groups):
    return tuple(tuple(f"p{i}" for i in group) for group in groups)


def stores(count=3, width=4):
    return [Memory(bytes(STORE * width), "memory") for _ in range(count)]


def array_over(sources, view, dtype="float32", width=4):
    return file_array(sources[view.store], view.offset * width, view.shape, dtype, strides=view.strides)


@given(families())
def test_ties_are_the_arrays_of_equal_places(family):
    sources = stores()
    tree = tree_of(array_over(sources, view) for view in family)
    assert tree.ties == named(truth(family))
    assert tree.ties is tree.ties, "found once"


@given(families(), st.data())
def test_totals_count_each_group_once(family, data):
    sources = stores()
    kinds = [data.draw(st.sampled_from([PARAMETER, BUFFER])) for _ in family]
    params = [
        Param(f"p{i}", array_over(sources, v), k) for i, (v, k) in enumerate(zip(family, kinds, strict=True))
    ]
    totals = ParamTree(params, Origin("memory", "test")).totals
    repeated = {position for group in truth(family) for position in group[1:]}
    for kind in (PARAMETER, BUFFER):
        total = totals[kind]
        mine = [i for i, k in enumerate(kinds) if k == kind]
        once = [i for i in mine if i not in repeated]
        assert (total.names, total.count) == (len(mine), len(once))
        assert total.size == sum(family[i].size for i in once)
        assert total.expanded_size == sum(family[i].size for i in mine)
        assert (total.nbytes, total.expanded_nbytes) == (4 * total.size, 4 * total.expanded_size)


@given(families())
def test_ties_of_a_selection_are_ties_of_the_tree(family):
    sources = stores()
    tree = tree_of(array_over(sources, view) for view in family)
    part = tree.select(lambda param: int(param.name[1:]) % 2 == 0)
    kept = tuple(tuple(name for name in group if name in part) for group in tree.ties)
    assert part.ties == tuple(group for group in kept if len(group) > 1)


def test_another_dtype_or_byte_order_over_the_same_bytes_is_no_tie():
    source = Memory(bytes(32), "memory")
    arrays = [
        file_array(source, 0, (8,), "float32"),
        file_array(source, 0, (8,), "int32"),
        file_array(source, 0, (8,), "float32", big_endian=True),
        file_array(source, 0, (8,), "float32", negative=True),
        file_array(source, 0, (8,), "float32"),
    ]
    assert tree_of(arrays).ties == (("p0", "p4"),)


def test_equal_bytes_in_two_places_are_equal_and_not_tied():
    source = Memory(bytes(64), "memory")
    arrays = [file_array(source, offset, (8,), "float32") for offset in (0, 32)]
    assert tree_of(arrays).ties == ()


def test_windows_on_the_same_bytes_are_one_memory():
    source = Memory(bytes(64), "memory")
    windows = [Window(source, 16, 32), Window(source, 16, 32), Window(source, 0, 32)]
    assert tree_of(file_array(w, 0, (8,), "float32") for w in windows).ties == (("p0", "p1"),)


def test_an_array_without_a_record_is_never_tied():
    assert tree_of([RefusedArray((2,), "float32", "no")] * 2).ties == ()


def test_an_array_that_cannot_be_read_can_be_tied():
    storage = Storage("object 1")
    assert tree_of([RefusedArray((None,), "float32", "no", storage)] * 2).ties == (("p0", "p1"),)


def test_an_empty_array_is_never_tied_though_it_has_a_storage():
    assert tree_of([RefusedArray((0, 3), "float32", "no", Storage("a"))] * 2).ties == ()


def test_storages_are_equal_by_key_offset_and_strides():
    storage = Storage("a", 8, (1, 2))
    assert storage == Storage("a", 8, (1, 2))
    assert hash(storage) == hash(Storage("a", 8, (1, 2)))
    assert storage not in (Storage("b", 8, (1, 2)), Storage("a", 0, (1, 2)), Storage("a", 8), "a")
    assert repr(storage) == "<Storage 'a' at byte 8, strides (1, 2)>"
    assert repr(Storage("a")) == "<Storage 'a' at byte 0>"
