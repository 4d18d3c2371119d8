"""Every line of repair that diff proposes mends its row: by itself, and after those of the rows before it."""

import copy

import ml_dtypes
import numpy as np
import pytest

import paratree as pt
from tests.verbs.held import write

RNG = np.random.default_rng(0)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="could not import torch; this test needs it")


@pytest.fixture
def flax():
    pytest.importorskip("jax", reason="could not import jax; this test needs it")
    return pytest.importorskip("flax.linen", reason="could not import flax; this test needs it")


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def by_name(found):
    return {name: row for row in found for name in (row.name, *row.tied)}


def run(line, net):
    space = {"pt": pt, "net": net}
    exec(line, space)  # the line that is offered
    return space["net"]


def copied(net):
    """Return a model of its own; arrays that cannot be changed, and may be tied, are left as they are."""
    return net if isinstance(net, dict) else copy.deepcopy(net)


def mended(net, path, **options):
    """Return the diff after all repairs, when each has been seen to mend its row by itself."""
    found = pt.diff(net, path, **options)
    lines = {row.name: row.repair for row in found if row.repair is not None}
    other_way = pt.diff(path, net, **turned(options))
    assert {row.repair for row in other_way if row.repair} == set(lines.values())
    together = copied(net)
    for name, line in lines.items():
        after = pt.diff(run(line, copied(net)), path, **options)
        assert after.is_equal(by_name(after)[name]), line
        together = run(line, together)
    after = pt.diff(together, path, **options)
    assert all(after.is_equal(by_name(after)[name]) for name in lines)
    return found, after


def turned(options):
    names = {other: name for name, other in options.get("rename", {}).items()}
    return options | ({"rename": names} if names else {})


def tied_model(torch, *heads):
    nn = torch.nn
    net = nn.ModuleDict({"tok": nn.Embedding(11, 6), **{n: nn.Linear(6, 11, bias=False) for n in heads}})
    for name in heads:
        net[name].weight = net["tok"].weight
    return net


# A tied parameter, and several values in the file


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("heads", [("head",), ("head", "lm")])
def test_a_tied_parameter_of_two_values_is_untied(torch, tmp_path, loaded, heads):
    """To give it the one value would take the other away, and so on for ever."""
    net = tied_model(torch, *heads)
    arrays = {f"{name}.weight": normal(11, 6) for name in ("tok", *heads)}
    path = write(tmp_path / "net.safetensors", arrays)
    pt.update(net, {"tok.weight": arrays["head.weight"] if loaded else 0})
    found, after = mended(net, path)
    row = by_name(found)["tok.weight"]
    assert row.found.startswith("tied with head.weight")
    assert row.repair.startswith('pt.update(pt.untie(net, "head.weight"')
    assert sum(row.repair is not None for row in found) == 1
    number = len(heads) + (not loaded)
    assert f"{number} tied, of several values in the file" in found.verdict
    assert after.same


def test_two_equal_values_need_no_untying(torch, tmp_path):
    values = normal(11, 6)
    path = write(tmp_path / "net.safetensors", {"tok.weight": values, "head.weight": values})
    net = tied_model(torch, "head")
    pt.update(net, {"tok.weight": 0})
    _, after = mended(net, path)
    assert {row.status for row in after} == {"bit-equal"}


def test_immutable_arrays_are_untied_too(flax, tmp_path):
    import jax.numpy as jnp

    shared = jnp.zeros((4, 3))
    path = write(tmp_path / "net.safetensors", {"a.kernel": normal(4, 3), "b.kernel": normal(4, 3)})
    found, after = mended({"a": {"kernel": shared}, "b": {"kernel": shared}}, path)
    assert by_name(found)["a.kernel"].repair.startswith("net = pt.update(pt.untie(net, ")
    assert after.same


# A tie of the file


@pytest.mark.parametrize("has_loaded", [True, False])
def test_a_tie_of_the_file(torch, tmp_path, has_loaded):
    nn = torch.nn
    net = nn.ModuleDict({"tok": nn.Embedding(11, 6), "head": nn.Linear(6, 11, bias=False)})
    first, tok = copy.deepcopy(net), normal(11, 6)
    path = write(tmp_path / "net.safetensors", {"tok.weight": tok}, {"head.weight": "tok.weight"})
    if has_loaded:
        pt.update(net, {"tok.weight": tok})
    found, after = mended(net, path, initial=first)
    assert "pt.tie(" in by_name(found)["head.weight"].repair
    assert after.same


def test_a_selected_name_is_mended_with_the_name_that_it_is_tied_with(torch, tmp_path):
    nn = torch.nn
    net = nn.ModuleDict({"tok": nn.Embedding(11, 6), "head": nn.Linear(6, 11, bias=False)})
    path = write(tmp_path / "net.safetensors", {"tok.weight": normal(11, 6)}, {"head.weight": "tok.weight"})
    found, after = mended(net, path, initial=copy.deepcopy(net), select="head.**")
    assert by_name(found)["head.weight"].repair.startswith("pt.tie(pt.update(")
    assert after.same


# Axes


SHAPES = [(4, 4), (6, 4), (4, 6), (3, 3, 3, 3), (5, 3, 3, 3), (8, 2, 3, 5), (4, 4, 4)]
FITTING = [shape for shape in SHAPES if len(set(shape)) == 1]


@pytest.mark.parametrize(
    ("shape", "as_it_lies"), [*[(shape, False) for shape in SHAPES], *[(shape, True) for shape in FITTING]]
)
def test_a_kernel_is_turned_for_a_weight(torch, tmp_path, shape, as_it_lies):
    """Flax's kernel is "in out": a square one fits a weight as it lies, and is wrong there."""
    kernel = normal(*shape[2:], *shape[1::-1])
    path = write(tmp_path / "net.safetensors", {"a.kernel": kernel, "a.bias": normal(shape[0])})
    layer = {2: torch.nn.Linear, 3: torch.nn.Conv1d, 4: torch.nn.Conv2d}[len(shape)]
    net = torch.nn.ModuleDict({"a": layer(*shape[1::-1], *[shape[2:]] * (len(shape) > 2))})
    first = copy.deepcopy(net)
    if as_it_lies:
        pt.update(net, {"a.weight": kernel})
    found, after = mended(net, path, rename={"a.weight": "a.kernel"}, initial=first)
    assert after.same
    assert by_name(found)["a.weight"].repair is not None
    weight = run(by_name(found)["a.weight"].repair, net)["a"].weight.detach().numpy()
    assert np.array_equal(weight, kernel.transpose(-1, -2, *range(len(shape) - 2)))


def test_a_square_kernel_that_was_loaded_right_is_left_alone(torch, tmp_path):
    kernel = normal(4, 4)
    path = write(tmp_path / "net.safetensors", {"a.kernel": kernel})
    net = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4, bias=False)})
    pt.update(net, {"a.weight": kernel.T})
    found = pt.diff(net, path, rename={"a.weight": "a.kernel"})
    assert (found.same, found.rows[0].axes) == (True, (1, 0))


def test_a_square_kernel_of_flax_itself(torch, flax, tmp_path):
    import jax
    from flax import serialization

    net = flax.Sequential([flax.Dense(4)])
    variables = net.init(jax.random.key(0), np.ones((1, 4), np.float32))
    path = tmp_path / "net.msgpack"
    path.write_bytes(serialization.to_bytes(variables))
    port = torch.nn.ModuleDict({"layers_0": torch.nn.Linear(4, 4)})
    _, after = mended(port, path, rename={"**.weight": "**.kernel"}, initial=copy.deepcopy(port))
    assert after.same
    row = by_name(pt.diff(port, path, rename={"**.weight": "**.kernel"}, initial=port))["layers_0.weight"]
    x = normal(2, 4)
    made = run(row.repair, port)
    pt.update(made, {"layers_0.bias": np.array(variables["params"]["layers_0"]["bias"])})
    ours = made["layers_0"](torch.from_numpy(x)).detach().numpy()
    assert np.allclose(ours, net.apply(variables, x), atol=1e-5)


# Dtypes, and what no line mends


def test_a_cast_is_mended_unless_it_overflows(torch, tmp_path):
    net = torch.nn.ModuleDict({n: torch.nn.Linear(3, 2, bias=False) for n in "ab"}).half()
    wide = normal(2, 3)
    path = write(tmp_path / "net.safetensors", {"a.weight": wide, "b.weight": wide * 1e6})
    found, after = mended(net, path, initial=copy.deepcopy(net))
    assert [row.repair is None for row in found] == [False, True]
    assert by_name(after)["a.weight"].status == "equal after cast"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_a_file_of_another_float(torch, tmp_path, dtype):
    net = torch.nn.Linear(3, 2)
    path = write(tmp_path / "net.safetensors", {"weight": normal(2, 3, dtype=dtype), "bias": normal(2)})
    _, after = mended(net, path, initial=copy.deepcopy(net))
    assert after.same


def test_immutable_arrays_come_back_as_a_new_tree(flax, tmp_path):
    import jax

    net = flax.Dense(3).init(jax.random.key(0), np.ones((1, 5), np.float32))
    path = write(tmp_path / "net.safetensors", {"kernel": normal(5, 3), "bias": normal(3)})
    found, after = mended(net, path, initial=net)
    assert after.same
    assert all(row.repair.startswith("net = pt.update(net, ") for row in found)


def test_a_subtree_is_named_in_full(torch, tmp_path):
    net = torch.nn.ModuleDict({"enc": torch.nn.Linear(3, 2, bias=False)})
    path = write(tmp_path / "net.safetensors", {"m.weight": normal(2, 3)})
    with pt.open(path) as tree:
        found = pt.diff(pt.open(net)["enc"], tree["m"], initial=pt.open(copy.deepcopy(net))["enc"])
    run(found.rows[0].repair, net)
    assert pt.diff(net, path, rename={"enc.**": "m.**"}).same


def test_a_model_that_was_loaded_from_a_model_has_no_file_to_read(torch):
    net, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    found = pt.diff(net, other, initial=copy.deepcopy(net))
    assert [(row.found, row.repair) for row in found] == [("still at its initial value", None)] * 2


def test_values_in_the_order_of_other_axes_need_no_repair(torch, tmp_path):
    """The model holds what the file does, in a layout of its own."""
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, (4, 5), bias=False))
    kernel = normal(4, 5, 2, 3)
    path = write(tmp_path / "net.safetensors", {"0.weight": kernel})
    pt.update(net, {"0.weight": kernel.transpose(3, 2, 0, 1)})
    row = pt.diff(net, path).rows[0]
    assert (row.status, row.transposed, row.repair) == ("reshaped", (3, 2, 0, 1), None)
