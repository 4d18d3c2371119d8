"""What other checkpoint tools get wrong without saying so, each as a test of the command line.

The failures were measured on published tools in 2026; here the same inputs are made and must be right.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from tests.attacks.makers import entry, pickled, safetensors, storage, tensor, torch_zip


def _paratree(*args, code=0):
    found = subprocess.run(
        [sys.executable, "-m", "paratree", *map(str, args)], capture_output=True, text=True
    )
    assert found.returncode == code, found
    return found


def _listing(path):
    return json.loads(_paratree("show", "--json", path).stdout)


def test_tied_pt_is_counted_once(tmp_path):
    """Counted twice elsewhere: 193 values for 121."""
    shared = storage("0", "FloatStorage", 64)
    weight = tensor(shared, 0, (8, 8), (8, 1))
    state = {
        "2.weight": weight,
        "4.weight": weight,
        "0.weight": tensor(storage("1", "FloatStorage", 57), 0, (57,), (1,)),
    }
    path = tmp_path / "tied.pt"
    path.write_bytes(torch_zip(pickled(state), {"0": bytes(256), "1": bytes(228)}))
    totals = _listing(path)["totals"]["parameter"]
    assert (totals["size"], totals["expanded_size"]) == (121, 185)
    assert "2.weight" in _paratree("ties", path).stdout


def test_training_checkpoint_is_no_corruption(tmp_path):
    """Elsewhere: "0 tensors, corruption"."""
    path = tmp_path / "run.pt"
    path.write_bytes(torch_zip(pickled({
        "model_state_dict": {"w": tensor()},
        "optimizer": {"state": {0: {"exp_avg": tensor()}}, "param_groups": []}, "epoch": 3,
    })))  # fmt: skip
    found = _listing(path)
    assert [p["name"] for p in found["params"]] == ["model_state_dict.w", "optimizer.state.0.exp_avg"]
    assert [p["kind"] for p in found["params"]] == ["parameter", "state"]
    assert found["meta"]["epoch"] == 3


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_truncated_is_refused(tmp_path, cut):
    """Elsewhere: a table is printed, or a traceback."""
    for name, content in (("m.safetensors", safetensors()), ("m.pt", torch_zip())):
        (tmp_path / name).write_bytes(content[: -min(cut, len(content) - 1)])
        found = _paratree("show", tmp_path / name, code=2)
        assert found.stdout == ""
        assert found.stderr.startswith(f"paratree: {tmp_path / name}: ")
        assert "Traceback" not in found.stderr


def test_overlapping_offsets_are_refused(tmp_path):
    """Elsewhere: validated as sound."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({"a": entry(), "b": entry(offsets=(8, 24))}, bytes(24)))
    assert "overlaps" in _paratree("show", path, code=2).stderr


def test_out_of_bounds_and_huge_headers_are_refused(tmp_path):
    """Elsewhere: a 4 TB tensor in a table."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({"a": entry(shape=(10**12,), offsets=(0, 4 * 10**12))}))
    assert "4000000000000 bytes" in _paratree("show", path, code=2).stderr


def test_fp8_and_bf16_have_dtype_and_bytes(tmp_path):
    """Elsewhere: UNKNOWN, 0 B; or a TypeError."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(
        safetensors(
            {"a": entry("F8_E4M3", (2, 4), (0, 8)), "b": entry("BF16", (4,), (8, 16))}, bytes([0x38] * 16)
        )
    )
    shown = {p["name"]: (p["dtype"], p["nbytes"]) for p in _listing(path)["params"]}
    assert shown == {"a": ("float8_e4m3fn", 8), "b": ("bfloat16", 8)}
    assert "1" in _paratree("get", path, "a").stdout


def test_sharded_index_is_one_model(tmp_path):
    """Elsewhere: taken for the name of a model online."""
    for n in (1, 2):
        (tmp_path / f"m-{n}.safetensors").write_bytes(safetensors({f"layer.{n}.w": entry()}))
    index = {"weight_map": {f"layer.{n}.w": f"m-{n}.safetensors" for n in (1, 2)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for source in (tmp_path, tmp_path / "model.safetensors.index.json"):
        assert [p["name"] for p in _listing(source)["params"]] == ["layer.1.w", "layer.2.w"]


class _Evil:
    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("wrap", ["zip", "bare"])
def test_malicious_pickle_is_not_run(tmp_path, wrap):
    """Elsewhere: a fall-back to full unpickling ran the command."""
    evil = _Evil()
    evil.target = tmp_path / "evil"
    content = pickle.dumps({"state_dict": {}, "x": evil}, protocol=2)
    path = tmp_path / "m.pt"
    path.write_bytes(torch_zip(content) if wrap == "zip" else content)
    for command in ("show", "ties"):
        assert _paratree(command, path, code=2).stdout == ""
    assert not evil.target.exists()


def test_malicious_pickle_is_named(tmp_path):
    evil = _Evil()
    evil.target = "evil"
    (tmp_path / "m.pt").write_bytes(torch_zip(pickle.dumps(evil, protocol=4)))
    assert "would call posix.system" in _paratree("show", tmp_path / "m.pt", code=2).stderr


def test_a_path_is_never_a_model_online(tmp_path):
    """Elsewhere: a local path is taken for an online id, and the tool dials out."""
    assert "never looks one up online" in _paratree("show", "gpt2/nothing", code=2).stderr


def test_nan_is_a_value_like_any_other(tmp_path):
    """Elsewhere: tensors with NaN are skipped."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(data=struct.pack("<4f", 1, float("nan"), float("inf"), 4)))
    assert "nan" in _paratree("get", path, "w").stdout
    assert _listing(path)["params"][0]["readable"] is True


def test_model_as_safetensors_ignores_nothing(tmp_path):
    """Elsewhere: most tensors are skipped and a verdict is given all the same."""
    header = {f"w{i}": entry(offsets=(16 * i, 16 * i + 16)) for i in range(26)}
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(header, np.zeros(26 * 16, np.uint8).tobytes()))
    assert "26 of 26 readable" in _paratree("show", path).stdout
