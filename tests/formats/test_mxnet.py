"""MXNet params: all that MXNet itself writes, against its own reading; older versions from their source."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.dtypes import numpy_dtype
from paratree.files.local import LocalFile, Window
from paratree.formats import mxnet as format
from paratree.formats._mxnet_arrays import DTYPES
from tests.attacks.cases_mxnet import (
    CSR,
    I64,
    ROW_SPARSE,
    V1,
    V2,
    V3,
    csr,
    dense,
    oldest,
    params,
    rows,
    sparse,
)

BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # MXNet's own word for it
WRITABLE = {"float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool"}


@pytest.fixture(scope="module")
def mx():
    return pytest.importorskip("tests.mxnet_numpy", reason="MXNet writes the files and reads them").mxnet


def written(path, content):
    path.write_bytes(content)
    return path


def same_bits(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(
        np.ascontiguousarray(found).reshape(-1).view(np.uint8),
        np.ascontiguousarray(expected).reshape(-1).view(np.uint8),
    )


def equals_mxnet(mx, path):
    """Compare every array with what MXNet reads, and return the tree."""
    loaded = mx.nd.load(str(path))
    loaded = loaded if isinstance(loaded, dict) else {str(n): array for n, array in enumerate(loaded)}
    tree = pt.open(path)
    assert {(param.aliases or (name,))[0] for name, param in tree.items()} == set(loaded)
    for key, array in loaded.items():
        same_bits(tree[key].value, array.asnumpy())
        assert tree[key].shape == array.shape
        assert tree[key].dtype == array.asnumpy().dtype.name
    return tree


# What MXNet writes


@pytest.mark.parametrize("dtype", sorted(WRITABLE))
def test_every_dtype(mx, tmp_path, dtype):
    values = mx.nd.array(np.arange(24).reshape(2, 3, 4) % 5 - 1).astype(dtype)
    mx.nd.save(str(tmp_path / "m.params"), {"w": values, "v": values[1, 2, 1:2]})
    tree = equals_mxnet(mx, tmp_path / "m.params")
    assert list(tree) == ["w", "v"]
    same_bits(tree["w"][1, :, ::-2], values.asnumpy()[1, :, ::-2])


def test_bfloat16(mx, tmp_path):
    values = mx.nd.array([1.5, -0.1, 3e38, float("inf")]).astype(BFLOAT16)
    mx.nd.save(str(tmp_path / "m.params"), {"w": values})
    found = pt.open(tmp_path / "m.params")["w"]
    assert found.dtype == "bfloat16"
    expected = mx.nd.load(str(tmp_path / "m.params"))["w"].astype("float32").asnumpy()
    same_bits(found.value.astype(np.float32), expected)


def test_a_list_is_named_by_its_numbers(mx, tmp_path):
    mx.nd.save(str(tmp_path / "m.params"), [mx.nd.ones((2,)), mx.nd.zeros((3, 1), dtype="int64")])
    assert list(equals_mxnet(mx, tmp_path / "m.params")) == ["0", "1"]


@pytest.mark.parametrize("nothing", [{}, []])
def test_nothing(mx, tmp_path, nothing):
    mx.nd.save(str(tmp_path / "m.params"), nothing)
    assert len(pt.open(tmp_path / "m.params")) == 0


def test_numpy_shapes_with_scalars_and_nothing(mx, tmp_path):
    path = str(tmp_path / "m.params")
    with mx.util.np_shape(True), mx.util.np_array(True):
        mx.npx.save(path, {"s": mx.np.array(3.5), "e": mx.np.zeros((0, 3)), "w": mx.np.ones((2, 2))})
        loaded = {name: array.asnumpy() for name, array in mx.npx.load(path).items()}
    assert int.from_bytes((tmp_path / "m.params").read_bytes()[24:28], "little") == V3
    tree = pt.open(path)
    assert [param.shape for param in tree.values()] == [(), (0, 3), (2, 2)]
    for name, expected in loaded.items():
        same_bits(tree[name].value, expected)


def test_sparse_arrays_are_read_as_dense(mx, tmp_path):
    of = mx.nd.sparse
    arrays = {
        "rows": of.row_sparse_array((np.arange(1, 13).reshape(2, 3, 2), [1, 4]), shape=(6, 3, 2)),
        "no rows": of.zeros("row_sparse", (5, 2)),
        "every row": mx.nd.array(np.arange(1, 7).reshape(3, 2)).tostype("row_sparse"),
        "matrix": of.csr_matrix(([1, 2, 3], [1, 0, 2], [0, 1, 1, 3]), shape=(3, 4), dtype="float64"),
        "no values": of.zeros("csr", (3, 4)),
        "full": mx.nd.array(np.arange(1, 7).reshape(3, 2)).tostype("csr"),
        "dense": mx.nd.ones((2,)),
    }
    mx.nd.waitall()  # MXNet 1.9.1 writes the shape of what is stored before it is computed
    mx.nd.save(str(tmp_path / "m.params"), arrays)
    tree = equals_mxnet(mx, tmp_path / "m.params")
    assert tree.notes == (
        "3 of the arrays are stored as row_sparse; sizes here count their zeros, too",
        "3 of the arrays are stored as csr; sizes here count their zeros, too",
    )
    assert not tree.ties


@pytest.fixture(scope="module")
def net(mx):
    """A trained net with a convolution, running statistics and a layer that is used twice."""
    nn = mx.gluon.nn
    mx.random.seed(0)
    net = nn.HybridSequential()
    shared = nn.Dense(4, in_units=4)
    net.add(nn.Conv2D(2, 3), nn.BatchNorm(), nn.Dense(4), shared, nn.Dense(4, params=shared.params))
    net.initialize()
    net.hybridize()
    with mx.autograd.record():
        loss = net(mx.nd.random.uniform(shape=(3, 1, 6, 6))).sum()
    loss.backward()
    mx.gluon.Trainer(net.collect_params(), "adam").step(1)
    return net


def test_save_parameters(mx, net, tmp_path):
    net.save_parameters(str(tmp_path / "m.params"))
    tree = equals_mxnet(mx, tmp_path / "m.params")
    assert list(tree) == list(net._collect_params_with_prefix())
    assert tree["1.running_mean"].kind == "buffer"
    assert tree["1.gamma"].kind == "parameter"
    assert tree.layers[0].weight.shape == (2, 1, 3, 3)
    same_bits(tree["4.weight"].value, tree["3.weight"].value)
    assert not tree.ties  # the file holds both, and nothing says that they are one


def test_save_parameters_without_duplicates_keeps_the_last_name(mx, net, tmp_path):
    net.save_parameters(str(tmp_path / "m.params"), deduplicate=True)
    tree = equals_mxnet(mx, tmp_path / "m.params")
    assert "4.weight" in tree
    assert "3.weight" not in tree


def test_export_and_its_symbol(mx, net, tmp_path):
    net.export(str(tmp_path / "net"), epoch=12)
    tree = equals_mxnet(mx, tmp_path / "net-0012.params")
    symbol = mx.sym.load(str(tmp_path / "net-symbol.json"))
    auxiliary = set(symbol.list_auxiliary_states())
    assert {name for name, param in tree.items() if param.kind == "buffer"} == auxiliary
    inputs = [name for name in symbol.get_internals().list_outputs() if name in tree]
    assert list(tree) == inputs
    assert dict(tree.meta) == {"epoch": 12, "mxnet_version": "1.9.1"}
    shared = net[3].weight.name
    assert [note for note in tree.notes if note.startswith(shared)]
    assert len(tree.notes) == 2
    assert all("is shared by" in note and note.count("_fwd") == 2 for note in tree.notes)
    assert tree[f"arg:{shared}"] is tree[shared]
    assert list(tree.select(f"arg:{shared}")) == [shared]


def test_save_checkpoint_of_the_module_api(mx, tmp_path):
    data = mx.sym.var("data")
    graph = mx.sym.BatchNorm(mx.sym.FullyConnected(data, num_hidden=3, name="fc"), name="bn")
    module = mx.mod.Module(graph, label_names=None)
    module.bind([("data", (2, 4))], for_training=False)
    module.init_params()
    module.save_checkpoint(str(tmp_path / "net"), 1)
    tree = equals_mxnet(mx, tmp_path / "net-0001.params")
    assert list(tree) == ["fc_weight", "fc_bias", "bn_gamma", "bn_beta", "bn_moving_mean", "bn_moving_var"]
    assert [param.kind for param in tree.values()] == ["parameter"] * 4 + ["buffer"] * 2
    assert tree.notes == ()


def test_names_of_a_block_with_its_prefix(mx, net, tmp_path):
    net.collect_params().save(str(tmp_path / "m.params"))
    tree = equals_mxnet(mx, tmp_path / "m.params")
    kinds = {name.rpartition("_")[2]: param.kind for name, param in tree.items()}
    assert kinds == dict.fromkeys(["weight", "bias", "gamma", "beta"], "parameter") | dict.fromkeys(
        ["mean", "var"], "buffer"
    )


def test_the_states_of_a_trainer(mx, net, tmp_path):
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.25})
    with mx.autograd.record():
        loss = net(mx.nd.ones((3, 1, 6, 6))).sum()
    loss.backward()
    trainer.step(1)
    trainer.save_states(str(tmp_path / "m.states"))
    assert not format.sniff(LocalFile(tmp_path / "m.states"))
    states = trainer._updaters[0].states
    with pt.open(tmp_path / "m.states") as tree:
        assert tree.format == "Python pickle"
        assert {param.kind for param in tree.values()} == {"state"}
        assert len(tree) == 2 * len(states)
        for number, moments in states.items():
            for i, moment in enumerate(moments):
                same_bits(tree[f"0.{number}.{i}"].value, moment.asnumpy())
        assert (tree.meta["optimizer"], tree.meta["lr"], tree.meta["beta1"]) == ("Adam", 0.25, 0.9)


def test_pickled_arrays(mx, tmp_path):
    array = mx.nd.arange(6).reshape((2, 3))
    arrays = {"w": array, "again": array, "r": array.tostype("row_sparse"), "c": array.tostype("csr")}
    mx.nd.waitall()
    data = pickle.dumps(arrays, 4)
    tree = pt.open(written(tmp_path / "m.pkl", data))
    for name in ("w", "again", "r", "c"):
        same_bits(tree[name].value, array.asnumpy())
    assert tree.ties == (("w", "again"),)


def test_a_great_pickled_array_stays_in_the_file(mx, tmp_path):
    array = mx.nd.arange(300_000)
    path = written(tmp_path / "m.pkl", pickle.dumps({"w": array}, 4))
    with pt.open(path) as tree:
        assert isinstance(tree["w"].array.source, Window)
        same_bits(tree["w"].value, array.asnumpy())


def test_a_pickled_array_that_is_damaged(mx, tmp_path):
    data = pickle.dumps({"w": mx.nd.arange(6)}, 4)
    for bad, message in (
        (data.replace(struct.pack("<q", 6), struct.pack("<q", 7)), "needs 28 bytes here and 24 are left"),
        (data.replace(struct.pack("<q", 6), struct.pack("<q", 5)), "4 bytes follow an array"),
        (data.replace(struct.pack("<I", V2), b"none"), "no array begins here"),
    ):
        with pytest.raises(pt.CorruptFileError, match=message) as caught:
            pt.open(written(tmp_path / "m.pkl", bad))
        assert caught.value.member == "w"
    nothing = data.replace(b"handle", b"handed")
    assert pt.open(written(tmp_path / "m.pkl", nothing))["w"].array.problem


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(names, st.tuples(shapes, st.sampled_from(sorted(WRITABLE))), max_size=5))
def test_what_mxnet_writes_is_read_back(mx, tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("mxnet") / "m.params"
    rng = np.random.default_rng(0)
    made = {
        name: mx.nd.array((rng.random(lengths) * 9).astype(np.int64)).astype(dtype)
        for name, (lengths, dtype) in arrays.items()
    }
    mx.nd.save(str(path), made)
    with pt.open(path) as tree:
        found = {(param.aliases or (name,))[0]: param for name, param in tree.items()}
        assert list(found) == list(made)
        for name, array in made.items():
            same_bits(found[name].value, array.asnumpy())


# Older versions, from the source of the reader that MXNet keeps for them


@pytest.mark.parametrize("make", [dense, oldest, lambda *a: dense(*a, magic=V1)])
@pytest.mark.parametrize("flag", [0, 1, 2, 3, 4, 5, 6, 7])
def test_older_versions_equal_mxnets_own_reading(mx, tmp_path, make, flag):
    dtype = np.dtype(DTYPES[flag])
    values = (np.arange(12) % 2).astype(dtype).reshape(3, 4)
    data = params(
        {
            "arg:w": make((3, 4), values.tobytes(), flag),
            "v": make((1,), values.tobytes()[: dtype.itemsize], flag),
        }
    )
    tree = equals_mxnet(mx, written(tmp_path / "m.params", data))
    same_bits(tree["w"].value, values)


@pytest.mark.parametrize("flag", sorted(DTYPES))
def test_every_type_flag(tmp_path, flag):
    values = np.array([0, 1, 1]).astype(numpy_dtype(DTYPES[flag]))
    tree = pt.open(written(tmp_path / "m.params", params({"w": dense((3,), values.tobytes(), flag)})))
    same_bits(tree["w"].value, values)


def test_sparse_bytes_of_the_tests_are_what_mxnet_reads(mx, tmp_path):
    equals_mxnet(mx, written(tmp_path / "m.params", params({"r": rows(), "c": csr()})))


@pytest.mark.parametrize(
    "record",
    [bytes(4), dense((), b"", magic=V1)[:8], dense((), b"")[:12], dense((), b"", magic=V3, axes=-1)[:12]],
)
def test_arrays_that_were_never_initialised_are_listed(tmp_path, record):
    tree = pt.open(written(tmp_path / "m.params", params({"a": record, "b": dense()})))
    assert (tree["a"].shape, tree["a"].kind, tree["b"].value.shape) == ((None,), "other", (4,))
    with pytest.raises(pt.UnreadableError, match="saved before it was initialised"):
        _ = tree["a"].value


# Parts of sparse arrays

PLACES = st.integers(-6, 5) | st.slices(6) | st.just(slice(None))
COLUMNS = st.integers(-4, 3) | st.slices(4) | st.just(slice(None))


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(0, 5)), st.integers(0, 1 << 24), PLACES, COLUMNS)
def test_any_part_of_a_sparse_array(stored, mask, at, column):
    """The dense twin is made by NumPy."""
    kept = np.array([mask >> place & 1 for place in range(24)], bool).reshape(6, 4)
    matrix = np.where(kept, np.arange(1, 25).reshape(6, 4), 0).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(kept.sum(1))])
    numbers = sorted(stored)
    some = np.zeros((6, 4), np.float32)
    some[numbers] = np.arange(1, 4 * len(numbers) + 1).reshape(-1, 4)
    values = matrix[kept]
    places = np.concatenate([starts, np.nonzero(kept)[1]]).astype(np.int64)
    arrays = {
        "c": sparse(
            CSR, (6, 4), values.shape, [(I64, (7,)), (I64, values.shape)], values.tobytes() + places.tobytes()
        ),
        "r": sparse(
            ROW_SPARSE, (6, 4), (len(numbers), 4), [(I64, (len(numbers),))],
            some[numbers].tobytes() + np.array(numbers, np.int64).tobytes(),
        ),
    }  # fmt: skip
    with TemporaryDirectory() as folder, pt.open(written(Path(folder) / "m", params(arrays))) as tree:
        for index in ((at, column), at, (slice(None), column), ...):
            same_bits(np.asarray(tree["c"][index]), np.asarray(matrix[index]))
            same_bits(np.asarray(tree["r"][index]), np.asarray(some[index]))


def test_only_the_rows_asked_for_are_read(tmp_path, monkeypatch):
    path = written(tmp_path / "m.params", params({"w": rows(tuple(range(1000)), 2000)}))
    read = []
    plain = LocalFile.readinto
    with pt.open(path) as tree:
        monkeypatch.setattr(
            LocalFile, "readinto", lambda self, view, at: (read.append(len(view)), plain(self, view, at))
        )
        assert tree["w"][7].tolist() == [15, 16]
        assert sum(read) == 8 * 1000 + 8  # where the rows belong, and the row


# Names, order, kinds


def test_prefixes_are_dropped_unless_that_leaves_one_name_for_two(tmp_path):
    keys = ["arg:a", "aux:a", "arg:b", "c", "arg:c", "aux:d", "arg:"]
    tree = pt.open(written(tmp_path / "m.params", params({key: dense() for key in keys})))
    assert list(tree) == ["arg:a", "aux:a", "b", "c", "arg:c", "d", "arg:"]
    assert [tree[key].name for key in keys] == list(tree)
    assert [param.kind for param in tree.values()].count("buffer") == 2


def graph(folder, nodes, more=None, name="net-0000.params", arrays=("arg:w", "arg:v", "aux:m")):
    (folder / "net-symbol.json").write_text(json.dumps({"nodes": nodes} | (more or {})))
    return pt.open(written(folder / name, params({key: dense() for key in arrays})))


def variable(name):
    return {"op": "null", "name": name, "inputs": []}


def test_the_order_is_that_of_the_graph(tmp_path):
    nodes = [variable("data"), variable("m"), variable("v"), variable("w")]
    assert list(graph(tmp_path, nodes)) == ["m", "v", "w"]


def test_what_the_graph_does_not_have_is_said_and_comes_last(tmp_path):
    tree = graph(tmp_path, [variable("v")])
    assert list(tree) == ["v", "w", "m"]
    assert tree.notes == ("not in the graph beside the file: w, m",)


def test_many_uses_and_many_shared_take_few_words(tmp_path):
    names = [f"w{n}" for n in range(6)]
    users = [
        {"op": "f", "name": f"t{t}", "inputs": [[n, 0, 0] for n in range(6)] + [[0, 0, 0]]} for t in range(9)
    ]
    tree = graph(tmp_path, [*map(variable, names), *users], arrays=names)
    assert tree.notes[0] == "w0 is shared by t0, t1, t2 and 6 more"
    assert tree.notes[3:] == ("3 more are shared by several operations",)


@pytest.mark.parametrize(
    ("attributes", "version"),
    [({"mxnet_version": ["int", 905]}, "0.9.5"), ({"mxnet_version": ["int", "1"]}, None), ([], None)],
)
def test_the_version_of_the_graph(tmp_path, attributes, version):
    assert graph(tmp_path, [variable("w")], {"attrs": attributes}).meta.get("mxnet_version") == version


def test_a_graph_is_looked_for_only_where_its_name_says(tmp_path):
    (tmp_path / "net-symbol.json").write_text("no JSON")
    data = params({"w": dense()})
    assert pt.open(written(tmp_path / "net.params", data)).meta == {}
    assert pt.open(written(tmp_path / "other-0001.params", data)).meta == {"epoch": 1}
    with pytest.raises(pt.CorruptFileError, match=r"net-symbol\.json: at byte 0: this is not JSON"):
        pt.open(written(tmp_path / "net-0001.params", data))


def test_a_folder_with_one_file_of_params(tmp_path):
    graph(tmp_path, [variable("w")])
    assert len(pt.open(tmp_path)) == 3


def test_bytes_behind_the_names_are_noted(tmp_path):
    tree = pt.open(written(tmp_path / "m.params", params({"w": dense()}, tail=b"abc")))
    assert tree.notes == ("3 bytes follow the names; nothing says what they are",)


def test_a_great_sparse_array_is_read_in_part(tmp_path):
    from tests.attacks.cases_mxnet import I64, ROW_SPARSE, sparse

    data = struct.pack("<2fq", 1.5, 2.5, 1 << 39)
    record = sparse(ROW_SPARSE, (1 << 40, 2), (1, 2), [(I64, (1,))], data)
    tree = pt.open(written(tmp_path / "m.params", params({"w": record})))
    assert tree["w"][(1 << 39) - 1 : (1 << 39) + 1].tolist() == [[0, 0], [1.5, 2.5]]
    with pytest.raises(pt.UnreadableError, match=r"array 0 is sparse, .* take a part of it"):
        _ = tree["w"].value


# What is written of an export, for MXNet's own loaders


def exported(mx, net, folder):
    net.export(str(folder / "exp"))
    (folder / "ours-symbol.json").write_bytes((folder / "exp-symbol.json").read_bytes())
    return folder / "exp-0000.params", folder / "ours-0000.params"


def test_mxnet_loads_an_export_that_was_rewritten(mx, net, tmp_path):
    theirs, ours = exported(mx, net, tmp_path)
    pt.save(theirs, ours, verify=True)
    one, other = mx.nd.load(str(theirs)), mx.nd.load(str(ours))
    assert one.keys() == other.keys()
    assert {key[:4] for key in other} == {"arg:", "aux:"}
    for key, array in one.items():
        same_bits(other[key].asnumpy(), array.asnumpy())
    _, expected, statistics = mx.model.load_checkpoint(str(tmp_path / "exp"), 0)
    _, found, auxiliary = mx.model.load_checkpoint(str(tmp_path / "ours"), 0)
    assert (found.keys(), auxiliary.keys()) == (expected.keys(), statistics.keys())
    block = mx.gluon.SymbolBlock.imports(str(tmp_path / "ours-symbol.json"), ["data"], str(ours))
    data = mx.nd.random.uniform(shape=(3, 1, 6, 6))
    same_bits(block(data).asnumpy(), net(data).asnumpy())


def test_names_that_are_new_in_an_export_are_told_by_their_kind(mx, net, tmp_path):
    theirs, ours = exported(mx, net, tmp_path)
    tree = pt.open(theirs)
    pt.save(tree.rename({"**": "new_**"}), ours)
    found = set(mx.nd.load(str(ours)))
    assert found == {f"{key[:4]}new_{key[4:]}" for key in mx.nd.load(str(theirs))}
    pt.save(tree, tmp_path / "m.npz")
    pt.save(tree | pt.open(tmp_path / "m.npz").select("**weight"), ours, force=True)
    assert mx.nd.load(str(ours)).keys() == mx.nd.load(str(theirs)).keys()


def test_plain_names_stay_plain(mx, net, tmp_path):
    net.save_parameters(str(tmp_path / "m.params"))
    pt.save(tmp_path / "m.params", tmp_path / "ours.params")
    pt.save(net, tmp_path / "live.params", ties="twice")
    expected = mx.nd.load(str(tmp_path / "m.params")).keys()
    assert mx.nd.load(str(tmp_path / "ours.params")).keys() == expected
    assert mx.nd.load(str(tmp_path / "live.params")).keys() == expected
