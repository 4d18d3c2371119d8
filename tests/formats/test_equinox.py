"""Equinox .eqx: every leaf in order, as Equinox reads it; hyperparameters; what the format does not keep."""

from __future__ import annotations

import json

import numpy as np
import pytest

import paratree as pt

eqx = pytest.importorskip("equinox", reason="Equinox writes the files, and its reading is the truth")
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

HYPERPARAMETERS = {"in_size": 2, "out_size": 3, "width_size": 8, "depth": 2}


class Mixed(eqx.Module):
    """Leaves of every kind that Equinox saves, and some that it does not."""

    weight: jax.Array
    half: jax.Array
    numpy: np.ndarray
    flag: bool = True
    number: int = 7
    rate: float = 0.5
    phase: complex = 1 + 2j
    name: str = "not saved"
    nothing: None = None


def mixed():
    return Mixed(
        jnp.arange(6.0).reshape(2, 3),
        jnp.array([1, 2.5], jnp.bfloat16),
        np.arange(4, dtype=">i2").reshape(2, 2),
    )


def saved_leaves(model):
    kinds = (jax.Array, np.ndarray, bool, int, float, complex)
    return [leaf for leaf in jax.tree_util.tree_leaves(model) if isinstance(leaf, kinds)]


def test_a_model_equals_its_leaves_in_order(tmp_path):
    model = eqx.nn.MLP(**HYPERPARAMETERS, key=jax.random.key(0))
    eqx.tree_serialise_leaves(tmp_path / "m.eqx", model)
    leaves = saved_leaves(eqx.tree_deserialise_leaves(tmp_path / "m.eqx", model))
    with pt.open(tmp_path / "m.eqx") as tree:
        assert tree.format == "Equinox"
        assert list(tree) == [str(i) for i in range(len(leaves))]
        assert len(leaves) == 6
        for param, leaf in zip(tree.values(), leaves, strict=True):
            assert param.value.dtype == leaf.dtype
            np.testing.assert_array_equal(param.value, leaf)
            np.testing.assert_array_equal(param[..., 1:], leaf[..., 1:])
        assert any("keeps no names" in note for note in tree.notes)
        assert tree.size == sum(leaf.size for leaf in leaves)


def test_every_kind_of_leaf(tmp_path):
    model = mixed()
    eqx.tree_serialise_leaves(tmp_path / "m.eqx", model)
    tree = pt.open(tmp_path / "m.eqx")
    leaves = saved_leaves(model)
    assert len(tree) == len(leaves) == 7
    for param, leaf in zip(tree.values(), leaves, strict=True):
        assert param.shape == np.shape(leaf)
        np.testing.assert_array_equal(param.value, leaf)
    assert tree["1"].dtype == "bfloat16"
    assert [param.kind for param in tree.values()] == [
        "parameter", "parameter", "buffer", "buffer", "buffer", "parameter", "parameter",
    ]  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"note": "x" * 9000}, {"a": {"b": [1, 2.5, None]}}])
def test_a_line_of_hyperparameters_is_meta(tmp_path, more):
    model, given = eqx.nn.Linear(2, 3, key=jax.random.key(1)), HYPERPARAMETERS | more
    with (tmp_path / "m.eqx").open("wb") as file:
        file.write((json.dumps(given) + "\n").encode())
        eqx.tree_serialise_leaves(file, model)
    tree = pt.open(tmp_path / "m.eqx")
    assert tree.meta == given
    np.testing.assert_array_equal(tree["0"].value, model.weight)
    np.testing.assert_array_equal(tree["1"].value, model.bias)


@pytest.mark.parametrize("suffix", ["eqx", "bin", "npy", "json"])
def test_the_bytes_tell_it_whatever_its_suffix(tmp_path, suffix):
    with (tmp_path / f"m.{suffix}").open("wb") as file:
        eqx.tree_serialise_leaves(file, eqx.nn.Linear(2, 3, key=jax.random.key(1)))
    assert pt.open(tmp_path / f"m.{suffix}").format == "Equinox"


def test_one_leaf_alone_is_told_from_npy_by_the_suffix(tmp_path):
    eqx.tree_serialise_leaves(tmp_path / "m.eqx", jnp.ones(3))
    (tmp_path / "m.npy").write_bytes((tmp_path / "m.eqx").read_bytes())
    assert pt.open(tmp_path / "m.eqx").format == "Equinox"
    assert pt.open(tmp_path / "m.npy").format == "NumPy npy"


def test_float8_has_no_name_in_the_file(tmp_path):
    model = (jnp.ones(3, jnp.float8_e4m3fn), jnp.ones(2))
    eqx.tree_serialise_leaves(tmp_path / "m.eqx", model)
    tree = pt.open(tmp_path / "m.eqx")
    with pytest.raises(pt.UnreadableError, match="void type"):
        _ = tree["0"].value
    np.testing.assert_array_equal(tree["1"].value, model[1])
