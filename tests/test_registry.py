"""Who opens what: bytes decide, folders, third parties, and errors that say what to do."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import types
import zipfile

import pytest

import paratree as pt
from paratree import registry
from paratree.core.tree import Origin
from tests.attacks.cases_keras import hdf5, keras3
from tests.attacks.makers import member, npy, safetensors, torch_zip, zipped


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npy", ".ckpt", ".txt", ""])
def test_the_suffix_proves_nothing(tmp_path, suffix):
    for content, format in (
        (safetensors(), "safetensors"),
        (torch_zip(), "PyTorch zip"),
        (npy(), "NumPy npy"),
    ):
        path = tmp_path / f"m{suffix}"
        path.write_bytes(content)
        assert pt.open(path).format == format


def test_unknown_bytes(tmp_path):
    path = tmp_path / "m.bin"
    path.write_bytes(b"\x7fELF and more")
    with pytest.raises(pt.UnknownSourceError, match=r"x7fELF.*fetch it again"):
        pt.open(path)
    path = tmp_path / "m.xyz"
    path.write_bytes(b"\x1b[31m")
    with pytest.raises(pt.UnknownSourceError, match="paratree formats") as caught:
        pt.open(path)
    assert str(caught.value).isprintable()


def test_unknown_object():
    with pytest.raises(pt.UnknownSourceError, match=r"builtins\.int: not a model of any of: .*torch"):
        pt.open(3)


def test_folder_with_one_file_or_a_conventional_one(tmp_path):
    (tmp_path / "some.safetensors").write_bytes(safetensors())
    (tmp_path / "readme.txt").write_text("nothing")
    assert pt.open(tmp_path).source.endswith("some.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(torch_zip())
    assert pt.open(tmp_path).source.endswith("pytorch_model.bin")
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    assert pt.open(tmp_path).source.endswith("model.safetensors")


def test_folder_with_several_files_asks(tmp_path):
    for name in ("a.safetensors", "b.pt"):
        (tmp_path / name).write_bytes(safetensors())
    with pytest.raises(
        pt.UnknownSourceError, match=r"2 files could be meant \(a\.safetensors, b\.pt\); name one"
    ):
        pt.open(tmp_path)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_shard_alone_does_not_stand_for_its_folder(tmp_path, suffix):
    path = tmp_path / f"model-00001-of-00004.{suffix}"
    path.write_bytes(safetensors() if suffix == "safetensors" else torch_zip())
    with pytest.raises(pt.UnknownSourceError, match="is one of 4 shards; fetch the others and their index"):
        pt.open(tmp_path)
    whole = path.rename(path.with_name(f"model-00001-of-00001.{suffix}"))
    assert list(pt.open(tmp_path)) == list(pt.open(whole))


@pytest.mark.parametrize("times", [2, 9])
def test_what_is_replaced_while_it_is_opened_is_opened_again(tmp_path, monkeypatch, times):
    """As shards go when the next index is in its place."""
    path, left = tmp_path / "m.safetensors", [times]
    path.write_bytes(safetensors())
    found = registry.known_formats()["safetensors"]

    class Replaced:
        @staticmethod
        def open(file):
            if left[0]:
                left[0] -= 1
                (tmp_path / "new").write_bytes(safetensors())
                (tmp_path / "new").replace(path)
                raise pt.SourceNotFoundError("a shard is gone")
            return found.open(file)

    monkeypatch.setattr(registry, "find_format", lambda file: Replaced)
    if times < 3:
        assert list(pt.open(path)) == ["w"]
    else:
        with pytest.raises(pt.SourceNotFoundError, match="a shard is gone"):
            pt.open(path)


def test_third_parties_add_and_never_replace(tmp_path, monkeypatch):
    other = types.ModuleType("other")
    other.NAME, other.SUFFIXES, other.FOLDER = "other", (".other",), ("*.other",)
    other.sniff = lambda file: file.head.startswith(b"OTHER")
    other.open = lambda file: pt.ParamTree({}, Origin(file.path, "other"))
    other.matches = lambda source: isinstance(source, set)

    class Point:
        def __init__(self, name):
            self.name = name

        def load(self):
            return other

    def points(group):
        return [Point("other"), Point("safetensors")]

    monkeypatch.setattr("importlib.metadata.entry_points", points)
    registry._third_party.cache_clear()
    try:
        path = tmp_path / "m"
        path.write_bytes(b"OTHER")
        assert (pt.open(path).format, [*pt.open(path).files]) == ("other", [str(path)])
        path.write_bytes(safetensors())
        assert pt.open(path).format == "safetensors"
        monkeypatch.setattr(other, "open", lambda source, grads: "a live other")
        assert pt.open(set()) == "a live other"
        assert registry.known_formats()["other"] is other
    finally:
        registry._third_party.cache_clear()


def test_opening_imports_no_framework(tmp_path):
    import subprocess

    path = tmp_path / "m.pt"
    path.write_bytes(torch_zip())
    code = f"import paratree, sys; paratree.open({str(path)!r}); print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"numpy", "torch", "h5py", "pickle", "zipfile", "rich"} & set(loaded)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file; fetch it again"),
        (zipped([member("readme", b"text")]), "a zip archive without data.pkl"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!doctype html><title>404</title>", "a web page"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".h5"])
def test_what_no_format_knows_is_described(tmp_path, content, message, suffix):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    with pytest.raises(pt.UnknownSourceError, match=message):
        pt.open(path)


GOODS = {
    "keras": hdf5(keras3), "numpy": npy(), "safetensors": safetensors(), "torch": torch_zip(),
}  # fmt: skip


@pytest.mark.parametrize("name", [*GOODS])
@pytest.mark.parametrize("suffix", ["", ".unknown"])
def test_bytes_that_tell_spare_the_import_of_every_format(name, suffix, tmp_path, monkeypatch):
    asked = []
    built_in = registry._built_in
    monkeypatch.setattr(registry, "_built_in", lambda room, name: asked.append(name) or built_in(room, name))
    path = tmp_path / f"m{suffix}"
    path.write_bytes(GOODS[name])
    pt.open(path).close()
    assert asked == [name]


def test_what_stands_for_a_folder_is_what_the_formats_say():
    every = {pattern for module in registry.known_formats().values() for pattern in module.FOLDER}
    assert sorted(registry._IN_FOLDER) == sorted(every)


def test_a_folder_of_several_conventional_names_is_opened_at_the_best(tmp_path):
    """As many models lie on the hub: the same weights in several formats."""
    (tmp_path / "flax_model.msgpack").write_bytes(b"\x80")
    (tmp_path / "pytorch_model.bin").write_bytes(torch_zip())
    assert pt.open(tmp_path).format == "PyTorch zip"
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    assert pt.open(tmp_path).format == "safetensors"


def test_a_folder_costs_the_import_of_one_format(tmp_path, monkeypatch):
    asked = []
    built_in = registry._built_in
    monkeypatch.setattr(registry, "_built_in", lambda room, name: asked.append(name) or built_in(room, name))
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    pt.open(tmp_path).close()
    assert asked == ["safetensors"]


def test_formats_that_are_asked_early_exist():
    early = {name for _, _, names in registry._OF_START for name in names}
    assert early <= set(registry._names("formats"))


def _archive(name, kind):
    content = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(content, "w") as written:
            written.writestr(name, torch_zip())
    else:
        with tarfile.open(fileobj=content, mode="w") as written:
            info = tarfile.TarInfo(name)
            info.size = len(torch_zip())
            written.addfile(info, io.BytesIO(torch_zip()))
    return content.getvalue()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("z.zip", _archive("sd.pt", "zip"), "a zip archive that holds sd.pt; unpack it and open that"),
        ("z.pt", _archive("a/b.safetensors", "zip"), "holds a/b.safetensors; unpack it"),
        ("z.zip", _archive("readme", "zip"), "without data.pkl.*save it again"),
        ("z.pt2", _archive("serialized_state_dict.pt", "zip"), "before torch 2.8; unpack it"),
        ("t.tar", _archive("sd.pt", "tar"), "a tar archive that holds sd.pt; unpack it and open that"),
        ("t.tar", _archive("readme", "tar"), "a tar archive; unpack it"),
        (
            "sd.pt.gz",
            gzip.compress(torch_zip()),
            "compressed with gzip; inflate it, gunzip -c '.*sd.pt.gz' > ",
        ),
        ("sd.pt", gzip.compress(torch_zip()), "compressed with gzip; .* > '.*sd.pt.inflated', and open"),
        ("net-symbol.json", b'{"nodes": [], "heads": []}', "MXNet.*open the .params file beside it"),
        ("inference.pdmodel", b"\x0a\xdc\x15\x08\x00", "Paddle.*open the .pdiparams file beside it"),
        ("manifest.ocdbt", b"\x0c\xdb\x3a\x2a\x00", "Orbax.*open the folder that _METADATA is in"),
        ("config.json", b'{"model_type": "bert"}', "a configuration, without weights; open its folder"),
    ],
)
def test_what_is_no_checkpoint_itself_says_what_to_open(tmp_path, file, content, said):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(pt.UnknownSourceError, match=said):
        pt.open(tmp_path / file)


def test_shards_of_dcp_without_their_metadata(tmp_path):
    (tmp_path / "__0_0.distcp").write_bytes(torch_zip())
    with pytest.raises(
        pt.UnknownSourceError, match=r"without \.metadata, which says what is in them; fetch it"
    ):
        pt.open(tmp_path)


def test_an_open_file_is_no_path(tmp_path):
    (tmp_path / "m.pt").write_bytes(torch_zip())
    with (
        (tmp_path / "m.pt").open("rb") as file,
        pytest.raises(pt.UnknownSourceError, match=r"m\.pt: an open file; give its path"),
    ):
        pt.open(file)
    with pytest.raises(pt.UnknownSourceError, match="BytesIO: an open file; give its path"):
        pt.open(io.BytesIO(torch_zip()))
