"""Ties of Gluon parameters: objects, memory, copies and views, against the truth by construction."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

import paratree as pt

mx = pytest.importorskip("tests.mxnet_numpy", reason="could not import mxnet; these tests need it").mxnet
gluon, nn = mx.gluon, mx.gluon.nn


def named(groups):
    return tuple(tuple(f"p{i}" for i in group) for group in groups)


def parameter_of(array, name="w"):
    """Return a parameter whose value is an array itself, no copy of it, as Gluon never makes one."""
    parameter = gluon.Parameter(name, shape=array.shape)
    parameter.initialize()
    parameter._data = [array]
    return parameter


def block_of(parameters):
    block = gluon.Block()
    for i, parameter in enumerate(parameters):
        setattr(block, f"p{i}", parameter)
    return block


HOW = ["same object", "same memory", "detached", "copy", "not initialised"]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(HOW)), max_size=9))
def test_one_parameter_is_tied_and_equal_ones_are_not(rows):
    originals = [parameter_of(mx.nd.ones((3,))) for _ in range(3)]
    waiting = [gluon.Parameter("w", shape=(3,)) for _ in range(3)]
    parameters, groups = [], {}
    for i, (which, how) in enumerate(rows):
        array = originals[which].data()
        parameters.append(
            {
                "same object": lambda which=which: originals[which],
                "same memory": lambda array=array: parameter_of(array),
                "detached": lambda array=array: parameter_of(array.detach()),
                "copy": lambda array=array: parameter_of(array.copy()),
                "not initialised": lambda which=which: waiting[which],
            }[how]()
        )
        if how != "copy":
            groups.setdefault((which, how == "not initialised"), []).append(i)
    tree = pt.open(block_of(parameters))
    assert tree.ties == named(group for group in groups.values() if len(group) > 1)


slices = st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(1, 3), st.booleans())


@given(st.lists(slices, min_size=1, max_size=9), st.data())
def test_parts_of_one_memory_are_tied_only_where_they_are_the_same_part(rows, data):
    """Slices share memory in MXNet: (memory, first row, number of rows, seen as one axis)."""
    memory = [mx.nd.zeros((8, 2)) for _ in range(3)]
    arrays = []
    for which, start, length, flat in rows:
        part = memory[which][start : start + length]
        arrays.append(part.reshape((-1,)) if flat else part)
    tree = pt.open(block_of(map(parameter_of, arrays)))
    groups = {}
    for i, row in enumerate(rows):
        groups.setdefault(row, []).append(i)
    assert tree.ties == named(group for group in groups.values() if len(group) > 1)
    written = data.draw(st.integers(0, len(rows) - 1))
    tree[f"p{written}"].value[...] = 1
    which, start, length, _ = rows[written]
    for i, (other, other_start, other_length, _) in enumerate(rows):
        overlap = range(max(start, other_start), min(start + length, other_start + other_length))
        assert tree[f"p{i}"].value.any() == (other == which and len(overlap) > 0)


@given(st.integers(2, 6))
def test_an_address_that_is_used_again_is_no_tie(number):
    storages = []
    for _ in range(number):
        block = block_of([parameter_of(mx.nd.ones((1000,)))])
        storages.append(pt.open(block)["p0"].storage)
        del block
        gc.collect()
    assert len({(storage.key, storage.offset) for storage in storages}) == number


def test_two_nets_of_equal_values_share_nothing():
    nets = []
    for _ in range(2):
        net = nn.Dense(3, in_units=3)
        net.initialize(mx.init.One())
        nets.append(net)
    both = nn.Sequential()
    both.add(*nets)
    assert pt.open(both).ties == ()


def test_shared_deferred_parameters_are_tied_before_and_after_they_get_values():
    shared = nn.Dense(3)
    net = nn.Sequential()
    net.add(shared, nn.Dense(3, params=shared.params), nn.Dense(3))
    ties = (("0.weight", "1.weight"), ("0.bias", "1.bias"))
    assert pt.open(net).ties == ties
    net.initialize()
    assert pt.open(net).ties == ties
    net(mx.nd.ones((1, 3)))
    assert pt.open(net).ties == ties


def test_a_parameter_stays_tied_when_it_is_frozen_or_moved():
    shared = nn.Dense(3, in_units=3)
    net = nn.Sequential()
    net.add(shared, shared)
    net.initialize()
    pt.freeze(net, "0.weight")
    assert pt.open(net).ties == (("0.weight", "1.weight"), ("0.bias", "1.bias"))
    net.collect_params().reset_ctx(mx.cpu(1))
    assert pt.open(net).ties == (("0.weight", "1.weight"), ("0.bias", "1.bias"))


def test_the_storage_says_where_it_is():
    net = nn.Dense(3, in_units=3)
    assert repr(pt.open(net)["weight"].storage).startswith("<Storage <object at 0x")
    net.initialize()
    param = pt.open(net)["weight"]
    assert f"<cpu(0) at {param.value.ctypes.data:#x}>" in repr(param.storage)


def test_tied_memory_of_two_parameter_objects_has_one_gradient():
    net = nn.Sequential()
    net.add(nn.Dense(3, in_units=3), nn.Dense(3, in_units=3))
    net.initialize()
    one, other = net[0].weight, net[1].weight
    other._data = [one.data().detach()]
    other._init_grad()
    assert pt.open(net).ties == (("0.weight", "1.weight"),)

    def loss(net, x):
        return (net(x) ** 2).sum()

    found = pt.gradients(net, loss, mx.nd.ones((2, 3)), per_use=True)
    assert len(found.uses["0.weight"]) == 2
    with mx.autograd.record():
        value = loss(net, mx.nd.ones((2, 3)))
    value.backward()
    total = one.grad().asnumpy() + other.grad().asnumpy()
    assert abs(found["1.weight"] - total).max() <= 1e-5 * abs(total).max()
