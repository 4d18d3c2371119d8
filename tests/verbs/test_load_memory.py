"""pt.load of what is tied, shares memory without being tied, or cannot be written."""

import numpy as np
import pytest

import paratree as pt
from paratree.render import load as render
from tests.verbs.held import tree_of
from tests.verbs.nets import Failure, bits, nn, normal, refused, small, statuses, torch

# Ties


def tied(count=2):
    net = nn.ModuleDict(
        {"tok": nn.Embedding(11, 6), **{f"h{i}": nn.Linear(6, 11, bias=False) for i in range(1, count)}}
    )
    for i in range(1, count):
        net[f"h{i}"].weight = net["tok"].weight
    return net


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("kept", [("tok",), ("h1",), ("tok", "h1")])
def test_a_tied_model_takes_the_value_once_or_of_equal_ones(count, kept):
    net, values = tied(count), normal(11, 6)
    found = pt.load(net, tree_of(**{f"{name}.weight": values.copy() for name in kept}))
    assert found.complete
    assert len(found) == 1
    assert found[0].tied == tuple(f"h{i}.weight" for i in range(1, count))
    assert net["h1"].weight is net["tok"].weight
    np.testing.assert_array_equal(net["tok"].weight.detach().numpy(), values)


def test_a_tied_model_refuses_two_values_and_names_them():
    net, one, two = tied(), normal(11, 6), normal(11, 6)
    source = tree_of(**{"tok.weight": one, "h1.weight": two})
    error = refused(net, source)
    assert "tied in the model, and the source has other values for tok.weight and h1.weight" in str(error)
    assert "pt.untie(net, 'h1.weight')" in str(error)
    pt.load(pt.untie(net, "h1.weight"), source)
    np.testing.assert_array_equal(net["tok"].weight.detach().numpy(), one)
    np.testing.assert_array_equal(net["h1"].weight.detach().numpy(), two)


def test_a_tie_of_the_source_is_not_unexpected(tmp_path):
    net = nn.ModuleDict({"tok": nn.Embedding(11, 6)})
    source = tied()
    for path in (tmp_path / "tied.pt", tmp_path / "tied.safetensors"):
        pt.save(source, path)
        assert pt.load(net, path).complete
        assert pt.load(tied(), path).complete
        assert torch.equal(net["tok"].weight, source["tok"].weight)


def test_a_tie_that_the_model_has_not_is_told():
    net = nn.ModuleDict({"tok": nn.Embedding(11, 6), "h1": nn.Linear(6, 11, bias=False)})
    found = pt.load(net, tied())
    assert found.complete
    assert [tie.names for tie in found.ties] == [("tok.weight", "h1.weight")]
    assert torch.equal(net["tok"].weight, net["h1"].weight)
    assert "tied in the source only: tok.weight = h1.weight" in "\n".join(render.lines(found))


# Memory that is shared by what is not tied


def transposed():
    net = nn.Module()
    net.a = nn.Parameter(torch.from_numpy(normal(3, 3)))
    net.b = nn.Parameter(net.a.detach().t())
    return net


def overlapping():
    net, memory = nn.Module(), torch.from_numpy(normal(6))
    net.a, net.b = nn.Parameter(memory[0:4]), nn.Parameter(memory[2:6])
    return net


@pytest.mark.parametrize("made", [transposed, overlapping])
@pytest.mark.parametrize("others", [(), ("c",)])
def test_parameters_that_share_memory_refuse_other_values_and_name_them(made, others):
    net = made()
    for name in others:
        net.register_parameter(name, nn.Parameter(torch.zeros(2)))
    shape = net.a.shape
    source = {"a": torch.ones(shape), "b": torch.zeros(shape), **{name: torch.ones(2) for name in others}}
    error = refused(net, source)
    problem = "a and b share memory in the model, and the source has other values for a and b"
    assert [error.report[name].problem for name in ("a", "b")] == [problem] * 2
    assert [(group.status, group.names) for group in error.report.groups] == [("refused", ("a", "b"))]
    assert "give b memory of its own first" in str(error)
    before = bits(net)
    found = pt.load(net, source, strict=False)
    assert statuses(found) == {"a": "refused", "b": "refused", **dict.fromkeys(others, "bit-exact")}
    assert all(bits(net)[name] == before[name] for name in ("a", "b"))
    net.b = nn.Parameter(net.b.detach().clone())
    assert pt.load(net, source).complete
    assert all(torch.equal(getattr(net, name), value) for name, value in source.items())


@pytest.mark.parametrize("made", [transposed, overlapping])
def test_parameters_that_share_memory_take_values_that_agree(made):
    net, trained = made(), made()
    assert pt.load(net, trained.state_dict()).complete
    assert bits(net) == bits(trained)


def test_what_lies_in_one_memory_without_sharing_values_is_loaded():
    memory = torch.zeros(4, 2)
    net = nn.Module()
    net.a, net.b, net.empty = (nn.Parameter(memory[part]) for part in ((..., 0), (..., 1), slice(0, 0)))
    source = {"a": torch.ones(4), "b": torch.full((4,), 2.0), "empty": torch.ones(0, 2)}
    assert pt.load(net, source).complete
    assert torch.equal(memory, torch.tensor([[1.0, 2.0]] * 4))


def test_a_parameter_whose_places_share_memory_refuses_values_that_it_cannot_hold():
    net = nn.Module()
    net.w = nn.Parameter(torch.zeros(5).as_strided((3, 3), (1, 1)))
    error = refused(net, {"w": torch.arange(9.0).reshape(3, 3)})
    assert "places of it share memory in the model, and the source has other values for them" in str(error)
    assert "give w memory of its own first" in str(error)
    values = torch.arange(5.0).as_strided((3, 3), (1, 1)).clone()
    assert pt.load(net, {"w": values}).complete
    assert torch.equal(net.w, values)


def test_memory_that_is_shared_is_put_back_after_a_failure(monkeypatch):
    net, count = overlapping(), 0
    before, copy_ = bits(net), torch.Tensor.copy_

    def failing(tensor, *args):
        nonlocal count
        count += 1
        if count == 2:
            raise Failure("the device is lost")
        return copy_(tensor, *args)

    monkeypatch.setattr(torch.Tensor, "copy_", failing)
    with pytest.raises(Failure):
        pt.load(net, overlapping().state_dict())
    assert bits(net) == before


# Memory that cannot be written


def expanded():
    net = nn.Module()
    net.lin, net.bn = nn.Linear(3, 4), nn.BatchNorm1d(4)
    net.lin.bias = nn.Parameter(torch.zeros(1).expand(4))
    return net


def test_an_expanded_parameter_is_refused_with_what_to_do(tmp_path):
    source = {"lin": nn.Linear(3, 4), "bn": nn.BatchNorm1d(4)}
    torch.save(nn.ModuleDict(source).state_dict(), tmp_path / "net.pt")
    net = expanded()
    error = refused(net, tmp_path / "net.pt")
    assert "1 refused (lin.bias: expanded, so that one value in memory stands for several)" in str(error)
    assert "put net.lin.bias.detach().clone() in its place, of a parameter in an nn.Parameter" in str(error)
    found = pt.load(net, tmp_path / "net.pt", strict=False)
    assert statuses(found).pop("lin.bias") == "refused"
    assert torch.equal(net.lin.weight, source["lin"].weight)
    net.lin.bias = nn.Parameter(net.lin.bias.detach().clone())
    assert pt.load(net, tmp_path / "net.pt").complete


def test_a_model_of_inference_mode_is_refused_outside_it(tmp_path):
    trained = small()
    torch.save(trained.state_dict(), tmp_path / "net.pt")
    with torch.inference_mode():
        net = nn.ModuleDict({"0": nn.Linear(4, 8), "1": nn.BatchNorm1d(8), "3": nn.Linear(8, 3)})
    error = refused(net, tmp_path / "net.pt")
    assert "9 refused (0.weight: made under torch.inference_mode() and fixed outside it" in str(error)
    assert "; load inside it, or make the model outside" in str(error)
    found = pt.load(net, tmp_path / "net.pt", strict=False)
    assert set(statuses(found).values()) == {"refused"}
    with torch.inference_mode():
        assert pt.load(net, tmp_path / "net.pt").complete
    assert bits(net) == bits(trained)
