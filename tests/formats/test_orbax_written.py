"""Orbax checkpoints written without Orbax: Orbax restores them bit for bit, and so do we."""

from __future__ import annotations

import subprocess
import sys

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.formats import orbax
from tests.verbs.held import held, tree_of

KEYS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/."), min_size=1, max_size=8
)


def every_dtype():
    rng = np.random.default_rng(0)
    arrays = {
        f"layers.{name}": bits_of(rng.bytes(6 * BITS[name] // 8), name, (2, 3)) for name in orbax.WRITES
    }
    return arrays | {
        "scalar": np.array(3.5, np.float32),
        "ü b": np.arange(8.0).reshape(2, 2, 2),
        "d": np.ones(1),
    }


def bits_of(data, dtype, shape):
    raw = np.frombuffer(data, np.uint8)
    return (raw & 1 if dtype == "bool" else raw).view(numpy_dtype(dtype)).reshape(shape)


def tree_with(arrays):
    return tree_of(*map(held, arrays, arrays.values()))


def flat(restored, path=()):
    if not isinstance(restored, dict):
        return {".".join(path): restored}
    return {
        name: value for key, below in restored.items() for name, value in flat(below, (*path, key)).items()
    }


@pytest.mark.parametrize("reader", ["StandardCheckpointer", "PyTreeCheckpointer"])
def test_orbax_restores_every_dtype(reader, tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint", reason="Orbax reads its checkpoints")
    arrays = every_dtype()
    pt.save(tree_with(arrays), tmp_path / "c", format="orbax", verify=True)
    with getattr(ocp, reader)() as checkpointer:
        restored = flat(checkpointer.restore(tmp_path / "c"))
    assert restored.keys() == arrays.keys()
    for name, values in arrays.items():
        assert (restored[name].dtype, restored[name].shape) == (values.dtype, values.shape)
        assert restored[name].tobytes() == values.tobytes()


def test_orbax_restores_into_arrays_of_jax(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint", reason="Orbax reads its checkpoints")
    jax = pytest.importorskip("jax", reason="the arrays are of JAX")
    arrays = {"a.w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, numpy_dtype("bfloat16"))}
    pt.save(tree_with(arrays), tmp_path / "c", format="orbax")
    empty = {name: jax.numpy.zeros(values.shape, values.dtype) for name, values in arrays.items()}
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(tmp_path / "c", {"a": {"w": empty["a.w"]}, "b": empty["b"]})
    assert isinstance(found["b"], jax.Array)
    assert np.asarray(found["a"]["w"]).tobytes() == arrays["a.w"].tobytes()
    assert np.asarray(found["b"]).tobytes() == arrays["b"].tobytes()


def test_variables_of_flax_come_back(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint", reason="Orbax reads its checkpoints")
    nn = pytest.importorskip("flax.linen", reason="the model is one of Flax")
    import jax

    net = nn.Sequential([nn.Dense(4), nn.Dense(2)])
    variables = net.init(jax.random.key(0), np.ones((1, 3)))
    pt.save(variables, tmp_path / "c", format="orbax", verify=True)
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "c", variables)
    assert jax.tree.structure(restored) == jax.tree.structure(variables)
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, variables))


@given(st.data())
@settings(max_examples=60)
def test_what_is_written_is_read_back(tmp_path_factory, data):
    paths = data.draw(st.lists(st.lists(KEYS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=5))
    paths = list(dict.fromkeys(paths))
    assume(not any(one != other and one == other[: len(one)] for one in paths for other in paths))
    arrays = {}
    for path in paths:
        dtype = data.draw(st.sampled_from(orbax.WRITES))
        shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4))
        size = int(np.prod(shape)) * BITS[dtype] // 8
        arrays[".".join(path)] = bits_of(data.draw(st.binary(min_size=size, max_size=size)), dtype, shape)
    folder = tmp_path_factory.mktemp("saved") / "c"
    saved = pt.save(tree_with(arrays), folder, format="orbax")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(saved.files) == sorted(map(str, files))
    assert saved.nbytes == sum(file.stat().st_size for file in files)
    with pt.open(folder) as found:
        assert saved.notes or set(found) == set(arrays)
        for name, values in arrays.items() if not saved.notes else ():
            assert (found[name].dtype, found[name].shape) == (values.dtype.name, values.shape)
            assert found[name].value.tobytes() == values.tobytes()


def test_neither_orbax_nor_tensorstore_is_needed(tmp_path):
    code = (
        "import sys, numpy as np, paratree as pt; np.savez(sys.argv[1] + '.npz', w=np.ones(3))\n"
        "pt.save(sys.argv[1] + '.npz', sys.argv[1], format='orbax', verify=True)\n"
        "assert not {'orbax', 'tensorstore', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "c"], check=True)
    assert pt.open(tmp_path / "c")["w"].value.tolist() == [1, 1, 1]


def test_names_that_reading_takes_for_levels_of_flax_are_said(tmp_path):
    tree = tree_with({"params.a.w": np.ones(2)})
    would = pt.save(tree, tmp_path / "c", format="orbax", dry_run=True)
    saved = pt.save(tree, tmp_path / "c", format="orbax")
    assert (
        would.notes
        == saved.notes
        == ("opened again, names are others, as those of Flax's own trees: params.a.w",)
    )
    assert list(pt.open(tmp_path / "c")) == ["a.w"]
    boxed = tree_with({"a.value": np.ones(2), "b.value": np.ones(2)})
    assert pt.save(boxed, tmp_path / "d", format="orbax").notes[0].endswith(": a.value, b.value")


def test_metadata_are_said_to_be_left_and_values_are_counted(tmp_path):
    tree, done = tree_with({"w": np.ones(5), "b": np.ones((2, 3), np.float16)}), []
    tree.meta["epoch"] = 3
    saved = pt.save(tree, tmp_path / "c", format="orbax", progress=lambda *counts: done.append(counts))
    assert saved.notes == ("metadata are not written, left out: epoch",)
    assert done[-1] == (52, 52)


@pytest.mark.parametrize(
    ("names", "fact"),
    [
        (["a/b"], "'a/b' cannot be a folder's name"),
        (["../../tmp/a"], "cannot be a folder's name"),
        ([".."], "cannot be a folder's name"),
        (["a..b"], "cannot be a folder's name"),
        (["_METADATA"], "cannot be a folder's name"),
        (["a\0"], "cannot be a folder's name"),
        (["\udc80"], "cannot be a folder's name"),
        (["a" * 256], "cannot be a folder's name"),
        (["a", "a.b.c"], "'a' is a parameter, and 'a.b.c' lies below it, and Orbax nests names"),
        ([], "no parameters, and Orbax saves no empty tree"),
    ],
)
def test_names_that_are_refused(names, fact, tmp_path):
    tree = tree_with({name: np.ones(2) for name in names})
    for dry_run in (True, False):
        with pytest.raises(pt.UnsupportedError, match=fact):
            pt.save(tree, tmp_path / "c", format="orbax", dry_run=dry_run)
    assert list(tmp_path.iterdir()) == []


def test_names_are_those_in_the_part_that_is_saved(tmp_path):
    part = tree_of(**{"m.a": np.ones(2, "f4"), "m.a.b": np.ones(2, "f4")})["m"]
    with pytest.raises(pt.UnsupportedError, match=r"'a' is a parameter, and 'a\.b' lies below it"):
        pt.save(part, tmp_path / "c", format="orbax")


def test_arrays_without_values_are_refused(tmp_path):
    for dry_run in (True, False):
        with pytest.raises(
            pt.UnsupportedError, match="'w' has no values, which Orbax does not save; drop it"
        ):
            pt.save(tree_with({"w": np.ones((0, 3))}), tmp_path / "c", format="orbax", dry_run=dry_run)


def test_an_older_checkpoint_is_replaced_also_one_of_orbax_itself(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint", reason="Orbax writes checkpoints")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "c", {"w": np.ones(300), "deep": {"b": np.zeros(2)}})
    for _ in range(2):
        pt.save(tree_with({"w": np.zeros(3)}), tmp_path / "c", format="orbax", force=True)
        assert {name: p.value.tolist() for name, p in pt.open(tmp_path / "c").items()} == {"w": [0, 0, 0]}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_checkpoint_with_anything_else_in_it_is_not_replaced(tmp_path):
    tree = tree_with({"w": np.zeros(3)})
    pt.save(tree, tmp_path / "c", format="orbax")
    for name in ("notes.txt", "w/notes", "5/_METADATA"):
        (tmp_path / "c" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "c" / name).write_bytes(b"precious")
        with pytest.raises(pt.MismatchError, match=f"{name} in it is no file of one; only a checkpoint of"):
            pt.save(tree, tmp_path / "c", format="orbax", force=True)
        assert (tmp_path / "c" / name).read_bytes() == b"precious"
        (tmp_path / "c" / name).unlink()
