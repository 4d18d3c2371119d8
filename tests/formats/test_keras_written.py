"""Keras files that are written: Keras loads them, and all but the values is as in the file that is copied."""

from __future__ import annotations

import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.formats.keras import WRITES
from tests.verbs.held import tree_with

h5py = pytest.importorskip("h5py", reason="h5py writes the files to copy and reads the copies")


def hdf5(path, arrays, **options):
    """Write arrays by their paths, as h5py does by itself."""
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **options)
        file.attrs["kept"] = "yes"
    return path


def layout(path, *arrays, name="my"):
    """Write a file of weights as Keras 3 lays it out, of one layer."""
    with h5py.File(path, "w") as file:
        held = file.create_group(f"layers/{name}/vars")
        held.attrs["name"] = name
        for number, values in enumerate(arrays):
            held[str(number)] = values
    return path


# Without Keras


@given(st.data())
@settings(max_examples=60)
def test_a_copy_has_the_values_that_are_given_and_every_other_byte_as_it_was(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("copied")
    names = data.draw(st.lists(st.sampled_from("abcdefgh"), max_size=6, unique=True))
    shapes = {name: data.draw(st.sampled_from([(), (3,), (2, 0), (4, 5), (1, 2, 3)])) for name in names}
    dtypes = {name: data.draw(st.sampled_from([d for d in WRITES if "8_" not in d and d != "bfloat16"]))
              for name in names}  # fmt: skip

    def arrays():
        for name in names:
            count = int(np.prod(shapes[name])) * BITS[dtypes[name]] // 8
            raw = np.frombuffer(data.draw(st.binary(min_size=count, max_size=count)), np.uint8)
            if dtypes[name] == "bool":
                raw = raw & 1
            yield name, raw.view(numpy_dtype(dtypes[name])).reshape(shapes[name])

    hdf5(folder / "like.h5", dict(arrays()))
    new = dict(arrays())
    pt.save(tree_with(new), folder / "new.h5", like=folder / "like.h5", verify=True)
    before, after = (np.frombuffer((folder / f"{n}.h5").read_bytes(), np.uint8) for n in ("like", "new"))
    changed = np.flatnonzero(before != after)
    with h5py.File(folder / "new.h5") as file, pt.open(folder / "new.h5") as tree:
        assert file.attrs["kept"] == "yes"
        inside = np.zeros(len(before), bool)
        for name, values in new.items():
            assert file[name][()].tobytes() == tree[name].value.tobytes() == values.tobytes()
            if values.size:
                inside[file[name].id.get_offset() :][: values.nbytes] = True
        assert inside[changed].all()
        assert set(tree) == set(names)


def test_types_that_hdf5_lacks_are_bytes_with_a_name(tmp_path):
    with h5py.File(tmp_path / "like.h5", "w") as file:
        for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
            width = numpy_dtype(name).itemsize
            file.create_dataset(name, data=np.zeros(6, f"V{width}"))
            file[name].attrs["dtype"] = name
    arrays = {
        name: np.arange(6).astype(numpy_dtype(name)) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")
    }
    pt.save(tree_with(arrays), tmp_path / "new.h5", like=tmp_path / "like.h5", verify=True)
    with pt.open(tmp_path / "new.h5") as tree:
        assert {name: p.value.tobytes() for name, p in tree.items()} == {
            n: a.tobytes() for n, a in arrays.items()
        }


def test_the_file_itself_may_be_replaced_by_its_copy(tmp_path):
    path = layout(tmp_path / "m.weights.h5", np.zeros(3, np.float32), np.ones((2, 2), np.float32))
    new = {"my.0": np.arange(3, dtype=np.float32), "my.1": np.full((2, 2), np.nan, np.float32)}
    with pytest.raises(FileExistsError, match="replacing it takes force"):
        pt.save(tree_with(new), path, like=path)
    pt.save(tree_with(new), path, like=path, force=True, verify=True)
    with pt.open(path) as tree:
        assert {name: p.value.tobytes() for name, p in tree.items()} == {
            n: a.tobytes() for n, a in new.items()
        }
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.weights.h5"]


def test_a_file_is_its_own_layout(tmp_path):
    source = layout(tmp_path / "a.weights.h5", np.arange(3.0), np.float32(7))
    pt.save(source, tmp_path / "b.weights.h5", verify=True)
    assert (tmp_path / "b.weights.h5").read_bytes() == source.read_bytes()
    with pt.open(source) as tree:
        pt.save(tree, tmp_path / "c.weights.h5", verify=True)
    assert (tmp_path / "c.weights.h5").read_bytes() == source.read_bytes()


def test_two_names_of_one_array_take_the_same_values(tmp_path):
    with h5py.File(tmp_path / "like.h5", "w") as file:
        file["a"] = np.zeros(3)
        file["b"] = file["a"]
    same, other = np.arange(3.0), np.ones(3)
    pt.save(
        tree_with({"a": same, "b": same.copy()}), tmp_path / "new.h5", like=tmp_path / "like.h5", verify=True
    )
    with pt.open(tmp_path / "new.h5") as tree:
        assert tree.ties == (("a", "b"),)
        assert tree["b"].value.tolist() == [0, 1, 2]
    with pytest.raises(pt.MismatchError, match="b is one array with another there, and their values differ"):
        pt.save(tree_with({"a": same, "b": other}), tmp_path / "c.h5", like=tmp_path / "like.h5")


def test_state_is_given_wholly_or_stays(tmp_path):
    weights = {
        "layers/my/vars/0": np.zeros(3),
        "optimizer/vars/0": np.int64(5),
        "optimizer/vars/1": np.ones(3),
    }
    like = hdf5(tmp_path / "like.weights.h5", weights)
    given = {"my.0": np.arange(3.0), "optimizer.iteration": np.int64(8), "optimizer.1": np.full(3, 2.0)}
    saved = pt.save(tree_with({"my.0": given["my.0"]}), tmp_path / "kept.weights.h5", like=like, verify=True)
    assert saved.notes == (f"as in {like}: optimizer.iteration, optimizer.1",)
    with pt.open(tmp_path / "kept.weights.h5") as tree:
        assert tree["my.0"].value.tolist() == [0, 1, 2]
        assert tree["optimizer.iteration"].value == 5
    assert pt.save(tree_with(given), tmp_path / "given.weights.h5", like=like, verify=True).notes == ()
    with pt.open(tmp_path / "given.weights.h5") as tree:
        assert tree["optimizer.1"].value.tolist() == [2, 2, 2]
    del given["optimizer.1"]
    with pytest.raises(
        pt.MismatchError, match=r"a part of the optimizer's state is given, and not optimizer\.1"
    ):
        pt.save(tree_with(given), tmp_path / "part.weights.h5", like=like)


ONE = np.ones(1)


@pytest.mark.parametrize(
    ("arrays", "options", "error", "words"),
    [
        ({"a": np.ones(3), "c": ONE}, {}, pt.MismatchError,
         "it has no c, and nothing is given for its b; rename, or select what it has"),
        ({"a": np.ones(4), "b": ONE}, {}, pt.MismatchError,
         r"a is float64 \[3\] there, not float64 \[4\]; it is of another model"),
        ({"a": np.ones(3, np.float32), "b": ONE}, {}, pt.MismatchError,
         r"a is float64 \[3\] there, not float32 \[3\]; cast it \(dtype='float64'\), or give a file"),
        ({"a": np.ones(3), "b": ONE}, {"dtype": "float16"}, pt.MismatchError,
         r"cast it \(dtype='float64'\), or give a file of float16"),
        ({"a": np.ones(3), "b": np.ones(1, ml_dtypes.int4)}, {}, pt.UnsupportedError, "Keras cannot hold"),
        ({"a": np.ones(3), "b": ONE}, {"like": 3}, pt.UnsupportedError, "int: no model of Keras"),
        ({"a": np.ones(3), "b": ONE}, {"like": None}, pt.UnsupportedError, "give one as like="),
        ({"a": np.ones(3), "b": ONE}, {"like": "nowhere.h5"}, pt.SourceNotFoundError, "no such file"),
        ({"a": np.ones(3), "b": ONE}, {"like": __file__}, pt.UnsupportedError, "no file of Keras or HDF5"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(arrays, options, error, words, tmp_path):
    like = hdf5(tmp_path / "like.h5", {"a": np.zeros(3), "b": np.zeros(1)})
    with pytest.raises(error, match=words) as caught:
        pt.save(tree_with(arrays), tmp_path / "new.h5", **{"like": like, **options})
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["like.h5"]


@pytest.mark.parametrize(
    ("dtype", "options"),
    [("f4", {"chunks": (2,)}), ("f4", {"chunks": (2,), "compression": "gzip"}), (">f4", {})],
)
def test_an_array_without_a_place_of_its_own_is_refused(dtype, options, tmp_path):
    like = hdf5(tmp_path / "like.h5", {"a": np.zeros(3, dtype)}, **options)
    with pytest.raises(pt.UnsupportedError, match="a is compressed, in pieces, in its header, or big-endian"):
        pt.save(tree_with({"a": np.ones(3, np.float32)}), tmp_path / "new.h5", like=like)


def test_a_compact_array_is_in_its_header(tmp_path):
    with h5py.File(tmp_path / "like.h5", "w") as file:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((3,))
        h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space, creation).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(3, np.float32)
        )
    with pytest.raises(pt.UnsupportedError, match="a is compressed, in pieces, in its header, or big-endian"):
        pt.save(tree_with({"a": np.ones(3, np.float32)}), tmp_path / "new.h5", like=tmp_path / "like.h5")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("m.keras", "weights without the configuration"),
        ("m.weights.h5", "not the layout of .weights.h5 files"),
    ],
)
def test_a_copy_is_named_as_what_it_is(name, words, tmp_path):
    like = hdf5(tmp_path / "like.h5", {"a": np.zeros(3)})
    with pytest.raises(pt.UnsupportedError, match=words):
        pt.save(tree_with({"a": np.ones(3)}), tmp_path / name, like=like)


def test_tied_names_take_a_choice(tmp_path):
    like = hdf5(tmp_path / "like.h5", {"a": np.zeros(3), "b": np.zeros(3)})
    tree = tree_with({"a": np.ones(3)}, [("b", "a")])
    with pytest.raises(pt.UnsupportedError, match="a and b are tied, which Keras cannot say"):
        pt.save(tree, tmp_path / "new.h5", like=like)
    pt.save(tree, tmp_path / "new.h5", like=like, ties="twice", verify=True)
    with pt.open(tmp_path / "new.h5") as found:
        assert found["a"].value.tolist() == found["b"].value.tolist() == [1, 1, 1]


def test_progress_counts_every_byte_that_is_given_once(tmp_path):
    like, told = hdf5(tmp_path / "like.h5", {"a": np.zeros(70_000), "b": np.zeros(1)}), []
    tree = tree_with({"a": np.ones(70_000), "b": np.ones(1)})
    pt.save(tree, tmp_path / "new.h5", like=like, progress=lambda *done: told.append(done))
    assert told == [(560_000, 560_008), (560_008, 560_008)]


# With Keras


@pytest.fixture
def keras():
    found = pytest.importorskip("keras", reason="Keras writes the layouts and reads the copies")
    if found.__version__ < "3":
        pytest.skip("the layouts are those of Keras 3")
    return found


@pytest.fixture
def models():
    """Return the table of small models; it imports Keras."""
    from tests.formats import keras_models

    return keras_models


WHOLE = ("sequential", "functional", "deep")


def made(models, name):
    """Return two models of one architecture, with other weights."""
    import keras

    if keras.backend.backend() == "torch" and name == "sequential":
        pytest.skip("a layer of it has a dot in its name, which Keras on torch refuses")
    pair = []
    for seed in (1, 2):
        keras.utils.clear_session()
        model = getattr(models, name)()
        generator = np.random.default_rng(seed)
        model.set_weights([generator.normal(size=w.shape).astype(w.dtype) for w in model.get_weights()])
        pair.append(model)
    return pair


def assert_same(one, other):
    ours, theirs = one.get_weights(), other.get_weights()
    assert len(ours) == len(theirs) > 0
    assert all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", WHOLE)
def test_keras_loads_the_weights_of_a_live_model(name, keras, models, tmp_path):
    one, other = made(models, name)
    saved = pt.save(one, tmp_path / "m.weights.h5", verify=True)
    assert saved.format == "Keras"
    other.load_weights(tmp_path / "m.weights.h5")
    assert_same(one, other)
    one.save_weights(tmp_path / "theirs.weights.h5")
    assert_same_arrays(tmp_path / "m.weights.h5", tmp_path / "theirs.weights.h5")


def assert_same_arrays(ours, theirs):
    """Compare all of two HDF5 files, attributes too, but for the times in them."""
    with h5py.File(ours) as one, h5py.File(theirs) as other:
        listed = [[], []]
        for file, found in zip((one, other), listed, strict=True):
            file.visititems(lambda path, item, found=found: found.append((
                path, dict(item.attrs), item[()].tobytes() if isinstance(item, h5py.Dataset) else None
            )))  # fmt: skip
        assert listed[0] == listed[1]


@pytest.mark.parametrize("name", WHOLE)
def test_weights_from_a_safetensors_file_of_another_instance(name, keras, models, tmp_path):
    one, other = made(models, name)
    pt.save(one, tmp_path / "m.safetensors")
    before = [w.copy() for w in other.get_weights()]
    pt.save(tmp_path / "m.safetensors", tmp_path / "m.weights.h5", like=other, verify=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))
    other.load_weights(tmp_path / "m.weights.h5")
    assert_same(one, other)


@pytest.mark.parametrize("like", ["model", "file"])
def test_layers_that_keras_counts_otherwise_are_taken_in_their_order(like, keras, tmp_path):
    def make():
        return keras.Sequential([
            keras.Input((3,)), keras.layers.Dense(3), keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ])  # fmt: skip

    keras.utils.clear_session()
    other, one = make(), make()  # dense, dense_1; dense_2, dense_3
    one.set_weights([np.random.default_rng(0).random(w.shape).astype("f4") for w in one.get_weights()])
    pt.save(one, tmp_path / "m.safetensors")
    assert "dense_2.kernel" in pt.open(tmp_path / "m.safetensors")
    other.save_weights(tmp_path / "like.weights.h5")
    given = other if like == "model" else tmp_path / "like.weights.h5"
    saved = pt.save(tmp_path / "m.safetensors", tmp_path / "m.weights.h5", like=given, verify=True)
    (note,) = [note for note in saved.notes if "in their order" in note]
    assert "dense_2 as dense, " in note
    other.load_weights(tmp_path / "m.weights.h5")
    assert_same(one, other)
    part = pt.open(tmp_path / "m.safetensors").drop("dense_2.**")
    with pytest.raises(pt.MismatchError, match="it has no "):
        pt.save(part, tmp_path / "part.weights.h5", like=given)


def test_layers_of_other_shapes_are_not_taken_by_their_order(keras, tmp_path):
    keras.utils.clear_session()
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="dense")])
    net.save_weights(tmp_path / "like.weights.h5")
    values = {"dense_1.kernel": np.ones((4, 3), "f4"), "dense_1.bias": np.ones(3, "f4")}
    with pytest.raises(pt.MismatchError, match=r"it has no dense_1\.kernel"):
        pt.save(tree_with(values), tmp_path / "m.weights.h5", like=tmp_path / "like.weights.h5")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_model_is_copied_whole(compressed, keras, models, tmp_path):
    one, other = made(models, "sequential")
    other.save(tmp_path / "other.keras")
    like = tmp_path / "like.keras"
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(tmp_path / "other.keras") as old, zipfile.ZipFile(like, "w", method) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    pt.save(one, tmp_path / "m.keras", like=like, verify=True)
    with zipfile.ZipFile(like) as old, zipfile.ZipFile(tmp_path / "m.keras") as new:
        assert old.namelist() == new.namelist()
        assert new.testzip() is None
        assert [old.read(n) == new.read(n) for n in old.namelist()] == [
            n != "model.weights.h5" for n in old.namelist()
        ]
    assert_same(one, keras.models.load_model(tmp_path / "m.keras"))
    pt.save(tmp_path / "m.keras", tmp_path / "m.weights.h5", verify=True)
    other.load_weights(tmp_path / "m.weights.h5")
    assert_same(one, other)


class TestTrained:
    """A model with a layer whose class no table has, and with an optimizer that has run."""

    @pytest.fixture
    def trained(self, keras):
        @keras.saving.register_keras_serializable("paratree")
        class Scaled(keras.layers.Layer):
            def build(self, shape):
                self.scale = self.add_weight(shape=(shape[-1],), name="scale")
                self.steps = self.add_weight(shape=(), name="steps", trainable=False)

            def call(self, x):
                return x * self.scale + self.steps

        def make():
            keras.utils.clear_session()
            net = keras.Sequential([
                keras.Input((4,)), keras.layers.Dense(5), keras.layers.BatchNormalization(scale=False),
                Scaled(), keras.layers.Dropout(0.5), keras.layers.Dense(1),
            ])  # fmt: skip
            net.compile("adam", "mse")
            net.fit(np.random.default_rng().normal(size=(8, 4)), np.ones((8, 1)), verbose=0)
            return net

        return make

    def test_its_state_is_that_of_the_model(self, trained, tmp_path):
        one, other = trained(), trained()
        saved = pt.save(one, tmp_path / "m.weights.h5", verify=True)
        assert saved.notes[0].startswith("as in Sequential: ")
        assert "optimizer.iteration" in saved.notes[0]
        other.load_weights(tmp_path / "m.weights.h5")
        assert_same(one, other)
        for ours, theirs in zip(one.optimizer.variables, other.optimizer.variables, strict=True):
            assert np.array_equal(np.asarray(ours.numpy()), np.asarray(theirs.numpy()))

    def test_variables_that_files_number_are_named_by_a_live_model(self, trained, keras, tmp_path):
        one, other = trained(), trained()
        other.save_weights(tmp_path / "like.weights.h5")
        pt.save(one, tmp_path / "m.weights.h5", like=tmp_path / "like.weights.h5", verify=True)
        other.load_weights(tmp_path / "m.weights.h5")
        assert_same(one, other)
        pt.save(one, tmp_path / "m.keras", verify=True)
        assert_same(one, keras.models.load_model(tmp_path / "m.keras"))

    def test_names_of_a_file_are_no_numbers(self, trained, tmp_path):
        net = trained()
        pt.save(net, tmp_path / "m.safetensors")
        with pytest.raises(
            pt.MismatchError, match=r"Sequential: it has no scaled\.scale, scaled\.steps, and noth"
        ):
            pt.save(tmp_path / "m.safetensors", tmp_path / "m.weights.h5", like=net)


def test_a_model_that_is_not_built_has_no_layout(keras, tmp_path):
    net = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(pt.UnsupportedError, match="Sequential: not built yet"):
        pt.save(tree_with({"dense.kernel": np.ones(3)}), tmp_path / "m.weights.h5", like=net)
    assert not any(tmp_path.iterdir())


def test_what_keras_cannot_save_is_told(keras, tmp_path, monkeypatch):
    def refuse(path):
        raise NotImplementedError("no get_config")

    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    monkeypatch.setattr(net, "save", refuse)
    with pytest.raises(
        pt.UnsupportedError, match=r"Keras cannot save it: no get_config; write \.weights\.h5"
    ):
        pt.save(net, tmp_path / "m.keras")
    assert not any(tmp_path.iterdir())
    pt.save(net, tmp_path / "m.weights.h5", verify=True)


def test_a_tree_of_a_live_model_has_no_file(keras, tmp_path):
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    with pytest.raises(pt.UnsupportedError, match=r"give one as like= \(--like\)"):
        pt.save(pt.open(net), tmp_path / "m.weights.h5")
    pt.save(pt.open(net), tmp_path / "m.weights.h5", like=net, verify=True)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
@pytest.mark.parametrize("source", ["model", "m.keras", "like.weights.h5"])
def test_an_older_file_is_not_made_of_a_newer_layout(source, suffix, keras, models, tmp_path):
    model, _ = made(models, "functional")
    if source == "m.keras":
        model.save(tmp_path / source)
    elif source != "model":
        model.save_weights(tmp_path / source)
    given = model if source == "model" else tmp_path / source
    words = (
        r"from \.weights\.h5 files only; name it new\.weights\.h5, or give an older \.h5 as like= \(--like\)$"
    )
    with pytest.raises(pt.UnsupportedError, match=words) as caught:
        pt.save(given, tmp_path / f"new{suffix}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / f"new{suffix}").exists()


@pytest.mark.parametrize("whole", [False, True])
def test_keras_loads_an_older_file_that_is_like_a_given_one(whole, keras, models, tmp_path):
    one, other = made(models, "functional")
    if whole:
        other.save(tmp_path / "like.h5")
    else:
        from keras.src.legacy.saving import legacy_h5_format

        with h5py.File(tmp_path / "like.h5", "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, other)
    pt.save(one, tmp_path / "m.h5", like=tmp_path / "like.h5", verify=True)
    pt.save(tmp_path / "m.h5", tmp_path / "again.h5", verify=True)
    if whole:
        assert_same(keras.saving.load_model(tmp_path / "again.h5"), one)
    else:
        other.load_weights(tmp_path / "again.h5")
        assert_same(other, one)
