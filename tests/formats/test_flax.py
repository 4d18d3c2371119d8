"""Flax msgpack: values as Flax restores them, names as the live tree has them, nothing read while listing."""

from __future__ import annotations

import copy
import os
import pickle

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import paratree as pt
from paratree.core.errors import printable
from tests import weights
from tests.attacks.cases_flax import GOOD, ndarray, pack

serialization = pytest.importorskip(
    "flax.serialization", reason="Flax writes the files, and its reading is the truth"
)
import flax  # noqa: E402
import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from flax.training import checkpoints  # noqa: E402
from flax.training.train_state import TrainState  # noqa: E402


class Net(nn.Module):
    """Layers of which there are over ten, so that sorting them by name shows, and running statistics."""

    @nn.compact
    def __call__(self, x):
        for _ in range(11):
            x = nn.relu(nn.Dense(4)(x))
        return nn.BatchNorm(use_running_average=False)(x)


@pytest.fixture(scope="module")
def variables():
    return Net().init(jax.random.key(0), jnp.ones((2, 3)))


def leaves(tree, prefix=""):
    if isinstance(tree, dict):
        return {
            name: leaf
            for key, child in tree.items()
            for name, leaf in leaves(child, f"{prefix}{key}.").items()
        }
    return {prefix[:-1]: tree}


def assert_equals_live(path, live):
    """The same names, kinds, dtypes and bits as the live tree; plain numbers of the live tree are meta."""
    expected = pt.open(live)
    with pt.open(path) as tree:
        arrays = {name: param for name, param in expected.items() if not isinstance(param.handle, int)}
        assert set(tree) == set(arrays)
        for name, param in tree.items():
            assert param.kind == arrays[name].kind, name
            assert param.dtype == arrays[name].dtype, name
            assert param.aliases == arrays[name].aliases or param.kind != "parameter"
            assert param.value.tobytes() == np.asarray(arrays[name].value).tobytes(), name
            assert param.shape == arrays[name].shape


def test_variables_have_the_names_of_the_live_tree(tmp_path, variables):
    (tmp_path / "m.msgpack").write_bytes(serialization.to_bytes(variables))
    assert_equals_live(tmp_path / "m.msgpack", variables)
    tree = pt.open(tmp_path / "m.msgpack")
    assert list(tree) == list(pt.open(variables))
    assert tree["params.Dense_3.kernel"] is tree["Dense_3.kernel"]
    assert tree["batch_stats/BatchNorm_0/mean"].kind == "buffer"


def test_a_sorting_of_names_is_undone(tmp_path, variables):
    (tmp_path / "m.msgpack").write_bytes(serialization.msgpack_serialize(variables["params"]))
    children = [name for name in pt.open(tmp_path / "m.msgpack").children if name != "BatchNorm_0"]
    assert children == [f"Dense_{i}" for i in range(11)]


def test_parameters_alone(tmp_path, variables):
    (tmp_path / "m.msgpack").write_bytes(serialization.to_bytes(variables["params"]))
    assert_equals_live(tmp_path / "m.msgpack", variables["params"])


@pytest.mark.parametrize("steps", [0, 2])
def test_a_training_state(tmp_path, variables, steps):
    state = TrainState.create(
        apply_fn=None, params=variables["params"], tx=optax.chain(optax.clip(1.0), optax.adam(1e-3))
    )
    for _ in range(steps):
        state = jax.jit(lambda s: s.apply_gradients(grads=s.params))(state)
    (tmp_path / "state.msgpack").write_bytes(serialization.to_bytes(state))
    assert_equals_live(tmp_path / "state.msgpack", state)
    tree = pt.open(tmp_path / "state.msgpack")
    assert tree["opt_state.1.0.mu.Dense_0.kernel"].kind == "state"
    assert tree["params.Dense_0.kernel"].kind == "parameter"
    if steps:
        assert tree["step"].value == steps
        assert tree["step"].kind == "other"
    else:
        assert tree.meta["step"] == 0


def test_a_state_in_a_dict_beside_plain_values(tmp_path, variables):
    state = TrainState.create(apply_fn=None, params=variables["params"], tx=optax.sgd(0.1, momentum=0.9))
    target = {"model": state, "config": {"width": 4, "name": "net", "rates": [0.1, 0.2]}, "done": True}
    (tmp_path / "c.msgpack").write_bytes(serialization.to_bytes(target))
    tree = pt.open(tmp_path / "c.msgpack")
    live = pt.open({"model": state})
    assert {name: param.kind for name, param in tree.items()} == {n: p.kind for n, p in live.items()}
    assert tree.meta["config"] == {"width": 4, "name": "net", "rates": {"0": 0.1, "1": 0.2}}
    assert tree.meta["done"] is True


def test_the_checkpoint_of_a_folder_is_the_latest(tmp_path, variables):
    flax.config.update("flax_use_orbax_checkpointing", False)
    try:
        for step in (2, 10):
            scaled = jax.tree.map(lambda leaf, step=step: leaf * step, variables)
            checkpoints.save_checkpoint(tmp_path, scaled, step, keep=3)
    finally:
        flax.config.update("flax_use_orbax_checkpointing", True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_10", "checkpoint_2"]
    tree = pt.open(tmp_path)
    assert tree.source.endswith("checkpoint_10")
    np.testing.assert_array_equal(tree["Dense_0.kernel"].value, variables["params"]["Dense_0"]["kernel"] * 10)


def test_scalars_complex_numbers_and_plain_values(tmp_path):
    given = {
        "w": np.ones((2, 3), np.float16), "scalar": np.float32(2.5), "phase": 1 + 2j, "text": "hello",
        "none": None, "list": [1, -2.5, "x", True], "big": 2**63, "small": -(2**62),
        "empty": np.zeros((0, 3)),
        "bytes": b"\x00\x01", 7: np.arange(3),
    }  # fmt: skip
    (tmp_path / "m.msgpack").write_bytes(serialization.msgpack_serialize(given, in_place=True))
    tree = pt.open(tmp_path / "m.msgpack")
    assert list(tree) == ["w", "scalar", "empty", "7"]
    assert tree["scalar"].value == np.float32(2.5)
    assert tree["scalar"].shape == ()
    assert tree["empty"].shape == (0, 3)
    expected = {k: v for k, v in given.items() if k not in tree and k != 7} | {"bytes": "<2 bytes>"}
    assert tree.meta == expected


NARROW = [
    *("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e8m0fnu"),
    *("float4_e2m1fn", "float6_e2m3fn", "int4"),
]
DTYPES = (
    hnp.integer_dtypes()
    | hnp.unsigned_integer_dtypes()
    | hnp.boolean_dtypes()
    | hnp.complex_number_dtypes(sizes=(64, 128))
    | hnp.floating_dtypes(sizes=(16, 32, 64))
    | st.sampled_from([np.dtype(getattr(ml_dtypes, name)) for name in NARROW])
)


@given(
    st.recursive(
        DTYPES.flatmap(
            lambda dtype: st.builds(
                lambda values: values.astype(dtype),
                hnp.arrays(
                    np.int8, hnp.array_shapes(min_dims=0, min_side=0, max_dims=4), elements=st.integers(0, 3)
                ),
            )
        ),
        lambda child: st.dictionaries(st.text(min_size=1, max_size=9), child, max_size=4),
        max_leaves=12,
    )
)
def test_whatever_flax_writes_it_reads_equally(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("any") / "m.msgpack"
    path.write_bytes(serialization.msgpack_serialize({"root": tree}))
    expected = leaves(serialization.msgpack_restore(path.read_bytes()))
    with pt.open(path) as found:
        names = {name for name in found if "#" not in name}
        arrays = {name: leaf for name, leaf in expected.items() if not isinstance(leaf, dict)}
        assert len(found) == len(arrays) or len(leaves(tree)) != len(arrays)
        for name in names & set(arrays):
            value = found[name].value
            assert value.dtype == arrays[name].dtype
            assert value.shape == arrays[name].shape
            assert value.tobytes() == arrays[name].tobytes() or len(found) != len(names)


def test_chunked_arrays_are_assembled_and_read_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 1000)
    given = {
        "w": np.arange(2000, dtype=np.float32).reshape(40, 5, 10),
        "b": jnp.arange(700, dtype=jnp.bfloat16),
    }
    (tmp_path / "m.msgpack").write_bytes(serialization.msgpack_serialize(given))
    assert b"__msgpack_chunked_array__" in (tmp_path / "m.msgpack").read_bytes()
    tree = pt.open(tmp_path / "m.msgpack")
    assert list(tree) == ["b", "w"]
    for name, value in given.items():
        assert tree[name].shape == value.shape
        np.testing.assert_array_equal(tree[name].value, value)
    np.testing.assert_array_equal(tree["w"][7:33:5, ::-2, 3], given["w"][7:33:5, ::-2, 3])
    np.testing.assert_array_equal(tree["b"][249:251], given["b"][249:251])


def test_listing_reads_little_and_slices_too(tmp_path, monkeypatch):
    given = {f"w{i}": np.arange(1_000_000, dtype=np.float32).reshape(1000, 1000) for i in range(4)}
    (tmp_path / "m.msgpack").write_bytes(serialization.msgpack_serialize(given))
    taken = []
    preadv = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, views, at: taken.append(len(views[0])) or preadv(fd, views, at)
    )
    tree = pt.open(tmp_path / "m.msgpack")
    assert sum(taken) < 100_000
    taken.clear()
    np.testing.assert_array_equal(tree["w2"][5], given["w2"][5])
    assert sum(taken) < 10_000


def test_real_weights_equal_flax():
    path = weights.path("qlknn")
    restored = serialization.msgpack_restore(path.read_bytes())
    config = serialization.msgpack_restore(restored["config"])
    tree = pt.open(path)
    expected = leaves({"params": restored["params"]})
    assert set(tree.select(kind="parameter")) == set(expected)
    assert len(expected) == 12
    for name, value in expected.items():
        assert tree[name].value.tobytes() == value.tobytes()
        assert tree[name].shape == value.shape
    assert set(tree.select(kind="other")) == {f"config.stats_data.{name}" for name in config["stats_data"]}
    np.testing.assert_array_equal(
        tree["config.stats_data.input_max"].value, config["stats_data"]["input_max"]
    )
    assert tree.meta["version"] == restored["version"]
    assert tree.meta["config"]["network_config"] == config["network_config"]
    assert tree.meta["config"]["input_names"] == config["input_names"]


def test_what_is_only_packed_is_the_model(tmp_path):
    inner = serialization.msgpack_serialize({"kernel": np.ones((2, 3), np.float32)})
    (tmp_path / "m.bin").write_bytes(serialization.msgpack_serialize({"config": "{}", "weights": inner}))
    tree = pt.open(tmp_path / "m.bin")
    assert tree["weights.kernel"].kind == "parameter"
    assert tree.meta == {"config": "{}"}


def test_bytes_that_only_begin_as_msgpack_stay_bytes(tmp_path):
    (tmp_path / "m.bin").write_bytes(serialization.msgpack_serialize({"w": np.ones(2), "more": GOOD[:-1]}))
    tree = pt.open(tmp_path / "m.bin")
    assert tree.meta["more"] == f"<{len(GOOD) - 1} bytes>"
    assert any("more begins as msgpack and is none" in note for note in tree.notes)


def test_one_name_for_two_leaves_is_told_apart(tmp_path):
    given = {"a": {"b": np.ones(1)}, "a.b": np.zeros(2)}
    (tmp_path / "m.msgpack").write_bytes(serialization.to_bytes(given))
    tree = pt.open(tmp_path / "m.msgpack")
    assert {name: param.shape for name, param in tree.items()} == {"a.b": (1,), "a.b#2": (2,)}
    assert any("two leaves are called a.b" in note for note in tree.notes)


def test_a_type_that_numpy_has_not_is_listed(tmp_path):
    (tmp_path / "m.msgpack").write_bytes(pack({"w": ndarray([1], "str32", bytes(4))}))
    param = pt.open(tmp_path / "m.msgpack")["w"]
    assert (param.shape, param.dtype) == ((1,), "str32")
    with pytest.raises(pt.UnreadableError, match="str32"):
        _ = param.value
    assert printable(param.array.problem)


# What is written, read back by Flax


def training_state(tx, value):
    params = {"dense": {"kernel": jnp.full((2, 3), value), "bias": jnp.zeros(3)}}
    return TrainState.create(apply_fn=len, params=params, tx=tx)


def assert_same_objects(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def assert_same_file(ours, theirs):
    """The same maps, plain values of the same types, arrays of the same bits."""
    found, expected = (serialization.msgpack_restore(path.read_bytes()) for path in (ours, theirs))
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        assert type(found[path]) is type(value), path
        np.testing.assert_array_equal(found[path], value, strict=True)


def flat(node, path=()):
    if not isinstance(node, dict) or not node:
        return {path: node}
    return {
        place: leaf for key, child in node.items() for place, leaf in flat(child, (*path, str(key))).items()
    }


OPTIMIZERS = {
    "adam": optax.adam(1e-3),
    "chain": optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9), optax.identity()),
    "masked": optax.masked(optax.adam(1e-3), {"dense": {"kernel": True, "bias": False}}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_flax_restores_a_live_training_state(name, tmp_path):
    state, empty = (training_state(OPTIMIZERS[name], value) for value in (1.0, 0.0))
    if name != "masked":
        state = state.apply_gradients(grads=state.params)
    saved = pt.save(state, tmp_path / "s.msgpack", verify=True)
    assert saved.notes == ()
    assert_same_objects(serialization.from_bytes(empty, (tmp_path / "s.msgpack").read_bytes()), state)
    part = pt.open(state)["opt_state"]
    assert pickle.loads(pickle.dumps(part.meta)) == part.meta == {}
    assert part.meta.get("1") is None
    assert pt.save(part, tmp_path / "part.msgpack").notes == ()
    data = (tmp_path / "part.msgpack").read_bytes()
    assert_same_objects(serialization.from_bytes(empty.opt_state, data), state.opt_state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_file_of_flax_is_rewritten_whole(name, tmp_path):
    state, empty = (training_state(OPTIMIZERS[name], value) for value in (1.0, 0.0))
    (tmp_path / "own.msgpack").write_bytes(serialization.to_bytes(state))
    saved = pt.save(tmp_path / "own.msgpack", tmp_path / "ours.msgpack", verify=True)
    assert saved.notes == ()
    assert_same_file(tmp_path / "ours.msgpack", tmp_path / "own.msgpack")
    assert_same_objects(serialization.from_bytes(empty, (tmp_path / "ours.msgpack").read_bytes()), state)


def test_lists_with_nothing_and_numbers_in_them(tmp_path):
    given = [jnp.ones(2), (jnp.zeros(3), {"a": jnp.ones(1)}), None, 3, 2.5, True, -(2**40), "text", [], ()]
    template = [jnp.zeros(2), (jnp.ones(3), {"a": jnp.zeros(1)}), None, 0, 0.0, False, 0, "", [], ()]
    (tmp_path / "own.msgpack").write_bytes(serialization.to_bytes(given))
    for source in (given, tmp_path / "own.msgpack"):
        assert pt.save(source, tmp_path / "ours.msgpack", force=True).notes == ()
        assert_same_file(tmp_path / "ours.msgpack", tmp_path / "own.msgpack")
        found = serialization.from_bytes(template, (tmp_path / "ours.msgpack").read_bytes())
        assert_same_objects(found, given)
        assert found[2:] == given[2:]


def test_variables_with_an_empty_collection_and_numbers(tmp_path):
    given = {"params": {"a": {"w": jnp.ones(2)}, "none": {}}, "batch_stats": {}, "cache": {"a": {"index": 3}}}
    (tmp_path / "own.msgpack").write_bytes(serialization.to_bytes(given))
    for source in (given, tmp_path / "own.msgpack"):
        pt.save(source, tmp_path / "ours.msgpack", force=True)
        found = serialization.from_bytes(given, (tmp_path / "ours.msgpack").read_bytes())
        assert_same_objects(found, given)


PLAIN = {
    "w": np.ones((2, 3), np.float16), "phase": 1 - 2j, "text": "ü" * 300,
    "list": [1, -2.5, "x", None, [], {}], "nan": float("inf"),
    "big": 2**64 - 1, "large": 2**40, "small": -(2**63), "bytes": b"\x00\x01" * 99, "none": None,
    "numbers": {"a": 200, "b": 70_000, "c": 2**32 - 1, "d": False}, "empty": {}, "nothing": [],
}  # fmt: skip


def test_every_plain_value_is_rewritten(tmp_path):
    (tmp_path / "own.msgpack").write_bytes(serialization.msgpack_serialize(PLAIN, in_place=True))
    assert pt.save(tmp_path / "own.msgpack", tmp_path / "ours.msgpack", verify=True).notes == ()
    found, own = (
        serialization.msgpack_restore((tmp_path / f"{n}.msgpack").read_bytes()) for n in ("ours", "own")
    )
    assert found.pop("w").tobytes() == own.pop("w").tobytes()
    assert found == own
    with pt.open(tmp_path / "own.msgpack") as tree:
        assert pickle.loads(pickle.dumps(tree.meta)) == tree.meta == copy.deepcopy(tree.meta)


def test_a_dry_run_counts_plain_values_and_bytes(tmp_path):
    (tmp_path / "own.msgpack").write_bytes(serialization.msgpack_serialize(PLAIN, in_place=False))
    dry = pt.save(tmp_path / "own.msgpack", tmp_path / "ours.msgpack", dry_run=True)
    assert dry.nbytes == pt.save(tmp_path / "own.msgpack", tmp_path / "ours.msgpack").nbytes


def test_what_is_packed_stays_packed_unless_it_is_cast(tmp_path):
    inner = {"stats": {"mean": np.ones(3, np.float32)}, "names": ["a", "b"], "raw": b"\x01\x02"}
    packed = serialization.msgpack_serialize(inner)
    own = serialization.msgpack_serialize(
        {"params": {"w": np.zeros(2)}, "config": packed, "plain": packed[:0]}
    )
    (tmp_path / "own.msgpack").write_bytes(own)
    pt.save(tmp_path / "own.msgpack", tmp_path / "ours.msgpack", verify=True)
    assert_same_file(tmp_path / "ours.msgpack", tmp_path / "own.msgpack")
    saved = pt.save(tmp_path / "own.msgpack", tmp_path / "half.msgpack", dtype="float16")
    assert saved.notes == ()
    found = serialization.msgpack_restore((tmp_path / "half.msgpack").read_bytes())
    assert found["config"].pop("stats")["mean"].dtype == np.float16
    assert found["config"] == {"names": ["a", "b"], "raw": b"\x01\x02"}


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.rename({"params.**": "weights.**"}),
        lambda tree: tree.drop("opt_state.**"),
        lambda tree: tree.select("params.**"),
    ],
)
def test_values_that_have_lost_their_places_are_left_out_and_that_is_said(change, tmp_path):
    state = training_state(optax.adam(1e-3), 1.0)
    (tmp_path / "own.msgpack").write_bytes(serialization.to_bytes(state))
    saved = pt.save(change(pt.open(tmp_path / "own.msgpack")), tmp_path / "ours.msgpack")
    (note,) = saved.notes
    assert note == (
        "a part of a pytree, or one with other names, has no places for plain values and empty containers, "
        "left out: step, opt_state.1"
    )
    assert "step" not in serialization.msgpack_restore((tmp_path / "ours.msgpack").read_bytes())


@pytest.mark.parametrize(
    "value", [2**64, -(2**63) - 1, "\ud800", {"\ud800": None}, {"__msgpack_chunked_array__": 1}]
)
def test_a_plain_value_that_msgpack_cannot_hold_is_left_out(value, tmp_path):
    given = {"w": jnp.ones(2), "strange": value, "kept": 1}
    (note,) = pt.save(given, tmp_path / "m.msgpack").notes
    assert note == "msgpack has no place for it, left out: strange" or note.startswith(
        "msgpack has no place for it, left out: strange."
    )
    assert pt.open(tmp_path / "m.msgpack").meta == {"kept": 1}


def test_what_would_stand_in_the_place_of_an_array_is_left_out(tmp_path):
    given = {"a.b": np.ones(1), "a": 3, "c.d": np.ones(2), "c": {"d": {"e": 4}}, "kept": 5}
    (tmp_path / "own.msgpack").write_bytes(serialization.to_bytes(given))
    (note,) = pt.save(tmp_path / "own.msgpack", tmp_path / "ours.msgpack").notes
    assert note == "msgpack has no place for it, left out: a, c.d.e"
    assert pt.open(tmp_path / "ours.msgpack").meta == {"kept": 5}
