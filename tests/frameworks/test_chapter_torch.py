"""The PyTorch tab of the chapter on parameter management, block by block: our expression against its own."""

import numpy as np
import pytest

import paratree as pt

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")
nn = torch.nn


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.rand(size=(2, 4))


@pytest.fixture
def net(batch):
    """The multilayer perceptron with one hidden layer, after its first batch."""
    net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(1))
    net(batch)
    return net


@pytest.fixture
def tied(batch):
    """The net whose second and third hidden layer are one."""
    shared = nn.LazyLinear(8)
    net = nn.Sequential(
        nn.LazyLinear(8), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.LazyLinear(1)
    )  # fmt: skip
    net(batch)
    return net


class NestMLP(nn.Module):
    """The nested model that the first exercise refers to."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.LazyLinear(64), nn.ReLU(), nn.LazyLinear(32), nn.ReLU())
        self.linear = nn.LazyLinear(16)

    def forward(self, inputs):
        return self.linear(self.net(inputs))


# The net, before and after it has seen data


def test_before_the_first_batch_unknown_dimensions_are_question_marks():
    tree = pt.open(nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(1)))
    assert {name: param.shape for name, param in tree.items()} == {
        "0.weight": (8, None), "0.bias": (8,), "2.weight": (1, None), "2.bias": (1,),
    }  # fmt: skip
    assert repr(tree["0.weight"]) == "<Param 0.weight: 8 × ? float32, trainable, not readable>"
    with pytest.raises(pt.UnreadableError, match=r"run the model once on a batch of data, net\(X\)"):
        _ = tree.layers[0].weight.value


def test_after_the_first_batch_the_shapes_are_known(net):
    tree = pt.open(net)
    assert [param.shape for param in tree.values()] == [(8, 4), (8,), (1, 8), (1,)]
    assert tree.size == sum(p.numel() for p in net.parameters()) == 49
    assert all(param.array.problem is None for param in tree.values())


# Parameter access


def test_the_second_fully_connected_layer(net):
    layer, state = pt.open(net).layers[1], net[2].state_dict()
    assert list(layer) == list(state) == ["weight", "bias"]
    for name, tensor in state.items():
        np.testing.assert_array_equal(layer[name].value, tensor.numpy())


def test_every_way_to_the_second_layer_is_the_same(net):
    tree = pt.open(net)
    ways = (tree.layers[1], tree["2"], tree[1])
    assert len({id(way.bias) for way in ways} | {id(tree["2.bias"]), id(tree["2/bias"])}) == 1


def test_the_bias_is_a_parameter_with_a_value(net):
    bias = pt.open(net).layers[1].bias
    assert isinstance(bias, pt.Param)
    assert isinstance(net[2].bias, nn.Parameter)
    np.testing.assert_array_equal(bias.value, net[2].bias.data.numpy())
    assert (bias.name, bias.trainable, bias.kind) == ("2.bias", True, "parameter")


def test_the_gradient_is_none_before_backpropagation(net, batch):
    weight = pt.open(net).layers[1].weight
    assert net[2].weight.grad is None
    assert weight.grad is None
    net(batch).sum().backward()
    np.testing.assert_array_equal(weight.grad, net[2].weight.grad.numpy())


# All parameters at once


def test_all_parameters_at_once(net):
    ours = [(name, param.shape) for name, param in pt.open(net).items()]
    assert ours == [(name, tuple(param.shape)) for name, param in net.named_parameters()]


def test_all_parameters_of_a_nested_net(batch):
    net = nn.Sequential(NestMLP(), nn.LazyLinear(20), NestMLP())
    net(batch)
    tree = pt.open(net)
    ours = [(name, param.shape) for name, param in tree.items()]
    assert ours == [(name, tuple(param.shape)) for name, param in net.named_parameters()]
    assert [layer.prefix for layer in tree.layers] == [
        "0.net.0", "0.net.2", "0.linear", "1", "2.net.0", "2.net.2", "2.linear",
    ]  # fmt: skip
    assert list(tree["2"].select(role="bias")) == ["net.0.bias", "net.2.bias", "linear.bias"]
    np.testing.assert_array_equal(tree["0/net/2"].bias.value, net[0].net[2].bias.data.numpy())


# Tied parameters


def test_tied_parameters_stand_under_every_name_and_are_counted_once(tied):
    tree = pt.open(tied)
    assert list(tree) == list(tied.state_dict())
    assert len(tree) == 8
    assert tree.totals["parameter"].count == len(list(tied.parameters())) == 6
    assert tree.ties == (("2.weight", "4.weight"), ("2.bias", "4.bias"))
    assert tree.size == sum(p.numel() for p in tied.parameters()) == 121
    assert tree.expanded_size == sum(t.numel() for t in tied.state_dict().values()) == 193
    assert (tree.nbytes, tree.expanded_nbytes) == (4 * 121, 4 * 193)
    assert repr(tree) == "<ParamTree Sequential: 6 parameters, 121 values (2 of 8 names tied), float32>"


def test_equal_values_are_no_tie(net):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].load_state_dict(net[0].state_dict())
    assert pt.open(net).ties == ()


def test_a_change_through_one_name_is_seen_through_the_other(tied):
    tree = pt.open(tied)
    np.testing.assert_array_equal(tree["2.weight"][0], tree["4.weight"][0])
    tied[2].weight.data[0, 0] = 100
    assert tree["2.weight"][0, 0] == tree["4.weight"][0, 0] == 100
    tree["4.weight"].value[0, 1] = -100
    assert tied[2].weight[0, 1].item() == tree["2.weight"][0, 1] == -100


def test_the_gradients_of_tied_layers_are_added_together(tied, batch):
    apart = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)
    )  # fmt: skip
    apart.load_state_dict(tied.state_dict())
    tied(batch).sum().backward()
    apart(batch).sum().backward()
    tree, separate = pt.open(tied), pt.open(apart)
    assert separate.ties == ()
    for part in ("weight", "bias"):
        total = separate[f"2.{part}"].grad + separate[f"4.{part}"].grad
        assert total.any(), "the comparison means something"
        np.testing.assert_allclose(tree[f"2.{part}"].grad, total, rtol=1e-6)
        np.testing.assert_array_equal(tree[f"2.{part}"].grad, tree[f"4.{part}"].grad)


def test_training_is_observed_step_by_step(tied, batch):
    """The chapter's second exercise: parameters and gradients of each layer while a tied net learns."""
    tree = pt.open(tied)
    for _ in range(3):
        before = {name: param.value.copy() for name, param in tree.items()}
        tied.zero_grad()
        ((tied(batch) - 1) ** 2).sum().backward()
        with torch.no_grad():
            for parameter in tied.parameters():
                parameter -= 0.1 * parameter.grad
        for name, param in tree.items():
            np.testing.assert_allclose(param.value, before[name] - 0.1 * param.grad, rtol=1e-5, atol=1e-7)
    assert tree.ties == (("2.weight", "4.weight"), ("2.bias", "4.bias"))
