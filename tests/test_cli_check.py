"""``paratree check`` and ``paratree spectrum``, from outside."""

import json

import numpy as np
import pytest

import paratree as pt
from tests.attacks.makers import entry, safetensors
from tests.test_cli import run


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("check") / "model.safetensors"
    values = np.array([[3.0, 0.0], [0.0, 4.0]], np.float32)
    broken = np.array([1.0, np.nan, 7e4], np.float32)
    header = {"w": entry(shape=(2, 2)), "b\x1b": entry(shape=(3,), offsets=(16, 28))}
    path.write_bytes(safetensors(header, values.tobytes() + broken.tobytes()))
    return path


def test_a_check_that_passes(file):
    done = run("check", file, "--no-inf", "--max-abs=7e4", "--expect", "7", "--expect-tensors=2")
    assert (done.returncode, done.stdout) == (0, "")
    verdict = "no-inf passed, max-abs passed, expect passed, expect-tensors passed (2 tensors)"
    assert done.stderr == f"paratree: {file}: {verdict}\n"


def test_a_check_that_fails_is_a_line_for_each_failure(file):
    done = run("check", file, "--no-nan", "--finite-in", "fp16", "--expect", "8")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        r"b\x1b: 1 of 3 values are NaN, the first at [1]",
        r"b\x1b: its largest magnitude, 70000, overflows float16: that ends at 65504",
        "expect: there are 7 parameters, not 8",
    ]
    assert done.stderr == f"paratree: {file}: no-nan failed, finite-in failed, expect failed (2 tensors)\n"


def test_the_json_of_a_check(file):
    done = run("check", file, "--no-nan", "--fingerprint", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert (found["schema"], found["passed"], found["rules"]) == (1, False, ["no-nan", "fingerprint"])
    words = {"rule": "no-nan", "name": "b\x1b", "fact": "1 of 3 values are NaN, the first at [1]"}
    assert found["failures"] == [{**words, "count": 1, "index": [1], "bound": None, "found": None}]
    passed = json.loads(run("check", file, "--expect=7", "--json").stdout)
    assert (passed["numbers"], passed["failures"], passed["hint"]) == ({"expect": 7}, [], None)
    expected = pt.fingerprint(file)
    assert found["fingerprint"] == expected.hash
    assert found["hashes"] == {name: one.hash for name, one in expected.params.items()}


def test_fingerprints(file):
    expected = pt.fingerprint(file).hash
    for more in (["--fingerprint"], ["--fingerprint=print"]):
        done = run("check", file, *more)
        assert (done.returncode, done.stdout) == (0, f"{expected}  {file}\n")
    assert run("check", file, "--fingerprint", expected.upper()).returncode == 0
    done = run("check", file, "--fingerprint", "0" * 64)
    assert (done.returncode, done.stdout) == (1, f"fingerprint: it is {expected}, not {'0' * 64}\n")


def test_the_same_as_another(file, tmp_path):
    with pt.open(file) as tree:
        arrays = {name: tree[name].value for name in reversed(list(tree))}
    np.savez(tmp_path / "same.npz", **arrays)
    np.savez(tmp_path / "other.npz", **{**arrays, "w": -arrays["w"]})
    assert run("check", file, "--same-as", tmp_path / "same.npz").returncode == 0
    done = run("check", file, "--same-as", tmp_path / "other.npz")
    assert (done.returncode, done.stdout) == (1, f"w: other values than in {tmp_path / 'other.npz'}\n")
    done = run("check", file, "--same-as", tmp_path / "other.npz", "--select", "b*")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "there is nothing to check; say what must hold, for example that no value is NaN"),
        (["--max-abs=-1"], "argument --max-abs: '-1' is no magnitude, at least 0; see"),
        (["--max-abs", "x"], "argument --max-abs: 'x' is no magnitude, at least 0; see"),
        (["--expect", "22.7M"], "argument --expect: '22.7M' is no whole number; see"),
        (["--fingerprint", "12"], "argument --fingerprint: '12' is no hash of 64 hexadecimal digits;"),
        (["--finite-in", "int8"], "'int8' is no floating dtype;"),
    ],
)
def test_rules_that_make_no_sense_are_2(options, message, file):
    done = run("check", file, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"paratree: {message}")
    assert done.stderr.count("\n") == 1


def test_the_state_of_an_optimizer_beside_the_same_model(tmp_path):
    torch = pytest.importorskip("torch", reason="the checkpoint is one of torch")
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "trained.pt")
    torch.save({"model": net.state_dict(), "optimizer": {}}, tmp_path / "model.pt")
    command = ["check", tmp_path / "model.pt", "--same-as", tmp_path / "trained.pt"]
    done = run(*command)
    assert done.returncode == 1
    assert done.stderr.startswith("paratree: the parameters and buffers are the same; to check them alone: ")
    assert run(*command, "--kind", "parameter", "--kind", "buffer").returncode == 0


def test_an_empty_file_does_not_pass(tmp_path):
    path = tmp_path / "empty.safetensors"
    path.write_bytes(safetensors({}, b""))
    done = run("check", path, "--no-nan")
    fact = "there is nothing to look at; if that is right, expect 0 parameters"
    assert (done.returncode, done.stdout) == (1, f"no-nan: {fact}\n")
    assert done.stderr == f"paratree: {path}: no-nan failed (0 tensors)\n"
    assert run("check", path, "--no-nan", "--expect=0").returncode == 0


def test_a_selection_that_fits_nothing_is_trouble(file):
    done = run("check", file, "--no-nan", "--select", "v")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"paratree: {file}: no parameter 'v'\n"


@pytest.mark.parametrize(
    "command", [["check", "FILE", "--no-nan"], ["check", "FILE", "--fingerprint"], ["spectrum", "FILE", "w"]]
)
def test_a_damaged_file_is_one_line_and_2(command, file, tmp_path):
    damaged = tmp_path / "m.safetensors"
    damaged.write_bytes(file.read_bytes()[:-4])
    done = run(*[str(damaged) if word == "FILE" else word for word in command])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"paratree: {damaged}: ")
    assert done.stderr.count("\n") == 1


def test_a_damaged_file_to_compare_with_is_named(file, tmp_path):
    damaged = tmp_path / "m.safetensors"
    damaged.write_bytes(file.read_bytes()[:-4])
    done = run("check", file, "--same-as", damaged)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"paratree: {damaged}: ")


def test_spectrum(file):
    done = run("spectrum", file, "w")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "w: 2 × 2 float32 · 2 singular values, exact",
        "",
        "spectral norm     4",
        "Frobenius norm    5",
        "stable rank       1.562 of 2",
        "effective rank    1.98 of 2",
        "rank              2 of 2",
        "condition number  1.333",
        "",
        "singular values, the largest first, on a logarithmic scale",
        "4 █▁ 3",
    ]


def test_the_json_of_a_spectrum(file):
    found = json.loads(run("spectrum", file, "w", "--json", "--exact-below=0", "--seed", "3").stdout)
    assert (found["schema"], found["source"], found["name"]) == (1, str(file), "w")
    assert found["singular_values"] == [4, 3]


def test_a_spectrum_of_what_has_none(file):
    done = run("spectrum", file, r"b\x1b")
    assert (done.returncode, done.stdout) == (2, "")
    fact = r"b\x1b: 1 of 3 values are NaN or infinite, the first at [1]; a spectrum is of finite values"
    assert done.stderr == f"paratree: {file}: {fact}\n"
    done = run("spectrum", file, "v")
    assert (done.returncode, done.stderr) == (1, f"paratree: {file}: no parameter 'v'\n")
