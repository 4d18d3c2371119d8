"""Orbax: every layout bit for bit as Orbax restores it; live names; steps; links, databases and bombs."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import paratree as pt
from paratree.core.dtypes import numpy_dtype
from paratree.files.crc32c import checksum
from paratree.formats import _zstd
from tests.attacks.cases_orbax import (
    BYTES,
    DATA,
    folder,
    folder3,
    leaf,
    metadata,
    shard,
    sharded,
    step,
    zarr3,
    zarray,
)
from tests.formats.orbax_checkpoints import LAYOUTS

ocp = pytest.importorskip(
    "orbax.checkpoint", reason="Orbax writes the checkpoints, and its reading is the truth"
)
import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
import tensorstore  # noqa: E402
from flax import nnx  # noqa: E402
from flax.training.train_state import TrainState  # noqa: E402


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("orbax")
    command = [sys.executable, "-m", "tests.formats.orbax_checkpoints", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return root


def save(path, tree):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def put(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_equals_what_orbax_restores(written, layout):
    expected = json.loads((written / f"{layout}.json").read_text(encoding="utf-8"))
    with pt.open(written / layout) as tree:
        assert set(tree) == set(expected)
        assert len(tree) == 24
        for name, restored in expected.items():
            value = tree[name].value
            if not isinstance(restored, list):
                assert value.shape == ()
                assert value == restored
                continue
            dtype, shape, data = restored
            assert tree[name].dtype == dtype, name
            assert tree[name].shape == value.shape == tuple(shape), name
            assert value.dtype == numpy_dtype(dtype), name
            assert np.ascontiguousarray(value).tobytes() == base64.b64decode(data), name
        assert tree.meta["word"] == "hello"
        assert tree["random"].kind == tree["tuple.1"].kind == "other"
        assert tree["params.Dense_0.kernel"].kind == "parameter"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_part_of_a_sharded_array_is_read(written, layout):
    tree = pt.open(written / layout)
    param = tree["params.Dense_0.kernel"]
    for index in (
        5,
        (slice(None), 3),
        (slice(1, 11, 3), slice(None, None, -2), 1),
        (..., 2),
        (11, 7, 2),
        slice(6, 6),
    ):
        np.testing.assert_array_equal(param[index], param.value[index])


def test_numbers_in_sorted_names_are_in_order(written):
    names = [name for name in pt.open(written / "files-zarr2") if name.startswith("params")]
    assert [name.split(".")[1] for name in names] == ["Dense_0"] * 2 + ["Dense_2"] + ["Dense_10"] * 2


def assert_equals_live(tree, live):
    expected = pt.open(live)
    assert set(tree) == set(expected)
    for name, param in tree.items():
        if not expected[name].dtype.startswith("key<"):
            assert param.kind == expected[name].kind, name
            np.testing.assert_array_equal(param.value, expected[name].value)


class Net(nn.Module):
    """Parameters and running statistics."""

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(nn.Dense(4)(x))


@pytest.fixture(scope="module")
def variables():
    return Net().init(jax.random.key(0), jnp.ones((2, 3)))


def test_variables_have_the_names_of_the_live_tree(tmp_path, variables):
    save(tmp_path / "m", variables)
    tree = pt.open(tmp_path / "m")
    assert_equals_live(tree, variables)
    assert tree["params.Dense_0.kernel"] is tree["Dense_0.kernel"]
    assert tree["BatchNorm_0.mean"].kind == "buffer"


def test_a_training_state_has_the_names_of_the_live_one(tmp_path, variables):
    state = TrainState.create(
        apply_fn=None, params=variables["params"], tx=optax.chain(optax.clip(1.0), optax.adam(1e-3))
    )
    save(tmp_path / "m", state)
    tree = pt.open(tmp_path / "m")
    assert_equals_live(tree, state)
    assert list(tree)[:2] == ["step", "params.BatchNorm_0.bias"]
    assert tree["opt_state.1.0.mu.Dense_0.kernel"].kind == "state"


def test_an_nnx_state_has_the_names_of_the_live_one(tmp_path):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.linear, self.norm = nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    model = Model(nnx.Rngs(0))
    save(tmp_path / "m", nnx.state(model))
    tree, live = pt.open(tmp_path / "m"), pt.open(model)
    assert {name: param.kind for name, param in tree.items()} == {
        name: param.kind for name, param in live.items()
    }
    np.testing.assert_array_equal(tree["linear.kernel.value"].value, model.linear.kernel[...])


def test_of_a_manager_the_last_step_is_opened(tmp_path, variables):
    with ocp.CheckpointManager(tmp_path, options=ocp.CheckpointManagerOptions(max_to_keep=3)) as manager:
        for number in (0, 9, 10):
            scaled = jax.tree.map(lambda leaf, number=number: leaf * number, variables)
            manager.save(number, args=ocp.args.StandardSave(scaled), metrics={"loss": 0.5})
    tree = pt.open(tmp_path)
    assert "/10/" in tree.source
    assert "this is step 10; beside it: 0, 9" in tree.notes
    np.testing.assert_array_equal(tree["Dense_0.kernel"].value, variables["params"]["Dense_0"]["kernel"] * 10)
    np.testing.assert_array_equal(pt.open(tmp_path / "9")["BatchNorm_0.var"].value, np.full(4, 9.0))
    assert_equals_live(pt.open(tmp_path / "9" / "default"), jax.tree.map(lambda leaf: leaf * 9, variables))


def test_items_beside_each_other(tmp_path, variables):
    with ocp.CheckpointManager(tmp_path, item_names=("net", "ema", "facts")) as manager:
        half = jax.tree.map(lambda leaf: leaf / 2, variables)
        items = ocp.args.Composite(
            net=ocp.args.StandardSave(variables),
            ema=ocp.args.StandardSave(half),
            facts=ocp.args.JsonSave({"epoch": 3}),
        )
        manager.save(5, args=items)
    tree = pt.open(tmp_path)
    assert tree.meta["facts"] == {"epoch": 3}
    assert_equals_live(tree["net"], variables)
    assert_equals_live(tree["ema"], half)
    assert tree["ema.params.Dense_0.kernel"] is tree["ema.Dense_0.kernel"]


def test_an_unfinished_save_is_said_to_be_one(tmp_path, variables):
    save(tmp_path / "m", variables)
    (tmp_path / "m").rename(tmp_path / "m.orbax-checkpoint-tmp")
    assert any("was not finished" in note for note in pt.open(tmp_path / "m.orbax-checkpoint-tmp").notes)
    (tmp_path / "m.orbax-checkpoint-tmp" / "_METADATA").unlink()
    with pytest.raises(pt.CorruptFileError, match="was not finished"):
        pt.open(tmp_path / "m.orbax-checkpoint-tmp")


def test_metadata_of_the_user_is_meta(tmp_path, variables):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "m", args=ocp.args.PyTreeSave(variables, custom_metadata={"run": 7}))
    assert pt.open(tmp_path / "m").meta["custom_metadata"] == {"run": 7}


def test_without_tensorstore_files_are_listed_and_a_database_says_what_to_install(written, absent):
    absent("tensorstore")
    for layout in LAYOUTS:
        if layout.startswith("ocdbt"):
            with pytest.raises(pt.MissingPackageError, match=r"pip install 'paratree\[orbax\]'") as caught:
                pt.open(written / layout)
            assert str(written / layout) in str(caught.value)
        else:
            tree = pt.open(written / layout)
            assert tree["params.Dense_0.kernel"].shape == (12, 8, 3)
            with pytest.raises(pt.MissingPackageError, match=r"pip install 'paratree\[orbax\]'"):
                _ = tree["params.Dense_0.kernel"].value


def test_listing_files_imports_neither_numpy_nor_tensorstore(written):
    code = f"import paratree, sys; paratree.open({str(written / 'files-zarr3')!r}); print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert not {"numpy", "tensorstore", "jax", "orbax"} & loaded


# What is not stored


@pytest.mark.parametrize(
    "flag", [{"store_array_data_equal_to_fill_value": False}, {"store_array_data_equal_to_fill_value": None}]
)
def test_chunks_that_need_not_be_stored_are_zero(tmp_path, flag):
    files = folder(metadata(**flag), zarray(shape=[10], dtype="<f4"), None, w_1=DATA)
    tree = pt.open(put(tmp_path / "m", files))
    assert tree["w"].value.tolist() == [0.0] * 4 + np.frombuffer(DATA, "<f4").tolist() + [0.0] * 2
    assert tree["w"][5:9].tolist() == [*np.frombuffer(DATA, "<f4")[1:].tolist(), 0.0]


def test_a_chunk_that_must_be_stored_and_is_not_is_an_error(written, tmp_path):
    shutil.copytree(written / "files-zarr2", tmp_path / "m")
    (tmp_path / "m" / "params.Dense_0.kernel" / "1.1.0").unlink()
    with pytest.raises(pt.CorruptFileError, match=r"params\.Dense_0\.kernel\): its chunk 1\.1\.0 is missing"):
        pt.open(tmp_path / "m")


def test_byte_orders_of_both_versions(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    big = [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "crc32c"}]
    data = values[:2].astype(">f4").tobytes() + values[2:].astype(">f4").tobytes() + bytes(16)
    chunks = [data[:32], data[32:]]
    crc = [chunk + checksum(chunk).to_bytes(4, "little") for chunk in chunks]
    fortran = np.vstack([values, np.zeros((1, 4), np.float32)]).reshape(2, 2, 4)
    two = {
        "_METADATA": metadata(), "w/.zarray": zarray(shape=[3, 4], chunks=[2, 4], dtype=">f4", order="F"),
        "w/0.0": np.asfortranarray(fortran[0]).astype(">f4").tobytes("F"),
        "w/1.0": np.asfortranarray(fortran[1]).astype(">f4").tobytes("F"),
    }  # fmt: skip
    three = {
        "_METADATA": metadata(use_zarr3=True), "w/zarr.json": zarr3(big, [2, 4], shape=[3, 4]),
        "w/c/0/0": crc[0], "w/c/1/0": crc[1],
    }  # fmt: skip
    for name, files in (("two", two), ("three", three)):
        np.testing.assert_array_equal(pt.open(put(tmp_path / name, files))["w"].value, values)


def test_a_shard_with_a_hole_is_zero_there(tmp_path):
    files = folder3(sharded(), shard((2**64 - 1, 2**64 - 1), (8, 8)))
    assert pt.open(put(tmp_path / "m", files))["w"].value.tolist() == [
        0.0,
        0.0,
        *np.frombuffer(DATA[8:], "<f4"),
    ]


# Links, databases that lead out of the folder, bombs


@pytest.mark.parametrize("layout", ["ocdbt-zarr2", "files-zarr3"])
def test_no_link_is_followed(written, tmp_path, layout):
    shutil.copytree(written / layout, tmp_path / "m")
    target = next(
        path
        for path in sorted((tmp_path / "m").rglob("*"))
        if path.is_file() and path.parent.name in ("d", "c")
    )
    target.rename(tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(pt.UnsafeFileError, match=r"a symbolic link is in the checkpoint.*cp -rL"):
        pt.open(tmp_path / "m")


@pytest.mark.parametrize("place", ["", "../"])
def test_a_database_gets_no_file_but_its_own(tmp_path, place):
    """The manifest names its data by paths; another of the same length may lead anywhere."""
    save(tmp_path / "m", {"w": jnp.arange(6.0)})
    data = next((tmp_path / "m" / "d").iterdir())
    other = place + "x" * (len(f"d/{data.name}") - len(place))
    manifest = (tmp_path / "m" / "manifest.ocdbt").read_bytes()
    changed = manifest[:-4].replace(f"d/{data.name}".encode(), other.encode())
    assert changed != manifest[:-4], "the path lies in the open"
    data.rename(tmp_path / "m" / other)
    (tmp_path / "m" / "manifest.ocdbt").write_bytes(changed + checksum(changed).to_bytes(4, "little"))
    if not place:
        spec = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{tmp_path}/m/"}}
        assert b"w/.zarray" in tensorstore.KvStore.open(spec).result().list().result(), "others follow it"
    with pytest.raises(pt.CorruptFileError, match="tensorstore cannot read the database") as caught:
        pt.open(tmp_path / "m")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "part", ["manifest.ocdbt", "d/*", "ocdbt.process_0/d/*", "ocdbt.process_0/manifest.ocdbt"]
)
def test_a_damaged_database_is_an_error_or_reads(written, tmp_path, part):
    shutil.copytree(written / "ocdbt-zarr2", tmp_path / "m")
    for path in list((tmp_path / "m").glob(part))[:2]:
        good = path.read_bytes()
        for place in range(0, len(good), max(len(good) // 40, 1)):
            for bad in (good[:place], good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :]):
                path.write_bytes(bad)
                try:
                    with pt.open(tmp_path / "m") as tree:
                        _ = tree["params.Dense_0.kernel"].value, tree["zeros"].value
                except pt.ParatreeError as error:
                    assert str(error).isprintable()
        path.write_bytes(good)


@pytest.mark.parametrize("layout", ["files-zarr2", "files-zarr3"])
@pytest.mark.parametrize("part", ["params.Dense_0.kernel/*", "params.Dense_0.kernel/c/0/0/0"])
def test_damaged_files_are_an_error_or_read(written, tmp_path, layout, part):
    shutil.copytree(written / layout, tmp_path / "m")
    for path in [path for path in sorted((tmp_path / "m").glob(part)) if path.is_file()][:2]:
        good = path.read_bytes()
        for place in range(len(good)):
            for bad in (
                good[:place],
                good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :],
            ):
                path.write_bytes(bad)
                try:
                    with pt.open(tmp_path / "m") as tree:
                        param = tree["params.Dense_0.kernel"]
                        assert param.array.problem or param.value.shape == param.shape
                except pt.ParatreeError as error:
                    assert str(error).isprintable()
        path.write_bytes(good)


def frame(*blocks, header=b"\x28\xb5\x2f\xfd\x00\x58"):
    """A zstd frame of blocks: (kind, size, bytes)."""
    parts = []
    for i, (kind, size, data) in enumerate(blocks):
        parts.append((size << 3 | kind << 1 | (i == len(blocks) - 1)).to_bytes(3, "little") + data)
    return header + b"".join(parts)


ZSTD = {"id": "zstd", "level": 1}


def test_zstd_frames_are_what_they_say(tmp_path):
    data = frame((0, 8, DATA[:8]), (1, 8, b"\x01"))
    files = folder(array=zarray(compressor=ZSTD, dtype="|u1", shape=[16], chunks=[16]), chunk=data)
    assert pt.open(put(tmp_path / "m", files))["w"].value.tolist() == [*DATA[:8], *[1] * 8]


@pytest.mark.parametrize(
    ("chunk", "error", "reason"),
    [
        (
            frame(*[(1, 1 << 17, b"\0")] * 4000),
            pt.UnsafeFileError,
            "would decompress to as many as 524288000",
        ),
        (frame((0, 8, DATA[:8])), pt.CorruptFileError, "cannot decompress to the 16"),
        (frame((0, 16, DATA[:8])), pt.CorruptFileError, "cut short"),
        (frame((3, 16, DATA)), pt.CorruptFileError, "broken off"),
        (frame((0, 16, DATA))[:7], pt.CorruptFileError, "broken off"),
        (frame((0, 1 << 18, DATA)), pt.CorruptFileError, "broken off"),
        (frame((0, 16, DATA)) + b"evil", pt.CorruptFileError, "no zstd frame"),
        (frame((2, 16, DATA)), pt.CorruptFileError, "not zstd through"),
        (frame((0, 16, DATA), (0, 16, DATA)), pt.CorruptFileError, "not zstd through"),
        (b"", pt.CorruptFileError, "cannot decompress"),
    ],
)
def test_zstd_is_measured_before_it_is_decompressed(tmp_path, chunk, error, reason):
    files = folder(array=zarray(compressor=ZSTD), chunk=chunk)
    tree = pt.open(put(tmp_path / "m", files))
    with pytest.raises(error, match=reason):
        _ = tree["w"].value


def test_the_bound_of_zstd_holds_for_what_tensorstore_writes(tmp_path):
    random = np.random.default_rng(0)
    for data in (bytes(1 << 22), random.bytes(1 << 20), b"abc" * 500_000, b"x"):
        facts = {"shape": [len(data)], "chunks": [len(data)], "dtype": "|u1", "compressor": ZSTD}
        store = {"driver": "file", "path": str(tmp_path / "z")}
        spec = {"driver": "zarr", "kvstore": store, "metadata": facts}
        array = tensorstore.open(spec, create=True, delete_existing=True).result()
        array.write(np.frombuffer(data, np.uint8)).result()
        stored = (tmp_path / "z" / "0").read_bytes()
        assert len(data) <= _zstd._longest(stored, "z", "0") <= len(data) + (1 << 17)
        assert _zstd.decompress(stored, len(data), "z", "0").tobytes() == data


def test_a_thousand_million_zeros_are_refused_without_taking_memory(tmp_path):
    chunk = frame(*[(1, 1 << 17, b"\0")] * 100)
    array = zarray(compressor=ZSTD, shape=[10**12], chunks=[10**12])
    tracemalloc.start()
    with pytest.raises(pt.CorruptFileError, match="takes 4000000000000 bytes"):
        pt.open(put(tmp_path / "m", folder(array=array, chunk=chunk)))
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_narrow_types_take_a_byte_each(written):
    value = pt.open(written / "files-zarr2")["i4"].value
    assert value.dtype == np.dtype(ml_dtypes.int4)
    assert value.astype(int).tolist() == [0, 1, 2, 3]
    assert os.path.getsize(written / "files-zarr2" / "i4" / "0") > 4  # noqa: PTH202


def test_a_step_without_the_numbers_of_a_run_is_opened_as_it_is(tmp_path):
    tree = pt.open(put(tmp_path / "best", step()))
    assert list(tree) == ["w"]
    assert tree.notes == ()
    two = {"('w',)": leaf("w"), "('none',)": leaf("none", kind="None")}
    assert list(pt.open(put(tmp_path / "two", folder(metadata(two))))) == ["w"]
    assert BYTES["name"] == "bytes"
