"""What other checkpoint tools get wrong when they compare, each as a test of ``paratree diff``.

The failures were measured on published tools in 2026; here the same inputs are made and must be right.
"""

import json

import ml_dtypes
import numpy as np
import pytest

from tests.attacks.makers import pickled, storage, tensor, torch_zip
from tests.test_peer_failures import _paratree
from tests.verbs.held import write

RNG = np.random.default_rng(0)
STATE = {
    "embed.weight": RNG.standard_normal((50, 8)).astype(np.float32),
    **{
        f"layers.{i}.{name}": RNG.standard_normal(shape).astype(np.float32)
        for i in range(4)
        for name, shape in (("attn.weight", (8, 8)), ("attn.bias", (8,)), ("mlp.weight", (16, 8)))
    },
    "head.weight": RNG.standard_normal((50, 8)).astype(np.float32),
}


@pytest.fixture
def base(tmp_path):
    return write(tmp_path / "base.safetensors", STATE)


def variant(path, **arrays):
    return write(path, {**STATE, **arrays})


def compared(*args, code):
    found = json.loads(_paratree("diff", "--json", *args, code=code).stdout)
    assert found["same"] is (code == 0)
    return found, {row["name"]: row for row in found["rows"]}


def changed(name, index, value):
    array = STATE[name].copy()
    array[index] = value
    return array


def test_one_scalar_that_changed_by_a_thousandth(base, tmp_path):
    """Elsewhere: "Identical: 26"."""
    weight = changed("layers.2.mlp.weight", (3, 4), STATE["layers.2.mlp.weight"][3, 4] + np.float32(1e-3))
    other = variant(tmp_path / "other.safetensors", **{"layers.2.mlp.weight": weight})
    found, rows = compared(base, other, code=1)
    assert found["statuses"] == {"bit-equal": 13, "different": 1}
    row = rows["layers.2.mlp.weight"]
    assert (row["changed"], row["where"]) == (1, [3, 4])
    assert row["max_abs"] == pytest.approx(1e-3, rel=1e-3)
    text = _paratree("diff", base, other, code=1).stdout
    assert text.startswith(
        "1 of 14 tensors differs: layers.2.mlp.weight; the other 13 are equal to the last bit.\n"
    )
    assert "1 of 128" in text


def test_a_nan_is_a_change(base, tmp_path):
    """Elsewhere: counted as unchanged, "Max delta nan"; or the tensor is dropped."""
    weight = changed("layers.0.attn.weight", (1, 2), np.nan)
    other = variant(tmp_path / "other.safetensors", **{"layers.0.attn.weight": weight})
    row = compared(base, other, code=1)[1]["layers.0.attn.weight"]
    assert (row["changed"], row["nan"], row["new_nan"], row["first_nan"]) == (1, [0, 1], 1, [1, 2])
    assert (row["max_abs"], row["relative_l2"], row["cosine"]) == (None, None, None)
    assert "✗ NaN: 0 → 1, 1 new, first at [1, 2]" in _paratree("diff", base, other, code=1).stdout
    assert compared(base, other, "--rtol", "inf", code=1)
    assert compared(other, other, code=0)


def test_an_infinity_is_a_change(base, tmp_path):
    bias = changed("layers.1.attn.bias", 5, -np.inf)
    other = variant(tmp_path / "other.safetensors", **{"layers.1.attn.bias": bias})
    row = compared(base, other, code=1)[1]["layers.1.attn.bias"]
    assert (row["inf"], row["new_inf"], row["first_inf"]) == ([0, 1], 1, [5])


def test_removed_and_added(base, tmp_path):
    """Elsewhere: neither is reported, and a verdict given all the same."""
    arrays = {name: array for name, array in STATE.items() if name != "layers.3.attn.bias"}
    other = write(tmp_path / "other.safetensors", {**arrays, "layers.3.attn.scale": np.ones(8, np.float32)})
    found, rows = compared(base, other, code=1)
    assert rows["layers.3.attn.bias"]["status"] == "removed"
    assert rows["layers.3.attn.scale"]["status"] == "added"
    assert found["statuses"]["bit-equal"] == 13


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e4m3fn])
def test_a_half_added_to_a_narrow_matrix(tmp_path, dtype):
    """Elsewhere: an empty list of changes; or the tensor is skipped."""
    state = {name: array.astype(dtype) for name, array in STATE.items()}
    base = write(tmp_path / "base.safetensors", state)
    head = (STATE["head.weight"] + np.float32(0.5)).astype(dtype)
    other = write(tmp_path / "other.safetensors", {**state, "head.weight": head})
    row = compared(base, other, code=1)[1]["head.weight"]
    expected = np.abs(head.astype(float) - state["head.weight"].astype(float))
    assert row["changed"] == np.count_nonzero(expected)
    assert (row["max_abs"], row["where"]) == (expected.max(), [*np.unravel_index(expected.argmax(), (50, 8))])


def test_two_shards_against_one_file(base, tmp_path):
    """Elsewhere: a folder only, or an empty list without a word."""
    folder = tmp_path / "shards"
    folder.mkdir()
    weight_map = {}
    for number in (0, 1):
        names = list(STATE)[number::2]
        shard = f"model-{number}.safetensors"
        write(folder / shard, {name: STATE[name] for name in names})
        weight_map |= dict.fromkeys(names, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert compared(base, folder, code=0)[0]["statuses"] == {"bit-equal": 14}


def tied_pt(path, *, tied=True):
    """Write the .pt of a net whose head is its embedding."""
    shared, other = storage("0", "FloatStorage", 8), storage("1", "FloatStorage", 8)
    state = {
        "embed.weight": tensor(shared, 0, (4, 2), (2, 1)),
        "head.weight": tensor(shared if tied else other, 0, (4, 2), (2, 1)),
    }
    values = np.arange(8, dtype=np.float32).tobytes()
    path.write_bytes(torch_zip(pickled(state), {"0": values, **({} if tied else {"1": values})}))
    return path


def test_a_tied_pt_against_alias_metadata(tmp_path):
    """Elsewhere: .pt and .safetensors are not compared, or twice what is once."""
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    alias = write(tmp_path / "m.safetensors", {"embed.weight": values}, {"head.weight": "embed.weight"})
    found, rows = compared(tied_pt(tmp_path / "m.pt"), alias, code=0)
    assert found["statuses"] == {"bit-equal": 1}
    assert rows["embed.weight"]["tied"] == ["head.weight"]
    parted = compared(tied_pt(tmp_path / "p.pt", tied=False), alias, code=1)[0]
    names = ["embed.weight", "head.weight"]
    assert parted["ties"] == [{"names": names, "tied_in": "b", "records": True, "repair": None}]


def test_a_training_checkpoint_against_its_model(tmp_path):
    """Elsewhere: "0 tensors, corruption"."""
    path = tmp_path / "run.pt"
    content = {
        "model_state_dict": {"w": tensor()},
        "optimizer": {"state": {0: {"exp_avg": tensor(storage("1"))}}, "param_groups": []}, "epoch": 3,
    }  # fmt: skip
    values = np.arange(4, dtype=np.float32)
    path.write_bytes(torch_zip(pickled(content), {"0": values.tobytes(), "1": bytes(16)}))
    model = write(tmp_path / "model.safetensors", {"w": values})
    text = _paratree("diff", path, model, code=2).stdout
    assert "1 more name matches without 'model_state_dict.': --strip-prefix model_state_dict." in text
    assert "1 optimizer state left out (--kind state)" in text
    assert compared(path, model, "--strip-prefix", "model_state_dict.", code=0)
    assert compared(path, model, "--map", "model_state_dict.**=**", code=0)


def test_a_path_is_never_a_model_online(base):
    """Elsewhere: a file path is taken for an online id."""
    assert "never looks one up online" in _paratree("diff", base, "gpt2/nothing", code=2).stderr


def test_a_truncated_file_is_no_difference(base, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(base.read_bytes()[:-10])
    found = _paratree("diff", base, cut, code=2)
    assert found.stdout == ""
    assert "Traceback" not in found.stderr


def test_a_selection_of_nothing_is_no_agreement(base):
    found = _paratree("diff", base, base, "--select", "no.such.*", code=2)
    assert (found.stdout, "nothing fits" in found.stderr) == ("", True)


@pytest.mark.parametrize(
    "arguments", [("--rtol", "-1"), ("--atol", "nan"), ("--map", "a"), ("--map", "a.*=b"), ("--sort", "x")]
)
def test_options_that_mean_nothing_are_refused(base, arguments):
    assert _paratree("diff", base, base, *arguments, code=2).stderr.startswith("paratree: ")
