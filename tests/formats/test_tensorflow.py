"""TensorFlow checkpoints: dtypes, shards, slices, byte orders, sources; against TensorFlow's own reading."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.formats._tensorflow_bundle import DTYPES, QUANTISED, _ordered
from tests import weights
from tests.attacks import tensorflow_files as made


def write(files, folder):
    for name, content in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


# Without TensorFlow


@pytest.mark.parametrize(
    "source", ["", "saved_model.pb", "variables", "variables/variables", "variables/variables.index",
               "variables/variables.data-00000-of-00001"],
)  # fmt: skip
def test_a_real_saved_model_by_any_of_its_paths(source):
    folder = weights.path("basic-pitch").parent
    with pt.open(folder / source) as tree:
        assert len(tree) == 74
        assert tree["conv2d_1.kernel"].shape == (3, 39, 8, 8)
        assert tree.totals["parameter"].count == 18
        assert tree.totals["buffer"].count == 6
        assert tree.totals["state"].count == 41
        assert tree.totals["other"].count == 9
        assert np.isfinite(tree["conv2d_1.kernel"].value).all()
        assert (
            tree.format == "TensorFlow SavedModel"
            if source in ("", "saved_model.pb")
            else "TensorFlow checkpoint"
        )


def test_what_a_saved_model_says_about_itself():
    meta = pt.open(weights.path("basic-pitch")).meta
    assert meta["tensorflow_version"] == "2.4.1"
    assert meta["tags"] == ["serve"]
    assert "serving_default" in meta["signatures"]


def test_names_of_a_real_model_are_those_of_its_layers_in_their_order():
    tree = pt.open(weights.path("basic-pitch"))
    assert list(tree)[:6] == [
        "batch_normalization.gamma", "batch_normalization.beta", "batch_normalization.moving_mean",
        "batch_normalization.moving_variance", "conv2d_1.kernel", "conv2d_1.bias",
    ]  # fmt: skip
    assert tree["layer_with_weights-1/kernel"] is tree["conv2d_1.kernel"]
    assert tree["layer_with_weights-1/kernel/.ATTRIBUTES/VARIABLE_VALUE"] is tree["conv2d_1.kernel"]
    assert tree["Adam/conv2d_1/kernel/m"] is tree["optimizer.conv2d_1.kernel.m"]
    assert tree["keras_api.metrics.0.total"].kind == "other"


def test_listing_imports_no_numpy_and_reading_no_framework():
    path = weights.path("basic-pitch")
    code = (
        f"import sys, paratree; tree = paratree.open({str(path)!r}); listed = 'numpy' in sys.modules; "
        "[p.value for p in tree.values() if p.array.problem is None]; "
        "print(listed, 'tensorflow' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


def test_text_is_listed_and_refused_with_a_reason():
    param = pt.open(weights.path("basic-pitch"))["_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert (param.dtype, param.shape, param.kind) == ("string", (), "other")
    with pytest.raises(
        pt.UnreadableError, match="_CHECKPOINTABLE_OBJECT_GRAPH: text; paratree reads numbers"
    ):
        _ = param.value


@pytest.mark.parametrize("number", [20, 21])
def test_handles_and_structures_are_listed_and_refused(number, tmp_path):
    tree = pt.open(write(made.bundle({"w": made.entry(dtype=number, shape=())}), tmp_path))
    assert tree["w"].dtype in ("resource", "variant")
    with pytest.raises(pt.UnreadableError, match="w: a "):
        _ = tree["w"].value


@pytest.mark.parametrize("number", DTYPES)
def test_every_dtype_in_both_byte_orders(number, tmp_path):
    name = DTYPES[number]
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    values = np.array([0, 1, 1, 0, 1, 0]).astype(dtype).reshape(2, 3)
    part = {"complex64": 4, "complex128": 8}.get(name, dtype.itemsize)
    for order in (0, 1):
        data = values.tobytes() if not order else values.view(f"u{part}").byteswap().tobytes()
        files = made.bundle({"w": made.entry(data, number, (2, 3))}, data, made.header(order=order))
        param = pt.open(write(files, tmp_path))["w"]
        assert param.dtype == name
        assert param.value.dtype == dtype
        assert param.value.tobytes() == values.tobytes()
        assert param[1, 1:].tobytes() == values[1, 1:].tobytes()


@pytest.mark.parametrize("number", QUANTISED)
def test_quantised_integers_are_read_and_said_to_be_so(number, tmp_path):
    word = QUANTISED[number]
    data = np.array([3, 1, 2], word[1:]).tobytes()
    tree = pt.open(write(made.bundle({"w": made.entry(data, number, (3,))}, data), tmp_path))
    assert tree["w"].value.tolist() == [3, 1, 2]
    assert tree.notes == (f"w is {word}: its integers are read; the file holds no scale for them",)


def test_a_part_is_read_without_the_checksum_and_the_whole_with_it(tmp_path):
    tree = pt.open(write(made.bundle({"w": made.entry(crc=1)}), tmp_path))
    assert tree["w"][1:3].tolist() == [0, 0]
    with pytest.raises(
        pt.CorruptFileError, match=r"CRC-32C of its bytes.*of another checkpoint than its index"
    ):
        _ = tree["w"].value


def test_compressed_blocks(tmp_path):
    entries = {
        f"model/layer_{i // 7:02d}/{i:04d}/kernel": made.entry(bytes(4), shape=(1,), offset=4 * i)
        for i in range(400)
    }
    files = made.bundle(entries, bytes(1600), pack=made.snappy)
    assert len(files["m.index"]) < len(made.bundle(entries, bytes(1600))["m.index"]) * 0.8
    assert list(pt.open(write(files, tmp_path))) == list(entries)


def test_bytes_that_belong_to_no_tensor_are_told(tmp_path):
    tree = pt.open(write(made.bundle(data=bytes(20)), tmp_path))
    assert tree.notes == ("the shards end in 4 bytes that belong to no tensor: are they of this checkpoint?",)


def test_the_first_format_is_refused_with_a_way_out(tmp_path):
    write(made.bundle(head=made.field(1, made.field(1, b"w"))), tmp_path)
    with pytest.raises(pt.UnsupportedError, match=r"first format of TensorFlow.*save it with"):
        pt.open(tmp_path)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=9, unique=True))
def test_numbers_in_keys_sort_as_they_are(numbers):
    assert sorted(numbers) == sorted(numbers, key=_ordered)


@pytest.mark.parametrize("text", [b"m", b"/elsewhere/on/another/machine/m", b"\\155"])
def test_a_training_folder_opens_its_latest(text, tmp_path):
    write(made.bundle(), tmp_path)
    write(made.bundle({"old": made.entry()}, name="l"), tmp_path)
    (tmp_path / "checkpoint").write_bytes(
        b'model_checkpoint_path: "' + text + b'"\nall_model_checkpoint_paths: "l"\n'
    )
    assert list(pt.open(tmp_path)) == ["w"]
    assert list(pt.open(tmp_path / "checkpoint")) == ["w"]
    assert list(pt.open(tmp_path / "l")) == ["old"]


def test_files_of_a_cache_that_are_links_are_followed(tmp_path):
    write(made.bundle(), tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(f"../blobs/{file.name}")
    assert pt.open(tmp_path / "snapshot" / "m.index")["w"].value.tolist() == [0] * 4


def test_a_shard_without_its_index_is_no_checkpoint(tmp_path):
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(16))
    with pytest.raises(pt.UnknownSourceError):
        pt.open(tmp_path / "m.data-00000-of-00001")
    with pytest.raises(pt.SourceNotFoundError, match="m: no such file"):
        pt.open(tmp_path / "m")


def test_closing_the_tree_closes_every_shard(tmp_path):
    files = made.bundle({"a": made.entry(), "b": made.entry(shard=1)}, [bytes(16)] * 2, shards=2)
    with pt.open(write(files, tmp_path)) as tree:
        assert tree.format == "TensorFlow checkpoint, 2 shards"
    for name in tree:
        with pytest.raises(pt.CorruptFileError, match="the tree was closed"):
            _ = tree[name].value


# Against TensorFlow


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow", reason="TensorFlow writes the files and is the truth here")


def keys(tf, prefix):
    return dict(tf.train.load_checkpoint(str(prefix)).get_variable_to_dtype_map())


def assert_equal(tf, prefix, source=None):
    """Every tensor of numbers is what TensorFlow reads, bit for bit, and is found by TensorFlow's key."""
    reader = tf.train.load_checkpoint(str(prefix))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    tree = pt.open(source or f"{prefix}.index")
    for key, shape in shapes.items():
        param = tree[key]
        assert isinstance(param, pt.Param), key
        assert list(param.shape) == shape
        if dtypes[key] == tf.string:
            assert param.dtype == "string"
            continue
        expected = reader.get_tensor(key)
        assert param.value.dtype == expected.dtype
        assert param.value.tobytes() == expected.tobytes()
    return tree


def save(tf, prefix, tensors):
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=list(tensors.values()),
    )


def test_a_real_saved_model_equals_tensorflow(tf):
    folder = weights.path("basic-pitch").parent
    assert len(assert_equal(tf, folder / "variables" / "variables", folder)) == 74


@pytest.mark.parametrize("number", DTYPES)
def test_every_dtype_as_tensorflow_writes_it(tf, number, tmp_path):
    name = DTYPES[number]
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    assert tf.dtypes.as_dtype(number).as_numpy_dtype == dtype.type
    values = np.array([[0, 1, 1], [0, 1, 0]]).astype(dtype)
    save(tf, tmp_path / "x", {"w": tf.constant(values, number), "scalar": tf.constant(values[0, 1], number)})
    tree = assert_equal(tf, tmp_path / "x")
    assert tree["w"].dtype == name


@pytest.mark.parametrize("number", QUANTISED)
def test_quantised_as_tensorflow_writes_it(tf, number, tmp_path):
    integers = tf.constant([[0, 1], [2, 3]], QUANTISED[number][1:])
    save(tf, tmp_path / "x", {"w": tf.bitcast(integers, number)})
    assert pt.open(tmp_path / "x")["w"].value.tolist() == integers.numpy().tolist()


def test_strings_of_any_rank_are_listed(tf, tmp_path):
    save(tf, tmp_path / "x", {"t": tf.constant([["a", "bc"]]), "s": tf.constant("x")})
    assert [(p.dtype, p.shape) for p in assert_equal(tf, tmp_path / "x").values()] == [
        ("string", ()),
        ("string", (1, 2)),
    ]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
SHAPES = st.lists(st.integers(0, 4), max_size=4)
WORDS = st.sampled_from(
    ["float32", "float64", "int8", "uint16", "int64", "bool", "complex64", "bfloat16", "float16"]
)


@settings(max_examples=40)
@given(
    st.dictionaries(NAMES, st.tuples(WORDS, SHAPES), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_any_names_shapes_and_dtypes_round_trip(tf, wanted, random):
    tensors = {}
    for name, (word, shape) in wanted.items():
        dtype = np.dtype(getattr(ml_dtypes, word, None) or word)
        data = bytes(
            random.choices(range(2 if word == "bool" else 256), k=int(np.prod(shape)) * dtype.itemsize)
        )
        tensors[name] = tf.constant(np.frombuffer(data, dtype).reshape(shape))
    with tempfile.TemporaryDirectory() as folder:
        save(tf, f"{folder}/x", tensors)
        with pt.open(f"{folder}/x") as tree:
            assert set(tree) == set(tensors)
            for name, tensor in tensors.items():
                assert tree._params[name].value.tobytes() == tensor.numpy().tobytes()
                assert tree._params[name].shape == tuple(tensor.shape)


def test_many_tensors_fill_several_blocks(tf, tmp_path):
    tensors = {f"{i:05d}/{i:05d}": tf.constant([float(i)]) for i in range(9000)}
    save(tf, tmp_path / "x", tensors)
    assert (tmp_path / "x.index").stat().st_size > 1 << 18, "more than one block"
    with pt.open(tmp_path / "x") as tree:
        assert [float(p.value[0]) for p in tree.values()] == list(range(9000))


def test_three_shards(tf, tmp_path):
    tensors = {"a": tf.random.normal((30, 7)), "b/c": tf.constant([1, 2]), "d": tf.random.normal((5,))}
    for i, (name, tensor) in enumerate(tensors.items()):
        save(tf, tmp_path / f"part{i}", {name: tensor})
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / f"part{i}") for i in range(3)],
        destination_prefix=str(tmp_path / "all" / "x"),
        delete_old_dirs=False,
    )
    tree = assert_equal(tf, tmp_path / "all" / "x", tmp_path / "all")
    assert tree.format == "TensorFlow checkpoint, 3 shards"
    assert len(list((tmp_path / "all").glob("*-of-00003"))) == 3


def test_large_values_are_checked_at_speed(tf, tmp_path):
    save(tf, tmp_path / "x", {"w": tf.random.normal((1 << 20,))})
    assert_equal(tf, tmp_path / "x")
    with (tmp_path / "x.data-00000-of-00001").open("r+b") as file:
        file.seek(3_000_000)
        file.write(b"\xa5")
    with pytest.raises(pt.CorruptFileError, match="CRC-32C"):
        _ = pt.open(tmp_path / "x")["w"].value


@pytest.fixture(scope="module")
def training(tf, tmp_path_factory):
    """A run of TensorFlow 1: Adam, a moving average, a variable in three slices, two savers."""
    folder = tmp_path_factory.mktemp("training")
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        with v1.variable_scope("net"):
            weight, bias = v1.get_variable("w", (3, 4)), v1.get_variable("b", (4,))
            parts = v1.get_variable("part", (10, 4), partitioner=v1.fixed_size_partitioner(3))
            columns = v1.get_variable("columns", (2, 6), partitioner=v1.fixed_size_partitioner(2, axis=1))
        loss = tf.reduce_sum(tf.matmul(tf.ones((1, 3)), weight) + bias)
        loss += sum(tf.reduce_sum(part**2) for part in [*parts, *columns])
        step = v1.train.get_or_create_global_step()
        train = v1.train.AdamOptimizer().minimize(loss, global_step=step)
        average = v1.train.ExponentialMovingAverage(0.9).apply([weight, bias])
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            session.run([train, average])
            saver = v1.train.Saver()
            saver.save(session, f"{folder}/run/model.ckpt", global_step=step)
            (folder / "empty").mkdir()
            saver.save(session, f"{folder}/empty/")
            v1.saved_model.simple_save(session, f"{folder}/saved", {"x": weight}, {"y": bias})
    return folder


def test_a_run_of_tensorflow_1(tf, training):
    tree = assert_equal(tf, training / "run" / "model.ckpt-1", training / "run")
    kinds = {name: param.kind for name, param in tree.items()}
    assert [n for n, kind in kinds.items() if kind == "parameter"] == [
        "net/b",
        "net/columns",
        "net/part",
        "net/w",
    ]
    assert {n for n, kind in kinds.items() if kind == "other"} == {
        "global_step", "net/b/ExponentialMovingAverage", "net/w/ExponentialMovingAverage",
    }  # fmt: skip
    assert {n for n, kind in kinds.items() if kind == "state"} == {"beta1_power", "beta2_power"} | {
        f"net/{name}/{slot}" for name in ("b", "columns", "part", "w") for slot in ("Adam", "Adam_1")
    }


def test_a_variable_in_slices_is_read_in_parts(tf, training):
    with pt.open(training / "run") as tree:
        for name in ("net/part", "net/columns"):
            whole = tree[name].value
            for index in ((slice(3, 8), slice(1, 3)), (slice(None, None, -2), 0), (-1, slice(5, 0, -1))):
                np.testing.assert_array_equal(tree[name][index], whole[index])


@pytest.mark.parametrize("source", ["empty", "empty/.index", "empty/.data-00000-of-00001"])
def test_an_empty_prefix(tf, training, source):
    from tensorflow.python.training import py_checkpoint_reader

    reader = py_checkpoint_reader.NewCheckpointReader(f"{training}/empty/")
    with pt.open(training / source) as tree:
        assert set(tree) == set(reader.get_variable_to_shape_map())
        for name, param in tree.items():
            assert param.value.tobytes() == reader.get_tensor(name).tobytes()


def test_a_saved_model_of_tensorflow_1(tf, training):
    tree = assert_equal(tf, training / "saved" / "variables" / "variables", training / "saved")
    assert tree["net/w/Adam"].kind == "state"


def test_the_first_format_as_tensorflow_writes_it(tf, tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("w", (3, 4))
        session.run(v1.global_variables_initializer())
        v1.train.Saver(write_version=v1.train.SaverDef.V1).save(session, f"{tmp_path}/old.ckpt")
    with pytest.raises(pt.UnsupportedError, match="first format of TensorFlow"):
        pt.open(tmp_path / "old.ckpt")


def test_a_copied_checkpoint_opens_where_it_lies(tf, training, tmp_path):
    shutil.copytree(training / "run", tmp_path / "copy")
    assert pt.open(tmp_path / "copy").source == str(tmp_path / "copy" / "model.ckpt-1.index")


def test_a_checksum_covers_the_bytes_of_the_other_order(tf, tmp_path):
    """TensorFlow reads a bundle of the other byte order, so our made one is what such a machine writes."""
    values = struct.pack(">4f", 1, 2, 3, 4)
    write(made.bundle({"w": made.entry(values)}, values, made.header(order=1)), tmp_path)
    assert_equal(tf, tmp_path / "m")
