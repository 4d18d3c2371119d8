"""Manifests: the same of every container; of a source that has changed, what, where, and in which file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import paratree as pt
from benchmarks import flips
from paratree.core.tree import Origin
from paratree.files.array import file_array
from paratree.files.composed import composed_array
from paratree.files.local import LocalFile
from paratree.verbs import fingerprint as hashing
from tests.attacks.cases_gguf import Tensor, gguf
from tests.verbs.held import Held, held, tree_of, write

ARRAYS = {
    "embed.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "0.bias": np.arange(5).astype(ml_dtypes.bfloat16),
    "0.mask": np.array([True, False, True]),
    "nothing": np.zeros((0, 3), np.float32),
    "steps": np.array(7, np.int64),
}
OF_MXNET = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.arange(5, dtype=np.float16),
    "bytes": np.arange(9, dtype=np.uint8),
    "mask": np.array([True, False, True]),
    "steps": np.array([7], np.int64),
}
CONTAINERS = {  # of which each verifies the others
    ".safetensors .pt .npz .msgpack": ARRAYS,
    ".safetensors .pt .npz .msgpack .params": OF_MXNET,
}


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "model.safetensors", ARRAYS)


def changed(path, name, values):
    """Write a twin of a file with another array."""
    return write(path, {**ARRAYS, name: values})


def whats(found):
    return [(failure.what, failure.name) for failure in found.failures]


def document(file):
    return json.loads(pt.manifest(file).text)


# What a manifest is


def test_a_manifest_lists_dtype_shape_hash_and_chunks(file):
    found = document(file)
    assert (found["schema"], found["paratree"], found["hash"]) == (1, pt.__version__, "blake3")
    assert (found["chunk"], found["ties"]) == (1 << 24, [])
    assert found["total"] == pt.fingerprint(file).hash
    assert list(found["params"]) == list(pt.open(file))
    hashes = pt.fingerprint(file).params
    for name, entry in found["params"].items():
        one = hashes[name]
        assert (entry["dtype"], entry["shape"]) == (str(ARRAYS[name].dtype), [*ARRAYS[name].shape])
        assert (entry["hash"], entry["chunks"]) == (one.hash, [*one.chunks])


def test_a_parameter_takes_a_line(file):
    rows = pt.manifest(file).text.splitlines()
    assert sum('"dtype"' in row for row in rows) == len(ARRAYS)


def test_it_is_saved_whole_and_replaces_nothing_unasked(file, tmp_path):
    found = pt.manifest(file)
    path = tmp_path / "m.json"
    found.save(path)
    assert path.read_text() == found.text
    with pytest.raises(FileExistsError):
        found.save(path)
    found.save(path, force=True)
    assert pt.verify(file, path)


def test_equal_manifests_are_equal_whatever_the_container(file, tmp_path):
    pt.save(file, tmp_path / "m.npz")
    one, other = pt.manifest(file), pt.manifest(tmp_path / "m.npz")
    assert one == other
    assert hash(one) == hash(other)
    assert one != pt.manifest(file, select="0.*")
    assert repr(one) == f"<Manifest {one.hash}: 5 parameters>"


def test_what_cannot_be_read_is_in_no_manifest():
    lazy = held("later", np.zeros(3))
    lazy.array.problem = "later: not initialised yet"
    fact = "net: later cannot be read: not initialised yet; select what can be"
    with pytest.raises(pt.UnreadableError, match=re.escape(fact)):
        pt.manifest(tree_of(lazy, w=np.zeros(2)))
    with pytest.raises(pt.UnreadableError, match="there is no parameter that a manifest could list"):
        pt.manifest(tree_of())


def test_a_text_that_belongs_to_no_model_is_left_out():
    text = held("words", np.zeros(3), "other")
    text.array.problem = "a text"
    tree = tree_of(text, w=np.zeros(2))
    found = pt.manifest(tree)
    assert list(found.params) == ["w"]
    assert pt.verify(tree, found)


# What verifies


@pytest.mark.parametrize("containers", CONTAINERS)
def test_a_manifest_of_one_container_verifies_every_other(tmp_path, containers):
    paths = [tmp_path / f"m{suffix}" for suffix in containers.split()]
    arrays = CONTAINERS[containers]
    for path in paths:
        pt.save(tree_of(**arrays), path)
    for made_of in paths:
        manifest = pt.manifest(made_of)
        for path in paths:
            found = pt.verify(path, manifest)
            assert found.passed, (made_of, path, found)
            assert (found.intact, found.tensors, found.notes) == (len(arrays), len(arrays), ())


def test_a_live_model_verifies_its_file_and_the_reverse(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    assert pt.verify(tmp_path / "net.pt", pt.manifest(net))
    manifest = pt.manifest(tmp_path / "net.pt")
    assert pt.verify(net, manifest)
    with torch.no_grad():
        net[2].bias[1] += 1
    found = pt.verify(net, manifest)
    assert whats(found) == [("changed", "2.bias")]
    assert found.failures[0].places == ()
    assert str(found.failures[0]) == "2.bias: changed between byte 0 and byte 8 of its values"


def test_a_source_of_many_chunks_is_read_once_in_any_order_of_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "CHUNK", 16)
    params = [
        held("w", np.arange(64, dtype=np.int16), memory=1),
        held("v", np.arange(64, dtype=np.int16), memory=1),
    ]
    tree = tree_of(*params)
    manifest = pt.manifest(tree)
    done = []
    found = pt.verify(tree, manifest, threads=3, progress=lambda now, total: done.append((now, total)))
    assert (found.passed, found.nbytes, done[-1]) == (True, 128, (128, 128))
    assert params[0].array.read_values + params[1].array.read_values == 2 * 64  # once for each verb


# What fails, and where


def test_a_changed_parameter_is_told_with_its_bytes_and_those_of_the_file(file):
    manifest = pt.manifest(file)
    raw = bytearray(file.read_bytes())
    start = raw.index(ARRAYS["embed.weight"].tobytes())
    raw[start + 9] ^= 0x10
    file.write_bytes(raw)
    found = pt.verify(file, manifest)
    (failure,) = found.failures
    assert not found
    assert (failure.what, failure.name, failure.start, failure.stop) == ("changed", "embed.weight", 0, 48)
    assert failure.places == ((str(file), start, start + 48),)
    words = f"changed between byte 0 and byte 48 of its values (byte {start} to {start + 48} of the file)"
    assert failure.text == words
    assert repr(found) == f"<Verification {file}: 4 of 5 tensors intact, 1 failure: embed.weight: {words}>"


def test_each_range_of_chunks_that_changed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "CHUNK", 16)
    values = np.arange(40, dtype=np.float32)
    file = write(tmp_path / "m.safetensors", {"w": values})
    manifest = pt.manifest(file)
    other = values.copy()
    other[[5, 9, 38]] = -1
    write(file, {"w": other})
    found = pt.verify(file, manifest)
    start = file.read_bytes().index(other.tobytes())
    assert [(one.start, one.stop) for one in found.failures] == [(16, 48), (144, 160)]
    assert [one.places[0][1:] for one in found.failures] == [
        (start + 16, start + 48),
        (start + 144, start + 160),
    ]


def test_missing_unexpected_dtype_and_shape(file, tmp_path):
    manifest = pt.manifest(file)
    arrays = {
        "embed.weight": ARRAYS["embed.weight"].reshape(4, 3),
        "0.bias": ARRAYS["0.bias"].view(np.float16),
        "0.mask": ARRAYS["0.mask"][:2].view(np.uint8),
        "nothing": ARRAYS["nothing"],
        "more": np.zeros(2, np.float32),
    }
    found = pt.verify(write(tmp_path / "other.safetensors", arrays), manifest)
    assert sorted(map(str, found.failures)) == [
        "0.bias: other dtype: float16, bfloat16 in the manifest",
        "0.mask: other dtype: uint8, bool in the manifest",
        "0.mask: other shape: [2], [3] in the manifest",
        "embed.weight: other shape: [4, 3], [3, 4] in the manifest",
        "more: unexpected: the manifest does not list it",
        "steps: missing: int64 [] in the manifest",
    ]
    assert {one.what for one in found.failures} == {"dtype", "shape", "unexpected", "missing"}
    assert (found.intact, found.nbytes) == (1, 0)


def test_what_cannot_be_read_is_told_and_the_rest_is_compared():
    manifest = pt.manifest(tree_of(v=np.zeros(2), w=np.zeros(2)))
    lazy = held("v", np.zeros(2))
    lazy.array.problem = "v: not initialised yet"
    found = pt.verify(tree_of(lazy, w=np.ones(2)), manifest)
    assert [str(one) for one in found.failures] == [
        "v: unreadable: not initialised yet",
        "w: changed between byte 0 and byte 16 of its values",
    ]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), pt.UnreadableError("no decoder")])
def test_a_read_that_fails_is_told_with_its_range(error, monkeypatch):
    monkeypatch.setattr(hashing, "CHUNK", 16)

    class Bad(Held):
        def read(self, index=...):
            found = super().read(index)
            if 8 in found:
                raise error
            return found

    values = np.arange(12, dtype=np.float32)
    manifest = pt.manifest(tree_of(w=values, v=values))
    tree = tree_of(pt.Param("w", Bad(values)), v=values)
    found = pt.verify(tree, manifest)
    assert [str(one) for one in found.failures] == [
        f"w: unreadable between byte 32 and byte 48 of its values: {error}"
    ]
    assert found.intact == 1


def test_a_packed_value_is_told_with_its_byte(tmp_path):
    values = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn)
    pt.save(tree_of(w=values), tmp_path / "m.safetensors")
    manifest = pt.manifest(tmp_path / "m.safetensors")
    raw = bytearray((tmp_path / "m.safetensors").read_bytes())
    for bit in range(64):
        raw[-1 - bit // 8] ^= 1 << bit % 8
        (tmp_path / "m.safetensors").write_bytes(raw)
        (failure,) = pt.verify(tmp_path / "m.safetensors", manifest).failures
        assert (failure.start, failure.stop, failure.places[0][1:]) == (0, 16, (len(raw) - 8, len(raw)))
        raw[-1 - bit // 8] ^= 1 << bit % 8


def test_the_storage_of_a_strided_tensor_is_the_place(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    whole = torch.arange(24.0).reshape(4, 6)
    torch.save({"w": whole[:, 1:3]}, tmp_path / "m.pt")
    manifest = pt.manifest(tmp_path / "m.pt")
    raw = bytearray((tmp_path / "m.pt").read_bytes())
    start = raw.index(whole.numpy().tobytes())
    raw[start + 4 * 8] ^= 1
    (tmp_path / "m.pt").write_bytes(raw)
    (failure,) = pt.verify(tmp_path / "m.pt", manifest).failures
    assert (failure.start, failure.stop) == (0, 32)
    assert failure.places[0][1:] == (start + 4, start + 4 * (1 + 3 * 6 + 2))


def test_blocks_of_a_quantised_dtype_are_told_as_they_are_stored(tmp_path):
    path = tmp_path / "m.gguf"
    blocks = bytes(range(2 * 18))
    path.write_bytes(gguf([Tensor("w", (64,), 2, blocks)]))
    manifest = pt.manifest(path)
    raw = bytearray(path.read_bytes())
    start = raw.index(blocks)
    raw[start + 30] ^= 1
    path.write_bytes(raw)
    (failure,) = pt.verify(path, manifest).failures
    assert (failure.start, failure.stop, failure.places) == (0, 36, ((str(path), start, start + 36),))


def rows_of(paths):
    """Return a tree of one array, each row of which lies in a file of its own."""
    files = [LocalFile(path) for path in paths]
    parts = [((i, 0), file_array(file, file.size - 16, (1, 4), "float32")) for i, file in enumerate(files)]
    array = composed_array(files[0], (len(paths), 4), "float32", parts, member="w")
    return pt.ParamTree([pt.Param("w", array)], Origin("net", "test"))


def test_of_an_array_in_several_files_those_of_the_range_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "CHUNK", 32)
    paths = [write(tmp_path / f"{i}.bin", {"w": np.full(4, i, np.float32)}) for i in range(8)]
    manifest = pt.manifest(rows_of(paths))
    paths[2].write_bytes(paths[2].read_bytes()[:-1] + b"\1")
    paths[7].write_bytes(paths[7].read_bytes()[:-1] + b"\1")
    first, second = pt.verify(rows_of(paths), manifest).failures
    assert (first.start, first.stop, second.start, second.stop) == (32, 64, 96, 128)
    assert [place.file for place in first.places] == [str(paths[2]), str(paths[3])]
    assert [place.file for place in second.places] == [str(paths[6]), str(paths[7])]
    size = paths[2].stat().st_size
    words = f"(byte {size - 16} to {size} of 2.bin, byte {size - 16} to {size} of 3.bin)"
    assert first.text == f"changed between byte 32 and byte 64 of its values {words}"
    monkeypatch.setattr(hashing, "CHUNK", 1 << 24)
    (whole,) = pt.verify(rows_of(paths), pt.manifest(tree_of(w=np.zeros((8, 4), np.float32)))).failures
    assert len(whole.places) == 8
    assert whole.text.endswith("of 2.bin, 5 more)")


def test_a_compressed_member_that_is_damaged_is_its_parameter(tmp_path):
    path = tmp_path / "m.npz"
    arrays = {name: np.random.default_rng(0).integers(0, 9, 500) for name in ("a", "b")}
    np.savez_compressed(path, **arrays)
    manifest = pt.manifest(path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 4] ^= 1
    path.write_bytes(raw)
    (failure,) = pt.verify(path, manifest).failures
    assert (failure.what, failure.name) == ("unreadable", "a")
    assert failure.places == ((str(path), None, None),)


# Ties


def tied(*names, format="test"):
    values = np.arange(4, dtype=np.float32)
    own = [held(name, values, memory=0 if name in names else name) for name in "abc"]
    return pt.ParamTree(own, Origin("net", format))


def test_a_tie_that_is_lost_is_a_failure(tmp_path):
    manifest = pt.manifest(tied("a", "b"))
    assert manifest.ties == (("a", "b"),)
    pt.save(tied("a", "b"), tmp_path / "same.pt")
    pt.save(tied(), tmp_path / "parted.pt")
    assert pt.verify(tmp_path / "same.pt", manifest)
    found = pt.verify(tmp_path / "parted.pt", manifest)
    assert [str(one) for one in found.failures] == ["a: tied differently: with b it was one parameter"]
    assert (found.failures[0].what, found.failures[0].names, found.intact) == ("ties", ("a", "b"), 3)


def test_a_tie_that_the_format_cannot_say_is_a_note(tmp_path):
    manifest = pt.manifest(tied("a", "b"))
    for suffix, format in ((".npz", "NumPy npz"), (".msgpack", "Flax msgpack"), (".params", "MXNet params")):
        pt.save(tied("a", "b"), tmp_path / f"m{suffix}", ties="twice")
        found = pt.verify(tmp_path / f"m{suffix}", manifest)
        assert (found.passed, found.notes) == (True, (f"a and b were tied, which {format} cannot say",))


def test_another_tie_is_a_note():
    found = pt.verify(tied("a", "c"), pt.manifest(tied()))
    assert found.passed
    assert found.notes == ("a and c are tied, and were not where the manifest was made",)


def test_a_name_that_was_left_out_for_its_twin_is_missing(tmp_path):
    manifest = pt.manifest(tied("a", "b"))
    pt.save(tied("a", "b"), tmp_path / "m.npz", ties="once")
    assert whats(pt.verify(tmp_path / "m.npz", manifest)) == [("missing", "b")]


def test_both_names_of_a_changed_tie_are_told(tmp_path):
    pt.save(tied("a", "b"), tmp_path / "m.safetensors")
    manifest = pt.manifest(tmp_path / "m.safetensors")
    raw = bytearray((tmp_path / "m.safetensors").read_bytes())
    raw[raw.index(np.arange(4, dtype=np.float32).tobytes())] ^= 1
    (tmp_path / "m.safetensors").write_bytes(raw)
    assert whats(pt.verify(tmp_path / "m.safetensors", manifest)) == [("changed", "a"), ("changed", "b")]


# A part


def test_a_selection_is_of_the_source_and_of_the_manifest(file, tmp_path):
    whole, part = pt.manifest(file), pt.manifest(file, select="0.*")
    assert list(part.params) == ["0.bias", "0.mask"]
    assert whats(pt.verify(file, part)) == [
        ("unexpected", name) for name in pt.open(file) if not name.startswith("0.")
    ]
    assert pt.verify(file, part, select="0.*").tensors == 2
    assert pt.verify(file, whole, select="0.*")
    other = changed(tmp_path / "other.safetensors", "steps", np.array(8, np.int64))
    assert pt.verify(other, whole, select=["0.*", "embed.*"])
    assert whats(pt.verify(other, whole, select=lambda param: param.dtype == "int64")) == [
        ("changed", "steps")
    ]
    assert whats(pt.verify(part_of(other, tmp_path), whole, select=re.compile("^s|mask"))) == [
        ("missing", "steps")
    ]
    with pytest.raises(pt.NoSuchParamError, match="nothing fits the selection, and nothing in the manifest"):
        pt.verify(file, whole, select="nowhere.**")


def part_of(file, folder):
    pt.save(file, folder / "part.npz", select="0.*")
    return folder / "part.npz"


def test_the_state_of_an_optimizer_can_be_left_out():
    model = tree_of(w=np.zeros(2))
    saved = tree_of(held("w", np.zeros(2)), held("m", np.ones(2), "state"))
    kinds = ["parameter", "buffer"]
    assert pt.verify(saved, pt.manifest(model), kind=kinds)
    assert pt.verify(model, pt.manifest(saved), kind=kinds)
    assert whats(pt.verify(model, pt.manifest(saved))) == [("missing", "m")]


# Files that cannot be opened


def sharded(folder, number=191):
    """Write a checkpoint of shards and an index, a parameter and a bias in each."""
    tree = tree_of(
        **{
            f"layers.{i}.{role}": np.full(8, i, np.float32)
            for i in range(number)
            for role in ("weight", "bias")
        }
    )
    pt.save(tree, folder / "model.safetensors", shard_size=64)
    return folder, pt.manifest(folder)


def shard(folder, place):
    return folder / f"model-{place:05}-of-00191.safetensors"


def test_one_changed_shard_of_191_is_named(tmp_path):
    folder, manifest = sharded(tmp_path)
    bad = shard(folder, 77)
    raw = bytearray(bad.read_bytes())
    raw[-1] ^= 1
    bad.write_bytes(raw)
    (failure,) = pt.verify(folder, manifest).failures
    assert (failure.what, failure.name) == ("changed", "layers.76.bias")
    assert failure.places == ((str(bad), len(raw) - 32, len(raw)),)
    assert f"(byte {len(raw) - 32} to {len(raw)} of {bad.name})" in failure.text


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def damaged(path):
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


def made_unknown(path):
    path.write_bytes(b"<html>")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (Path.unlink, "no such file"),
        (cut_short, r"at byte \d+: float32 \(8\) needs 32 bytes here and 31 are left"),
        (damaged, r"at byte 0: the header claims \d+ bytes and the file has \d+"),
        (made_unknown, "a web page or other markup, not weights; fetch the file itself"),
    ],
)
def test_one_shard_of_191_that_cannot_be_opened_is_named_and_the_others_are_read(tmp_path, damage, reason):
    folder, manifest = sharded(tmp_path)
    damage(shard(folder, 5))
    raw = bytearray(shard(folder, 9).read_bytes())
    raw[-1] ^= 1
    shard(folder, 9).write_bytes(raw)
    for source in (folder, folder / "model.safetensors.index.json"):
        found = pt.verify(source, manifest)
        first, second = found.failures
        assert re.fullmatch(
            f"{re.escape(str(shard(folder, 5)))}: unreadable: {reason}; its index says that it has 2 of the "
            "parameters",
            str(first),
        )
        assert (first.what, first.name, set(first.names)) == (
            "unreadable", None, {"layers.4.weight", "layers.4.bias"},
        )  # fmt: skip
        assert (second.what, second.name) == ("changed", "layers.8.bias")
        assert (found.intact, found.tensors) == (379, 382)


def test_a_shard_of_pytorch_that_cannot_be_opened_is_named(tmp_path):
    for place in (1, 2, 3):
        pt.save(tree_of(**{f"w{place}": np.arange(4.0) * place}), tmp_path / f"{place}.pt")
        (tmp_path / f"{place}.pt").rename(tmp_path / f"pytorch_model-{place}.bin")
    names = {f"w{place}": f"pytorch_model-{place}.bin" for place in (1, 2, 3)}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 96, "alias": "w1"}, "weight_map": names}))
    manifest = pt.manifest(tmp_path)
    assert manifest.ties == (("w1", "alias"),)
    assert pt.verify(tmp_path, manifest)
    cut_short(tmp_path / "pytorch_model-2.bin")
    (failure,) = pt.verify(tmp_path, manifest).failures
    assert (failure.places[0].file, failure.names) == (str(tmp_path / "pytorch_model-2.bin"), ("w2",))


def test_an_index_that_disagrees_with_its_shards_is_told(tmp_path):
    folder, manifest = sharded(tmp_path, 3)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("layers.1.bias", "layers.1.bia_"))
    found = pt.verify(folder, manifest)
    (failure,) = found.failures
    assert (failure.what, failure.name, failure.places[0].file) == ("unreadable", None, str(index))
    assert found.intact == found.tensors  # every shard has what it had
    index.write_text("{")
    (failure,) = pt.verify(folder, manifest).failures
    assert (failure.what, failure.places[0].file) == ("unreadable", str(index))


def test_a_file_that_cannot_be_opened_is_a_failure(file):
    manifest = pt.manifest(file)
    cut_short(file)
    found = pt.verify(file, manifest)
    assert (found.intact, found.tensors, found.source) == (0, 5, str(file))
    (failure,) = found.failures
    assert (failure.what, failure.name, failure.places) == ("unreadable", None, ((str(file), None, None),))
    assert re.search(r": unreadable: at byte \d+: .* needs \d+ bytes here and \d+ are left$", str(failure))


def test_a_pickle_that_would_run_code_is_a_failure(file, tmp_path):
    manifest = pt.manifest(file)
    bad = tmp_path / "bad.pkl"
    bad.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    (failure,) = pt.verify(bad, manifest).failures
    assert failure.what == "unreadable"
    assert "would call posix.system" in failure.text


def test_a_file_that_its_checkpoint_misses_is_named(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    dcp = pytest.importorskip("torch.distributed.checkpoint", reason="PyTorch without DCP")
    dcp.save({"w": torch.arange(4.0)}, checkpoint_id=tmp_path / "ckpt", no_dist=True)
    manifest = pt.manifest(tmp_path / "ckpt")
    (data,) = (tmp_path / "ckpt").glob("*.distcp")
    raw = bytearray(data.read_bytes())
    raw[raw.index(np.arange(4, dtype=np.float32).tobytes()) + 5] ^= 1
    data.write_bytes(raw)
    (failure,) = pt.verify(tmp_path / "ckpt", manifest).failures
    assert (failure.what, failure.name, failure.places[0].file) == ("changed", "w", str(data))
    data.unlink()
    (failure,) = pt.verify(tmp_path / "ckpt", manifest).failures
    assert failure.what == "unreadable"
    assert data.name in str(failure)


def test_a_path_that_is_not_there_is_trouble(file, tmp_path):
    manifest = pt.manifest(file)
    with pytest.raises(pt.SourceNotFoundError, match=r"nowhere.pt: no such file"):
        pt.verify(tmp_path / "nowhere.pt", manifest)
    with pytest.raises(pt.SourceNotFoundError, match=r"nowhere.json: no such file"):
        pt.verify(file, tmp_path / "nowhere.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(pt.UnknownSourceError, match="no checkpoint in this folder"):
        pt.verify(tmp_path / "empty", manifest)
    with pytest.raises(pt.UnknownSourceError):
        pt.verify(object(), manifest)
    with pytest.raises(pt.MismatchError, match="not an object of type int"):
        pt.verify(file, 3)
    with pytest.raises(pt.MismatchError, match="threads"):
        pt.verify(file, manifest, threads=0)


# Bits


@pytest.mark.parametrize("name", flips.SUFFIXES)
def test_every_flipped_bit_of_the_values_is_noticed_and_nothing_else(name, tmp_path):
    arrays = flips.checkpoint()
    path = flips.written(tmp_path, name, arrays)
    found = flips.flip(path, pt.manifest(path), arrays, 200)
    assert found == (200, [], 0)


def test_ten_thousand_flips_in_memory_are_noticed():
    arrays = flips.checkpoint()
    names = [name for name, array in arrays.items() if array.size]
    manifest = pt.manifest(tree_of(**arrays))
    generator = np.random.default_rng(0)
    for _ in range(10_000):
        name = names[generator.integers(len(names))]
        raw = arrays[name].reshape(-1).view(np.uint8)
        byte, bit = generator.integers(raw.size), generator.integers(8)
        raw[byte] ^= np.uint8(1 << bit)
        found = pt.verify(tree_of(**{name: arrays[name]}), manifest, select=name, threads=1)
        assert whats(found) == [("changed", name)]
        raw[byte] ^= np.uint8(1 << bit)
    assert pt.verify(tree_of(**arrays), manifest)


def test_every_flipped_bit_of_a_header_is_noticed(tmp_path):
    file = write(tmp_path / "m.safetensors", {"w": np.arange(2, dtype=np.float32)})
    manifest = pt.manifest(file)
    raw = bytearray(file.read_bytes())
    for bit in range((len(raw) - 8) * 8):
        raw[bit // 8] ^= 1 << bit % 8
        file.write_bytes(raw)
        assert not pt.verify(file, manifest, threads=1), bit
        raw[bit // 8] ^= 1 << bit % 8


def test_a_flipped_bit_of_a_manifest_is_no_false_alarm(tmp_path):
    file = write(tmp_path / "m.safetensors", {"w": np.arange(2, dtype=np.float32), "v": np.zeros(0, np.int8)})
    raw = bytearray(pt.manifest(file).text.encode())
    path = tmp_path / "m.json"
    for bit in range(0, len(raw) * 8, 7):
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        try:
            assert pt.verify(file, path, threads=1), bit  # of the version, of a kind, or of a space
        except pt.CorruptFileError as error:
            assert str(error).startswith(f"{path}:")
        raw[bit // 8] ^= 1 << bit % 8


# Manifests that are none


def edited(file, **fields):
    found = document(file)
    found.update(fields)
    return json.dumps(found)


def entry_edited(file, **fields):
    found = document(file)
    found["params"]["steps"].update(fields)
    return json.dumps(found)


WRONG = {
    "nothing": (lambda file: "", "this is not JSON"),
    "no JSON": (lambda file: "\x00\x01", "this is not JSON"),
    "a list": (lambda file: "[]", "this JSON is not an object"),
    "deep": (lambda file: "[" * 100_000, "this JSON cannot be taken"),
    "long number": (lambda file: '{"schema": ' + "9" * 5000 + "}", "this JSON cannot be taken"),
    "another file": (lambda file: '{"weight_map": {}}', "it is no manifest"),
    "schema": (lambda file: edited(file, schema=2), "its schema is 2, not 1; a newer paratree may know it"),
    "schema true": (lambda file: edited(file, schema=True), "its schema is True, not 1"),
    "hash": (lambda file: edited(file, hash="sha256"), "its hash is 'sha256', not 'blake3'"),
    "chunk": (lambda file: edited(file, chunk=1), "its chunk is 1, not 16777216"),
    "total": (lambda file: edited(file, total="0" * 64), "its total is not the hash of its parameters"),
    "no total": (lambda file: edited(file, total=None), "its total is not the hash of its parameters"),
    "no params": (lambda file: edited(file, params={}), "it lists no parameters"),
    "params a list": (lambda file: edited(file, params=[1]), "it lists no parameters"),
    "entry": (lambda file: edited(file, params={"w": 3}), "(member w): its entry is no object"),
    "entry empty": (lambda file: edited(file, params={"w": {}}), "(member w): None is no dtype"),
    "dtype": (lambda file: entry_edited(file, dtype="float31"), "(member steps): 'float31' is no dtype"),
    "dtype a list": (lambda file: entry_edited(file, dtype=[]), "[] is no dtype"),
    "shape": (lambda file: entry_edited(file, shape=[-1]), "[-1] is no shape"),
    "shape true": (lambda file: entry_edited(file, shape=[True]), "[True] is no shape"),
    "shape too large": (lambda file: entry_edited(file, shape=[2**62, 4]), "is no shape"),
    "shape of many axes": (lambda file: entry_edited(file, shape=[1] * 65), "is no shape"),
    "shape a text": (lambda file: entry_edited(file, shape="x"), "'x' is no shape"),
    "many chunks missing": (lambda file: entry_edited(file, shape=[2**59]), "it has 1 chunks for"),
    "kind": (lambda file: entry_edited(file, kind=["x"]), "['x'] is no kind"),
    "chunks": (lambda file: entry_edited(file, chunks=["00"]), "its chunks are no hashes"),
    "chunks of numbers": (lambda file: entry_edited(file, chunks=[1]), "its chunks are no hashes"),
    "no chunks": (lambda file: entry_edited(file, chunks=None), "its chunks are no hashes"),
    "other chunk": (
        lambda file: entry_edited(file, chunks=["0" * 64]),
        "its hash is not that of its dtype, shape and chunks",
    ),
    "other shape": (lambda file: entry_edited(file, shape=[1]), "its hash is not that of its dtype"),
    "no ties": (lambda file: edited(file, ties=None), "its ties are no groups of names"),
    "tie of one": (lambda file: edited(file, ties=[["steps"]]), "its ties are no groups of names"),
    "tie of none": (lambda file: edited(file, ties=[[]]), "its ties are no groups of names"),
    "tie of numbers": (lambda file: edited(file, ties=[[1, [2]]]), "its ties are not of its parameters"),
    "tie of strangers": (lambda file: edited(file, ties=[["a", "b"]]), "its ties are not of its parameters"),
    "tie twice": (lambda file: edited(file, ties=[["steps", "steps"]]), "its ties are not of its parameters"),
    "tie of others": (lambda file: edited(file, ties=[["steps", "0.mask"]]), "names of one group have other"),
    "a name twice": (
        lambda file: '{"schema": 1, "params": {"w": 1, "w": 2}}',
        "the key 'w' stands twice",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_manifest_that_is_none_is_one_clear_error(file, tmp_path, case):
    make, message = WRONG[case]
    path = tmp_path / "m.json"
    path.write_text(make(file))
    with pytest.raises(pt.CorruptFileError, match=re.escape(message)) as error:
        pt.verify(file, path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_huge_manifest_is_not_read(file, tmp_path):
    path = tmp_path / "m.json"
    path.touch()
    os.truncate(path, 10**12)
    with pytest.raises(
        pt.CorruptFileError, match="it is no manifest: 1000000000000 bytes are too many; make it again"
    ):
        pt.verify(file, path)


def test_names_of_any_characters_come_back(tmp_path):
    arrays = {"a\x1b\n": np.zeros(1), 'quo"te': np.ones(2), "ü\U0001f600": np.ones(3), "": np.ones(4)}
    arrays["lone\ud800"] = np.ones(5)
    tree = tree_of(*[held(name, value) for name, value in arrays.items()])
    pt.manifest(tree).save(tmp_path / "m.json")
    assert (tmp_path / "m.json").read_bytes().isascii()
    assert pt.verify(tree, tmp_path / "m.json").intact == 5
    found = pt.verify(tree_of(x=np.zeros(1)), tmp_path / "m.json")
    assert all(str(one).isprintable() for one in found.failures)
    assert str(found.failures[0]).startswith("a\\x1b\\n: missing")
