"""paratree convert, from outside."""

from __future__ import annotations

import json

import numpy as np
import pytest

import paratree as pt
from tests.test_cli import content, run


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("convert") / "model.safetensors"
    path.write_bytes(content())
    return path


def test_a_file_becomes_one_of_another_format(file, tmp_path):
    out = tmp_path / "m.pt"
    done = run("convert", file, out, "--verify")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(f"paratree: {out}: PyTorch · 6 tensors · ")
    assert done.stderr.splitlines()[0].endswith("· 1 tied group · read again and compared")
    assert run("diff", file, out).returncode == 0
    assert pt.open(out).ties == pt.open(file).ties


@pytest.mark.parametrize(("name", "facts"), [("dcp", "PyTorch DCP · 2 files"), ("orbax", "Orbax · 14 files")])
def test_a_file_becomes_a_folder(name, facts, file, tmp_path):
    out = tmp_path / "m"
    words = ("convert", file, out, "--format", name, "--ties", "twice", "--verify")
    done = run(*words)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(f"paratree: {out}: {facts} · 6 tensors · ")
    assert run("diff", file, out).returncode == 0
    done = run(*words)
    assert (done.returncode, done.stderr) == (
        2,
        f"paratree: {out}: it exists; replacing it takes force (--force)\n",
    )
    (out / "notes").write_bytes(b"precious")
    done = run(*words, "--force")
    assert done.returncode == 2
    assert "notes in it is no file of one; only a checkpoint of" in done.stderr
    (out / "notes").unlink()
    assert run(*words, "--force").returncode == 0


def test_json_says_what_was_written(file, tmp_path):
    out = tmp_path / "part.npz"
    done = run("convert", file, out, "--select", "layers.**", "--json")
    found = json.loads(done.stdout)
    assert (found["schema"], found["path"], found["format"], found["ties"]) == (1, str(out), "NumPy", [])
    assert found["nbytes"] == out.stat().st_size
    with np.load(out) as arrays:
        assert len(arrays) == found["names"]
        assert all(name.startswith("layers.") for name in arrays)


def test_ties_are_asked_for_where_there_are_none(file, tmp_path):
    done = run("convert", file, tmp_path / "m.npz")
    assert (done.returncode, done.stdout) == (2, "")
    assert "are tied, which NumPy cannot say; choose ties= (--ties): 'once'," in done.stderr
    assert run("convert", file, tmp_path / "m.npz", "--ties", "twice").returncode == 0


def test_a_file_is_replaced_only_with_force(file, tmp_path):
    out = tmp_path / "m.safetensors"
    out.write_bytes(b"precious")
    done = run("convert", file, out)
    assert (done.returncode, done.stderr) == (
        2,
        f"paratree: {out}: it exists; replacing it takes force (--force)\n",
    )
    assert out.read_bytes() == b"precious"
    assert run("convert", file, out, "--force").returncode == 0
    assert run("diff", file, out).returncode == 0


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (
            ["FILE", "m.excel"],
            "its suffix is of no format that is written; name one: dcp, flax, ",
        ),
        (
            ["FILE", "m.pt", "--format", "excel"],
            "'excel' is no format that is written: dcp, flax, ",
        ),
        (
            ["FILE", "."],
            ".: a folder; name a file in it, as ./model.safetensors, or a format of folders: dcp, orbax (--f",
        ),
        (["FILE", "new/"], "new/: a folder; name a file in it, as new/model.safetensors, or a format of"),
        (["FILE", ".", "--format", "torch", "--force"], ".: a folder; name a file in it, as ./model.pt, or"),
        (
            ["FILE", "."],
            ".: a folder; name a file in it, as ./model.safetensors, or a format of folders: dcp, ",
        ),
        (["FILE", "-", "--format", "safetensors"], "'-' is no file, and stdout is none that could be"),
        (["FILE", "-"], "'-' is no file, and stdout is none that could be replaced as a whole; give a path"),
        (
            ["FILE", "m.safetensors.index.json", "--format", "safetensors"],
            "m.safetensors.index.json: the name of an index of shards; give shard_size= (--shard-size), or "
            "write m.safetensors\n",
        ),
        (["FILE", "m.npz.index.json", "--shard-size", "1GB"], "m.npz: shards are those of .safetensors and"),
        (["FILE", "m.pt", "--dtype", "int8"], "'int8' is no floating dtype; give a name"),
        (["nowhere", "m.pt"], "nowhere: no such file or folder"),
        (["FILE"], "required: OUT"),
        (["FILE", "nowhere/m.pt"], "nowhere/m.pt: No such file or directory"),
    ],
)
def test_trouble_is_one_line_and_2(words, fact, file, tmp_path):
    done = run("convert", *(file if word == "FILE" else word for word in words), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert fact in done.stderr
    assert not any(tmp_path.iterdir())


def test_a_selection_that_fits_nothing_is_trouble(file, tmp_path):
    assert run("convert", file, tmp_path / "m.pt", "--select", "nope").returncode == 2
    assert not any(tmp_path.iterdir())


def test_each_pattern_of_a_selection_fits_something(file, tmp_path):
    done = run("convert", file, tmp_path / "m.pt", "--select", "layers.**", "--select", "embde.*")
    assert (done.returncode, "nothing fits 'embde.*'; did you mean 'embed.*'?" in done.stderr) == (2, True)
    assert not any(tmp_path.iterdir())


def names(path):
    with pt.open(path) as tree:
        return {name: param.dtype for name, param in tree.items()}


def test_names_change_in_one_order_and_each_is_cast_once(tmp_path):
    w = np.linspace(-3, 3, 12, dtype="float32").reshape(3, 4)
    np.savez(tmp_path / "m.npz", **{"module.0.weight": w, "module.0.bias": w[0], "module.n": np.arange(3)})
    done = run(
        "convert", "m.npz", "m.safetensors", "--drop", "**.n", "--dtype", "bf16", "--cast", "**.bias=fp64",
        "--strip-prefix", "module.", "--rename", "0.*=first.*", "--rename-regex", "weigh(t)=kernel\\1",
        "--add-prefix", "net.", cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert names(tmp_path / "m.safetensors") == {"net.first.kernelt": "bfloat16", "net.first.bias": "float64"}


@pytest.mark.parametrize(
    ("option", "prefix", "name"),
    [("--add-prefix", "model", "modellayers.0.weight"), ("--strip-prefix", "embed", ".weight")],
)
def test_a_prefix_without_its_dot_is_taken_as_it_stands_and_told(option, prefix, name, file, tmp_path):
    done = run("convert", file, tmp_path / "m.pt", option, prefix)
    fact = f"paratree: {option} {prefix} makes names as '{name}'; '{prefix}.' is the prefix with its dot\n"
    assert (done.returncode, done.stderr.startswith(fact)) == (0, True), done.stderr
    assert name in names(tmp_path / "m.pt")
    done = run("convert", file, tmp_path / "n.pt", option, f"{prefix}.")
    assert (done.returncode, "with its dot" in done.stderr) == (0, False)


def test_an_index_that_is_named_is_written(file, tmp_path):
    index = tmp_path / "m.safetensors.index.json"
    for size, count in (("40", 3), ("1GB", 2)):
        done = run("convert", file, index, "--shard-size", size, "--force", "--verify", "--json")
        found = json.loads(done.stdout)
        assert found["path"] == str(index)
        assert len(found["files"]) == count
        assert run("diff", file, index).returncode == 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_untied_names_have_values_of_their_own(file, tmp_path):
    assert run("convert", file, tmp_path / "m.pt", "--untie").returncode == 0
    with pt.open(file) as source, pt.open(tmp_path / "m.pt") as tree:
        assert source.ties
        assert tree.ties == ()
    assert run("diff", file, tmp_path / "m.pt").returncode == 1  # tied differently


@pytest.mark.parametrize(
    ("option", "value", "fact"),
    [
        ("--drop", "nope.**", "nothing fits 'nope.**'; 'paratree show --all' lists every name"),
        ("--drop", "layer.*.**", "nothing fits 'layer.*.**'; did you mean 'layers.*.**'?"),
        ("--drop", "embed.wieght", "no parameter 'embed.wieght'; did you mean 'embed.weight'"),
        ("--cast", "nope.**=bf16", "nothing fits 'nope.**'"),
        ("--cast", "embde.*=bf16", "nothing fits 'embde.*'; did you mean 'embed.*'?"),
        ("--select", "embde.*", "nothing fits 'embde.*'; did you mean 'embed.*'?"),
        (
            "--rename",
            "embde.*=x.*",
            "nothing fits 'embde.*', which is to be renamed; did you mean 'embed.*'?",
        ),
        ("--cast", "**=int8", "'int8' is no floating dtype"),
        ("--cast", "bf16", "'bf16' is no P=D, as '**.weight=bf16'"),
        ("--strip-prefix", "module.", "no name begins with 'module.'"),
        ("--rename", "nope=x", "no parameter 'nope'"),
        ("--rename", "a.*=x", "is no FROM=TO with the same wildcards"),
        ("--rename", "**=x**", ""),
        ("--rename-regex", "(=x", "'(' is no regular expression"),
        ("--rename-regex", ".*=x", "would both be"),
        ("--like", "other.onnx", "like is for formats that write into a copy, which safetensors does not"),
    ],
)
def test_a_change_that_fits_nothing_is_trouble_and_writes_nothing(option, value, fact, file, tmp_path):
    done = run("convert", file, tmp_path / "m.safetensors", option, value)
    if not fact:
        assert done.returncode == 0
        return
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert fact in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.npz", "m.msgpack", "m.params", "m.index"])
def test_a_dry_run_counts_what_is_written_then(name, file, tmp_path):
    ties = () if name in ("m.safetensors", "m.pt", "m.index") else ("--ties", "twice", "--dtype", "fp32")
    dry, done = (
        json.loads(run("convert", file, tmp_path / name, *ties, "--json", *more).stdout)
        for more in (("--dry-run",), ())
    )
    assert dry.pop("dry_run") and not done.pop("dry_run")
    assert dry == done


def test_a_dry_run_of_shards_and_of_a_folder(file, tmp_path):
    done = run("convert", file, tmp_path / "m.safetensors", "--shard-size", "40", "--dry-run")
    assert (done.returncode, done.stderr.count("not written (--dry-run)")) == (0, 1)
    assert "m.safetensors.index.json: safetensors · 2 shards · " in done.stderr
    done = run("convert", file, tmp_path / "d", "--format", "dcp", "--ties", "twice", "--dry-run")
    assert (done.returncode, done.stderr.count("not written (--dry-run)")) == (0, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("there.safetensors",), "it exists; replacing it takes force"),
        (("nowhere/m.safetensors",), "No such file or directory"),
        (("m.npz",), "are tied, which NumPy cannot say"),
        (("folder", "--format", "dcp", "--ties", "twice"), "it exists; replacing it takes force"),
        (("folder", "--format", "dcp", "--ties", "twice", "--force"), "only a checkpoint of"),
        (("m.gguf", "--add-prefix", "x" * 99, "--ties", "twice"), "is no name of at most 63 bytes"),
    ],
)
def test_a_dry_run_refuses_what_writing_would(words, fact, file, tmp_path):
    (tmp_path / "there.safetensors").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious.txt").write_text("x")
    for more in ((), ("--dry-run",)):
        done = run("convert", file, tmp_path / words[0], *words[1:], *more)
        assert (done.returncode, fact in done.stderr) == (2, True), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "there.safetensors"]
