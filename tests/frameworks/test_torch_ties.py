"""Ties of live tensors: random views of shared memory, against the truth by construction."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import paratree as pt
from tests.core.views import STORE, families, truth

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")
nn = torch.nn


def named(groups):
    return tuple(tuple(f"p{i}" for i in group) for group in groups)


def module_of(tensors):
    module = nn.Module()
    for i, tensor in enumerate(tensors):
        module.register_parameter(f"p{i}", nn.Parameter(tensor, requires_grad=False))
    return module


@given(families())
def test_ties_of_live_tensors_are_the_views_of_equal_places(family):
    memory = [torch.zeros(STORE) for _ in range(3)]
    tensors = (memory[v.store].as_strided(v.shape, v.strides, v.offset) for v in family)
    tree = pt.open(module_of(tensors))
    assert tree.ties == named(truth(family))


@given(families(), st.data())
def test_a_write_through_a_tie_is_seen_under_its_names_and_only_overlaps_see_it_too(family, data):
    family = [view for view in family if view.size]
    if not family:
        return
    memory = [torch.zeros(STORE) for _ in range(3)]
    tree = pt.open(module_of(memory[v.store].as_strided(v.shape, v.strides, v.offset) for v in family))
    written = data.draw(st.integers(0, len(family) - 1))
    tree[f"p{written}"].value[...] = 1
    touched = set(family[written].places().ravel())
    for i, view in enumerate(family):
        seen = {place for place in view.places().ravel() if view.store == family[written].store} & touched
        assert tree[f"p{i}"].value.any() == bool(seen)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["same object", "same memory", "copy", "empty"])),
        max_size=9,
    )
)
def test_aliases_are_tied_and_copies_are_not(rows):
    originals = [nn.Parameter(torch.ones(3)) for _ in range(4)]
    empty = nn.Parameter(torch.empty(0, 3))
    module, groups = nn.Module(), {}
    for i, (which, how) in enumerate(rows):
        original = originals[which]
        parameter = {
            "same object": original,
            "same memory": nn.Parameter(original.data),
            "copy": nn.Parameter(original.data.clone()),
            "empty": empty,
        }[how]
        module.register_parameter(f"p{i}", parameter)
        if how.startswith("same"):
            groups.setdefault(which, []).append(i)
    assert pt.open(module).ties == named(group for group in groups.values() if len(group) > 1)
