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


# Ties made and broken


def squares(net, *batch):
    return ((net(*batch) - 1) ** 2).mean()


def square_net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 1)
    )


def test_a_tie_that_is_made_is_the_frameworks_own_and_survives_training(batch):
    net = square_net()
    assert pt.tie(net, "2.weight", "4.weight") is net
    assert net[2].weight is net[4].weight
    assert net[2].bias is not net[4].bias
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(squares(net, batch))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert net[2].weight is net[4].weight
    assert pt.open(net).ties == (("2.weight", "4.weight"),)
    assert len(list(net.parameters())) == 7


def test_parameters_of_a_parted_layer_train_apart(tied, batch):
    value = tied[2].weight.detach().clone()
    assert pt.untie(tied, "4.weight", "4.bias") is tied
    assert tied[2] is not tied[4]
    assert torch.equal(tied[4].weight, value)
    optimizer = torch.optim.SGD(tied.parameters(), lr=0.5)
    squares(tied, batch).backward()
    optimizer.step()
    assert not torch.equal(tied[2].weight, tied[4].weight)
    assert pt.open(tied).ties == ()


def test_one_parameter_of_a_shared_layer_is_parted_and_the_other_stays_tied(tied, batch):
    before = tied(batch)
    pt.untie(tied, "4.weight")
    assert pt.open(tied).ties == (("2.bias", "4.bias"),)
    assert tied[2].bias is tied[4].bias
    assert torch.equal(tied(batch), before)


def test_all_names_of_a_tied_group_are_parted_and_the_first_keeps_the_parameter(tied):
    parameter = tied[2].weight
    pt.untie(tied, "2.weight", "4.weight")
    assert tied[2].weight is parameter
    assert tied[4].weight is not parameter


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda net: pt.tie(net, "0.weight", "2.weight"), pt.MismatchError, r"their shapes are \(8, 4\) and"),
        (lambda net: pt.tie(net, "2.weight", "2.weight"), pt.MismatchError, "are one parameter already"),
        (lambda net: pt.tie(net, "2.weight"), pt.MismatchError, "name a second parameter"),
        (lambda net: pt.tie(net, "2.weight", "4.wieght"), pt.NoSuchParamError, "did you mean '4.weight'"),
        (lambda net: pt.tie(net, "2", "4"), pt.NoSuchParamError, "it is a subtree"),
        (lambda net: pt.untie(net, "2.weight"), pt.MismatchError, "2.weight is not tied; tied here: nothing"),
    ],
)
def test_a_tie_that_cannot_be_is_refused(change, error, message):
    net = square_net()
    before = [id(parameter) for parameter in net.parameters()]
    with pytest.raises(error, match=message):
        change(net)
    assert [id(parameter) for parameter in net.parameters()] == before


# Gradients


def test_gradients_are_the_frameworks_own_and_none_is_stored(tied, batch):
    found = pt.gradients(tied, squares, batch)
    assert all(parameter.grad is None for parameter in tied.parameters())
    loss = squares(tied, batch)
    loss.backward()
    assert found.loss == loss.item()
    assert list(found) == list(tied.state_dict())
    for name, tensor in tied.named_parameters():
        np.testing.assert_array_equal(found[name], tensor.grad.numpy())
    assert found["4.weight"] is found["2.weight"]


def test_what_each_use_adds_is_the_gradient_of_an_untied_twin(tied, batch):
    found = pt.gradients(tied, squares, batch, per_use=True)
    twin = pt.untie(tied, "4.weight", "4.bias")
    apart = pt.gradients(twin, squares, batch)
    for part in ("weight", "bias"):
        first, second = found.uses[f"4.{part}"]
        assert (first.by, second.by) == ("linear", "linear")
        np.testing.assert_allclose(first.gradient, apart[f"2.{part}"], rtol=1e-6)
        np.testing.assert_allclose(second.gradient, apart[f"4.{part}"], rtol=1e-6)
    assert [len(found.uses[name]) for name in ("0.weight", "6.bias")] == [1, 1]


def test_a_loss_that_is_not_one_number_is_refused(net, batch):
    with pytest.raises(
        pt.MismatchError, match=r"the loss is a tensor of shape \(2, 1\); .* take its mean or sum"
    ):
        pt.gradients(net, lambda net, batch: net(batch), batch)
    with pytest.raises(pt.MismatchError, match="the loss is 3"):
        pt.gradients(net, lambda net, batch: 3, batch)


def test_a_frozen_parameter_has_no_gradient(net, batch):
    pt.freeze(net, "0.**")
    assert list(pt.gradients(net, squares, batch)) == ["2.weight", "2.bias"]


# Changing, freezing, groups


def test_update_by_arrays_numbers_and_functions(net):
    weight = np.arange(8.0).reshape(1, 8)
    assert pt.update(net, {"2.weight": weight, "*.bias": 0, "0.weight": lambda w: w * 2}) is net
    assert net[2].weight.detach().tolist() == weight.tolist()
    assert not net[0].bias.any()
    assert not net[2].bias.any()


def test_update_through_one_name_changes_the_other(tied):
    pt.update(tied, {"4.weight": np.full((8, 8), 2.0)})
    assert (tied[2].weight == 2).all()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"2.weight": np.zeros((8, 1))}, pt.MismatchError, r"2.weight: its shape is \(1, 8\), .* \(8, 1\)"),
        ({"2.weight": 1j}, pt.MismatchError, "complex128 does not fit into float32"),
        ({"2.weight": "text"}, pt.MismatchError, "a str is no array of numbers"),
        ({"2.wieght": 0}, pt.NoSuchParamError, "did you mean '2.weight'"),
        ({"9.*": 0}, pt.NoSuchParamError, "nothing fits '9.*'"),
        ({"2.*": 0, "*.bias": 1}, pt.MismatchError, r"2.bias: chosen twice, by 2.\* and by \*.bias"),
    ],
)
def test_an_update_that_does_not_fit_changes_nothing(net, values, error, message):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(error, match=message):
        pt.update(net, {"0.weight": 7, **values})
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_tied_parameter_that_two_selectors_choose_by_its_two_names_is_refused(tied):
    with pytest.raises(pt.MismatchError, match=r"2.weight, 4.weight: chosen twice"):
        pt.update(tied, {"2.weight": 0, "4.weight": 1})


def test_a_frozen_layer_does_not_learn_and_a_thawed_one_does(net, batch):
    assert pt.freeze(net, "0.**") is net
    tree = pt.open(net)
    assert [param.trainable for param in tree.values()] == [False, False, True, True]
    first, last = net[0].weight.clone(), net[2].weight.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    squares(net, batch).backward()
    optimizer.step()
    assert torch.equal(net[0].weight, first)
    assert not torch.equal(net[2].weight, last)
    pt.unfreeze(net, "0.weight")
    assert [param.trainable for param in tree.values()] == [True, False, True, True], "an open tree follows"


def test_freezing_one_name_of_a_tied_parameter_freezes_the_other(tied):
    pt.freeze(tied, "4.weight")
    assert not tied[2].weight.requires_grad
    assert pt.open(tied)["2.weight"].trainable is False


def test_what_holds_no_parameter_cannot_be_frozen():
    net = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(pt.NoSuchParamError, match=r"'0.running_mean' chooses no parameter, only: buffer"):
        pt.freeze(net, "0.running_mean")


def test_groups_are_what_an_optimizer_takes(tied, batch):
    pt.freeze(tied, "0.bias")
    groups = pt.groups(tied, {"**.bias": {"weight_decay": 0.0}, "6.weight": {"lr": 0.0}})
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.01)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.01, 0.01]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.0, 0.1]
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in tied.parameters() if p.requires_grad}
    assert len(held) == 5, "the tied ones once, the frozen one not at all"
    last = tied[6].weight.clone()
    squares(tied, batch).backward()
    optimizer.step()
    assert torch.equal(tied[6].weight, last), "its learning rate is 0"


def test_a_parameter_in_two_groups_is_refused(net):
    with pytest.raises(pt.MismatchError, match=r"2.bias: chosen twice"):
        pt.groups(net, {"**.bias": {}, "2.**": {}})


# The framework's own expressions


def test_native_is_the_expression_of_the_framework(tied):
    tree = pt.open(tied)
    assert tree.layers[1].bias.native == "net[2].bias"
    assert tree.layers[1].bias.handle is tied[2].bias
    names = {name: param.native for name, param in pt.open(nn.Sequential(NestMLP())).items()}
    assert names["0.net.2.weight"] == "net[0].net[2].weight"
