"""``paratree manifest`` and ``paratree verify``, from outside."""

from __future__ import annotations

import json

import numpy as np
import pytest

import paratree as pt
from tests.test_cli import content, run
from tests.verbs.held import held, tree_of, write


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("manifest") / "model.safetensors"
    path.write_bytes(content())
    return path


@pytest.fixture(scope="module")
def manifest(file):
    path = file.with_name("m.json")
    assert run("manifest", file, "-o", path).returncode == 0
    return path


def flipped(file, folder, byte=-1):
    raw = bytearray(file.read_bytes())
    raw[byte] ^= 1
    path = folder / file.name
    path.write_bytes(raw)
    return path


def test_a_manifest_goes_to_a_file_or_to_stdout(file, tmp_path):
    path = tmp_path / "m.json"
    done = run("manifest", file, "-o", path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(f"paratree: {path}: manifest of 6 tensors · ")
    for more in ([], ["--json"]):
        printed = run("manifest", file, *more)
        assert (printed.returncode, printed.stdout, printed.stderr) == (0, path.read_text(), "")
    assert json.loads(printed.stdout)["total"] == pt.fingerprint(file).hash
    assert run("manifest", file, "--json", "-o", path).returncode == 2


def test_a_manifest_is_replaced_only_with_force(file, tmp_path):
    path = tmp_path / "m.json"
    path.write_text("precious")
    done = run("manifest", file, "-o", path)
    message = f"paratree: {path}: it exists; replacing it takes force (--force)\n"
    assert (done.returncode, done.stderr, path.read_text()) == (2, message, "precious")
    assert run("manifest", file, "-o", path, "--force").returncode == 0
    assert run("verify", file, path).returncode == 0


def test_what_is_as_it_was(file, manifest, tmp_path):
    out = tmp_path / "m.pt"
    assert run("convert", file, out).returncode == 0
    for source in (file, out):
        done = run("verify", source, manifest)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith(f"paratree: {source}: 6 of 6 tensors intact · ")
        assert done.stderr.endswith(" read\n")


def test_what_is_not_is_a_line_with_the_bytes(file, manifest, tmp_path):
    bad = flipped(file, tmp_path)
    done = run("verify", bad, manifest)
    (failure,) = pt.verify(bad, manifest).failures
    assert done.returncode == 1
    assert done.stdout == f"{failure.name}: {failure.text}\n"
    start, stop = failure.places[0][1:]
    assert failure.text.endswith(f"of its values (byte {start} to {stop} of the file)")
    assert stop == bad.stat().st_size
    assert done.stderr.startswith(f"paratree: {bad}: 5 of 6 tensors intact · ")
    assert done.stderr.endswith(" read · 1 failure\n")


def test_json(file, manifest, tmp_path):
    done = run("verify", file, manifest, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (found["schema"], found["passed"], found["tensors"], found["intact"]) == (1, True, 6, 6)
    assert (found["failures"], found["notes"], found["source"]) == ([], [], str(file))
    bad = flipped(file, tmp_path)
    done = run("verify", bad, manifest, "--json")
    (failure,) = json.loads(done.stdout)["failures"]
    (expected,) = pt.verify(bad, manifest).failures
    assert done.returncode == 1
    assert (failure["what"], failure["name"], failure["text"]) == ("changed", expected.name, expected.text)
    assert (failure["start"], failure["stop"], failure["names"]) == (expected.start, expected.stop, [])
    assert failure["places"] == [expected.places[0]._asdict()]


def test_every_kind_of_failure(tmp_path):
    w = np.arange(4, dtype=np.float32)
    parts = [held("a", w, memory=1), held("b", w, memory=1)]
    pt.save(tree_of(*parts, c=w, d=w, e=w, f=w), tmp_path / "m.pt")
    arrays = {"a": w, "b": w.copy(), "c": w + 1, "d": w.astype(np.float16), "e": w.reshape(2, 2), "g": w}
    write(tmp_path / "other.safetensors", arrays)
    assert run("manifest", tmp_path / "m.pt", "-o", tmp_path / "m.json").returncode == 0
    done = run("verify", tmp_path / "other.safetensors", tmp_path / "m.json")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith("c: changed between byte 0 and byte 16 of its values (byte ")
    assert lines[1:] == [
        "d: other dtype: float16, float32 in the manifest",
        "e: other shape: [2, 2], [4] in the manifest",
        "f: missing: float32 [4] in the manifest",
        "g: unexpected: the manifest does not list it",
        "a: tied differently: with b it was one parameter",
    ]
    assert done.stderr.endswith("other.safetensors: 2 of 6 tensors intact · 48 B read · 6 failures\n")


def test_a_tie_that_the_format_cannot_say_is_a_note(file, manifest, tmp_path):
    out = tmp_path / "m.npz"
    assert run("convert", file, out, "--ties", "twice").returncode == 0
    done = run("verify", out, manifest)
    note, verdict = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (0, "")
    assert note.startswith("paratree: note: ")
    assert note.endswith(" were tied, which NumPy npz cannot say")
    assert "6 of 6 tensors intact" in verdict


def test_one_bad_shard_is_named_and_the_others_are_read(tmp_path):
    pt.save(
        tree_of(**{f"w{i}": np.full(8, i, np.float32) for i in range(191)}),
        tmp_path / "model.safetensors",
        shard_size=32,
    )
    assert run("manifest", tmp_path, "-o", tmp_path / "m.json").returncode == 0
    bad = tmp_path / "model-00100-of-00191.safetensors"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-1] + b"\1")
    done = run("verify", tmp_path, tmp_path / "m.json")
    place = f"byte {len(whole) - 32} to {len(whole)} of {bad.name}"
    fact = f"w99: changed between byte 0 and byte 32 of its values ({place})\n"
    assert (done.returncode, done.stdout) == (1, fact)
    bad.unlink()
    done = run("verify", tmp_path, tmp_path / "m.json")
    fact = f"{bad}: unreadable: no such file; its index says that it has 1 of the parameters\n"
    assert (done.returncode, done.stdout) == (1, fact)
    assert "190 of 191 tensors intact" in done.stderr


def test_a_damaged_header_is_a_failure(file, manifest, tmp_path):
    done = run("verify", flipped(file, tmp_path, 8), manifest)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{tmp_path / file.name}: unreadable: ")
    assert done.stderr.endswith("0 of 6 tensors intact · 0 B read · 1 failure\n")


def test_a_selection(file, manifest, tmp_path):
    bad = flipped(file, tmp_path)
    name = pt.verify(bad, manifest).failures[0].name
    others = [one for one in pt.open(file) if one != name]
    assert run("verify", bad, manifest, "--select", name).returncode == 1
    done = run("verify", bad, manifest, *[word for one in others for word in ("--select", one)])
    assert (done.returncode, done.stdout) == (0, "")
    part = tmp_path / "part.json"
    assert run("manifest", file, "--select", others[0], "-o", part).returncode == 0
    assert list(json.loads(part.read_text())["params"]) == others[:1]
    assert run("verify", bad, part, "--select", others[0], "--kind", "parameter").returncode == 0


def test_trouble_is_a_line(file, manifest, tmp_path):
    wrong = tmp_path / "wrong.json"
    wrong.write_text(manifest.read_text().replace('"float32"', '"float16"', 1))
    cases = {
        ("verify", "nowhere.pt", manifest): "nowhere.pt: no such file or folder",
        ("verify", file, "nowhere.json"): "nowhere.json: no such file or folder",
        ("verify", file, file): "it is no manifest: this ",
        ("verify", file, wrong): "its hash is not that of its dtype, shape and chunks; make it again with",
        (
            "verify",
            file,
            manifest,
            "--select",
            "no.**",
        ): "nothing fits the selection, and nothing in the manifest",
        ("verify", file): "the following arguments are required: MANIFEST",
        ("manifest", "nowhere.pt"): "nowhere.pt: no such file or folder",
        ("manifest", file, "--select", "no.**"): "nothing fits",
        ("manifest", file, "-o", tmp_path / "no" / "m.json"): "No such file or directory",
    }
    for words, message in cases.items():
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert done.stderr.startswith("paratree: "), words
        assert message in done.stderr, words
        assert len(done.stderr.splitlines()) == 1, words


def test_a_live_model_of_the_user_verifies(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    (tmp_path / "mine.py").write_text(
        "import torch\ndef net(bias=0):\n    torch.manual_seed(0)\n    return torch.nn.Linear(3, 2)\n"
        "def other():\n    made = net()\n    made.bias.data[1] += 1\n    return made\n"
    )
    made = run("manifest", "mine:net", "-o", "m.json", cwd=tmp_path)
    assert (made.returncode, made.stdout) == (0, "")
    assert run("verify", "mine:net", "m.json", cwd=tmp_path).returncode == 0
    done = run("verify", "mine:other", "m.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "bias: changed between byte 0 and byte 8 of its values\n")
    assert done.stderr.startswith("paratree: mine:other: 1 of 2 tensors intact")
