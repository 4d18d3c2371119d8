"""Ties of pytrees and of NNX models: random sharing, against the truth by construction."""

import gc
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt

jax = pytest.importorskip("jax", reason="could not import jax; these tests need it")
nnx = pytest.importorskip("flax.nnx", reason="could not import flax; these tests need it")
optax = pytest.importorskip("optax", reason="could not import optax; these tests need it")

jnp = jax.numpy
ORIGINALS = [jnp.ones(3) for _ in range(4)]
OF_NUMPY = np.ones(3, np.float32)
HOW = {
    "same object": lambda original: original,
    "asarray": jnp.asarray,
    "copy": lambda original: original.copy(),
    "slice": lambda original: original[:2],
    "put on the device": lambda original: jax.device_put(original, may_alias=True),
    "reshaped": lambda original: original.reshape(1, 3),
    "equal, of NumPy": lambda original: OF_NUMPY.copy(),
    "view, of NumPy": lambda original: OF_NUMPY[:],
    "empty": lambda original: original[:0],
    "number": lambda original: np.float32(1),
}
ROWS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted(HOW))), max_size=9)


def groups_of(leaves):
    """Return which leaves are one object, by the places at which they stand."""
    found = {}
    for place, leaf in enumerate(leaves):
        if not isinstance(leaf, np.generic) and leaf.size:
            found.setdefault(id(leaf), []).append(place)
    return tuple(tuple(f"p{i}" for i in places) for places in found.values() if len(places) > 1)


@given(ROWS)
def test_leaves_are_tied_if_they_are_one_object(rows):
    leaves = [HOW[how](ORIGINALS[which]) for which, how in rows]
    params = {f"p{i}": leaf for i, leaf in enumerate(leaves)}
    if params:
        assert pt.open(params).ties == groups_of(leaves)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_variables_are_tied_if_they_are_one_object_and_not_by_their_arrays(which):
    variables = [nnx.Param(jnp.ones(3)) for _ in range(2)]
    shared = variables[0].get_value()
    model = nnx.Dict()
    for place, number in enumerate(which):
        model[f"p{place}"] = variables[number] if number < 2 else nnx.Param(shared)
    truth = [
        [f"p{i}" for i, n in enumerate(which) if n == number] for number in dict.fromkeys(which) if number < 2
    ]
    assert pt.open(model).ties == tuple(tuple(group) for group in truth if len(group) > 1)


def test_addresses_that_are_used_again_are_no_ties():
    """Each tree keeps what it listed alive, so that nothing else can come to its address."""
    seen = []
    for _ in range(50):
        tree = pt.open({"w": jnp.ones(3)})
        seen.append(tree["w"].storage)
        del tree
        gc.collect(0)
    assert len(set(seen)) == 50


def test_the_state_of_an_optimizer_is_not_tied_with_the_parameters_it_keeps():
    params = {"w": jnp.ones(3)}
    state = optax.lookahead(optax.sgd(0.1), 5, 0.5).init(optax.LookaheadParams.init_synced(params))
    whole = (params, optax.LookaheadParams.init_synced(params), state)
    assert whole[1].fast["w"] is params["w"]
    assert pt.open(whole).ties == (("1.fast.w", "1.slow.w"),)


# Trees of any shape: what is tied comes back as it was


class Pair(NamedTuple):
    left: object
    right: object


def containers(below):
    keys = st.sampled_from(["a", "b", "a.b", "c", 0, 1])
    return st.one_of(
        st.lists(below, max_size=3),
        st.lists(below, max_size=3).map(tuple),
        st.tuples(below, below).map(lambda pair: Pair(*pair)),
        st.lists(st.tuples(keys, below), max_size=3).map(lambda items: {str(k): v for k, v in items}),
        st.lists(st.tuples(keys, below), max_size=3).map(
            lambda items: OrderedDict((str(k), v) for k, v in items)
        ),
    )


LEAVES = st.one_of(st.builds(jnp.ones, st.just(3)), st.none())
TREES = st.recursive(LEAVES, containers, max_leaves=8).filter(lambda tree: len(jax.tree.leaves(tree)) > 1)


def same(first, second):
    """Tell whether two trees are one in structure, types, order of keys, and in the leaves themselves."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return [*first] == [*second] and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first is second


@settings(deadline=None)
@given(TREES, st.data())
def test_tie_and_expand_are_the_source_with_one_leaf_in_two_places(source, data):
    names = [*pt.open(source)]
    first = data.draw(st.sampled_from(names))
    other = data.draw(st.sampled_from([name for name in names if name != first]))
    tied = pt.tie(source, first, other)
    assert len(jax.tree.leaves(tied.variables)) == len(names) - 1
    handles = {name: param.handle for name, param in pt.open(source).items()}
    for variables in (tied.variables, jax.tree.map(lambda leaf: leaf, tied.variables)):
        whole = pt.open(tied.expand(variables))
        kept = handles | {other: handles[first]}
        assert all(param.handle is kept[name] for name, param in whole.items())
        assert [*whole] == names
    parted = pt.untie(tied.expand(tied.variables), other)
    assert pt.open(parted).ties == ()


@settings(deadline=None)
@given(TREES, st.data())
def test_the_two_parts_of_a_frozen_tree_make_up_the_source(source, data):
    names = [*pt.open(source)]
    frozen = data.draw(st.sampled_from(names))
    parted = pt.freeze(source, lambda param: param.name == frozen)
    assert len(jax.tree.leaves(parted.trainable)) == len(names) - 1
    assert sum(jax.tree.leaves(parted.mask)) == len(names) - 1
    assert same(parted.merge(parted.trainable, parted.frozen), source)
    computed = jax.tree.map(lambda leaf: leaf, parted.trainable)
    assert same(parted.merge(computed, parted.frozen), source), (
        "though JAX sorts the keys of what it computes"
    )


@settings(deadline=None)
@given(TREES)
def test_an_update_of_everything_keeps_structure_types_and_order(source):
    new = pt.update(source, {"**": 5})
    assert jax.tree.structure(new) == jax.tree.structure(source)
    assert [*pt.open(new)] == [*pt.open(source)]
    assert all((leaf == 5).all() for leaf in jax.tree.leaves(new))
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(source))
