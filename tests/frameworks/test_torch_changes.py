"""Changing and differentiating PyTorch models: what a first user did, and what could go wrong unseen."""

import numpy as np
import pytest

import paratree as pt

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")
nn = torch.nn

BATCH = torch.ones(3, 4)


def total(net, *batch):
    return net(*batch).sum()


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))


class TwoOverOne(nn.Module):
    """Two parameters of one memory, which PyTorch trains as two."""

    def __init__(self):
        super().__init__()
        memory = torch.zeros(4)
        self.a, self.b = nn.Parameter(memory), nn.Parameter(memory)

    def forward(self):
        return self.a.sum() + 2 * self.b.sum()


# Two parameters of one memory


def test_parameters_of_one_memory_are_all_in_their_group():
    net = TwoOverOne()
    (group,) = pt.groups(net, {})
    assert [id(parameter) for parameter in group["params"]] == [id(net.a), id(net.b)]


def test_their_gradient_is_what_the_memory_gets_from_both():
    net = TwoOverOne()
    found = pt.gradients(net, lambda net: net(), per_use=True)
    assert found["a"].tolist() == [3.0] * 4
    assert [use.gradient[0] for use in found.uses["b"]] == [1.0, 2.0]


def test_they_can_be_made_one_parameter():
    net = TwoOverOne()
    pt.tie(net, "a", "b")
    assert net.a is net.b
    with pytest.raises(pt.MismatchError, match="a and b are one parameter already"):
        pt.tie(net, "a", "b")


# Losses


@pytest.mark.parametrize(
    "loss",
    [
        lambda net, x: net(x).sum().detach(),
        lambda net, x: torch.tensor(1.0),
        lambda net, x: nn.Linear(4, 1)(x).sum(),
    ],
)
def test_a_loss_that_depends_on_no_parameter_is_refused(loss, net):
    with pytest.raises(pt.MismatchError, match="the loss depends on no parameter of the model"):
        pt.gradients(net, loss, BATCH)


def test_inside_inference_mode_the_loss_is_refused_and_inside_no_grad_it_is_not(net):
    with torch.no_grad():
        assert pt.gradients(net, total, BATCH)["0.weight"].any()
    with torch.inference_mode(), pytest.raises(pt.MismatchError, match="depends on no parameter"):
        pt.gradients(net, total, BATCH)


def test_a_complex_loss_is_refused(net):
    with pytest.raises(pt.MismatchError, match="a complex number; a gradient needs a real one"):
        pt.gradients(net, lambda net, x: net(x).sum() * 1j, BATCH)


def test_a_reentrant_checkpoint_is_refused_and_the_other_kind_is_right():
    from torch.utils.checkpoint import checkpoint

    class Saving(nn.Module):
        def __init__(self, reentrant):
            super().__init__()
            self.layer, self.reentrant = nn.Linear(4, 4), reentrant

        def forward(self, x):
            return checkpoint(self.layer, x, use_reentrant=self.reentrant)

    batch = torch.ones(2, 4, requires_grad=True)
    with pytest.raises(pt.UnsupportedError, match="use_reentrant=False"):
        pt.gradients(Saving(True), total, batch)
    found = pt.gradients(Saving(False), total, batch, per_use=True)
    assert found["layer.weight"].tolist() == [[2.0] * 4] * 4
    assert len(found.uses["layer.weight"]) == 1


def test_a_sparse_gradient_is_given_as_an_array():
    words = torch.tensor([1, 1, 2])
    found = pt.gradients(nn.Embedding(5, 3, sparse=True), total, words, per_use=True)
    assert found["weight"].tolist() == [[0] * 3, [2] * 3, [1] * 3, [0] * 3, [0] * 3]
    assert [use.by for use in found.uses["weight"]] == ["embedding"]


def test_a_buffer_that_the_forward_pass_makes_is_taken_back():
    class Counting(nn.Linear):
        def __init__(self):
            super().__init__(4, 1)
            self.register_buffer("seen", None)

        def forward(self, x):
            self.seen = torch.ones(3)
            return super().forward(x)

    net = Counting()
    pt.gradients(net, total, BATCH)
    assert net.seen is None


def test_a_failing_loss_leaves_the_model_as_it_was():
    net = nn.Sequential(nn.BatchNorm1d(4))
    with pytest.raises(ZeroDivisionError):
        pt.gradients(net, lambda net, x: net(x).sum() / (1 // 0), BATCH)
    assert net[0].running_mean.tolist() == [0.0] * 4
    assert net[0].num_batches_tracked == 0


def test_gradients_are_looked_up_as_the_tree_does(net):
    found = pt.gradients(net, total, BATCH)
    assert found["0/weight"] is found["0.weight"]
    with pytest.raises(pt.NoSuchParamError, match=r"did you mean '0\.weight'"):
        _ = found["0.wieght"]


# New values


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_are_taken_as_new_values(dtype):
    net, other = nn.Linear(4, 4).to(dtype), nn.Linear(4, 4)
    pt.update(net, {"weight": other.weight, "bias": lambda bias: torch.ones(4).bfloat16()})
    assert torch.equal(net.weight, other.weight.to(dtype))
    assert net.bias.tolist() == [1.0] * 4


@pytest.mark.parametrize("value", [None, "text", 10**400, object(), (i for i in range(4)), [[1], [1, 2]]])
def test_what_is_no_array_of_numbers_is_refused(net, value):
    with pytest.raises(pt.MismatchError, match=r"0\.bias: a \w+ is no array of numbers"):
        pt.update(net, {"0.bias": value})


def test_a_value_that_would_become_infinite_is_refused_and_infinity_is_not():
    net = nn.Linear(4, 4).half()
    with pytest.raises(pt.MismatchError, match="out of the range of float16"):
        pt.update(net, {"bias": 1e6})
    pt.update(net, {"bias": np.inf})
    assert torch.isinf(net.bias).all()


# Arguments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: pt.freeze(net, None), "a NoneType is no selector"),
        (lambda net: pt.freeze(net, ("0.bias", 3)), "a int is no selector"),
        (lambda net: pt.update(net, [("0.bias", 0)]), "a list is not values by selector"),
        (lambda net: pt.groups(net, None), "a NoneType is not options by selector"),
        (lambda net: pt.groups(net, {"**.bias": 0.1}), r"the options of \*\*\.bias are a float"),
        (lambda net: pt.groups(net, {"**.bias": {"params": []}}), "have 'params'"),
        (lambda net: pt.untie(net), "name at least one parameter"),
    ],
)
def test_arguments_of_another_kind_are_refused(net, call, message):
    with pytest.raises(pt.MismatchError, match=message):
        call(net)


def test_a_tree_is_no_source(net):
    with pytest.raises(pt.UnknownSourceError, match="a ParamTree is no source: give the model"):
        pt.update(pt.open(net), {"0.bias": 0})


def test_thawing_all_passes_over_integers():
    net = nn.Linear(2, 2)
    net.codes = nn.Parameter(torch.zeros(2, dtype=torch.int32), requires_grad=False)
    pt.unfreeze(pt.freeze(net, "weight"), "**")
    assert net.weight.requires_grad


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_a_scripted_module_cannot_be_rewired():
    net = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    with pytest.raises(pt.UnsupportedError, match="a scripted module cannot be rewired"):
        pt.tie(net, "0.weight", "1.weight")
