"""What of PyTorch can be opened: wrapped modules, parametrized ones, state dicts, lists, one parameter."""

import os

import numpy as np
import pytest

import paratree as pt

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")
nn = torch.nn

WRAPPED = ["0.weight", "0.bias", "2.weight", "2.bias"]


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """One process that is a process group."""
    store = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


# Wrappers


@pytest.mark.parametrize(("wrap", "key"), [(nn.DataParallel, "module"), (torch.compile, "_orig_mod")])
def test_a_wrapper_is_seen_through_with_a_note(wrap, key):
    net = wrap(mlp())
    tree = pt.open(net)
    assert list(tree) == WRAPPED
    assert list(net.state_dict()) == [f"{key}.{name}" for name in WRAPPED]
    assert tree.notes == (f"seen through {type(net).__name__}: names are those of the model inside",)
    assert tree["2.bias"].native == f"net.{key}[2].bias"
    assert tree[f"{key}.2.bias"] is tree["2.bias"], "the wrapped name is an alias"


def test_distributed_data_parallel_is_seen_through(group):
    net = nn.parallel.DistributedDataParallel(mlp())
    assert list(pt.open(net)) == WRAPPED
    assert pt.open(net)["0.weight"].handle is net.module[0].weight


def test_a_wrapper_inside_a_model_is_seen_through():
    net = nn.Sequential(torch.compile(mlp()), nn.Linear(1, 1))
    tree = pt.open(net)
    assert list(tree) == [*(f"0.{name}" for name in WRAPPED), "1.weight", "1.bias"]
    assert tree["0.2.bias"].native == "net[0]._orig_mod[2].bias"


def test_a_namesake_of_a_wrapper_is_none():
    class DataParallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(1, 1)

    tree = pt.open(DataParallel())
    assert list(tree) == ["module.weight", "module.bias"]
    assert tree.notes == ()


def test_a_wrapped_model_is_changed_through_the_names_inside():
    net = nn.DataParallel(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    pt.tie(net, "0.weight", "1.weight")
    assert net.module[0].weight is net.module[1].weight
    pt.untie(net, "1.weight")
    assert net.module[0].weight is not net.module[1].weight
    pt.update(net, {"1.bias": 5})
    assert (net.module[1].bias == 5).all()


def test_uses_in_a_compiled_model_are_told_apart():
    shared = nn.Linear(3, 3)
    net = torch.compile(nn.Sequential(shared, nn.Tanh(), shared))
    found = pt.gradients(net, lambda net, x: net(x).sum(), torch.rand(2, 3), per_use=True)
    assert [use.by for use in found.uses["0.weight"]] == ["linear", "linear"]


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_uses_hidden_in_a_script_are_refused_and_their_sum_is_not():
    shared = nn.Linear(3, 3)
    net = torch.jit.trace(nn.Sequential(shared, nn.Tanh(), shared), torch.rand(2, 3))
    batch = torch.rand(2, 3)
    assert pt.gradients(net, lambda net, x: net(x).sum(), batch)["0.weight"].any()
    with pytest.raises(pt.UnsupportedError, match=r"0 uses were seen, .* \(compiled code, a custom function"):
        pt.gradients(net, lambda net, x: net(x).sum(), batch, per_use=True)


# Parametrizations


def test_weight_norm_is_shown_as_the_two_parameters_that_it_is():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    tree = pt.open(net)
    assert list(tree) == list(net.state_dict())
    assert [param.kind for param in tree.values()] == ["parameter"] * 3
    assert tree.notes == (
        "0.weight is computed by WeightNorm from original0, original1 in 0.parametrizations.weight",
    )


def test_spectral_norm_is_shown_with_its_buffers():
    net = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2))
    tree = pt.open(net)
    assert set(tree) == set(net.state_dict())
    assert tree["parametrizations.weight.0._u"].kind == "buffer"
    assert tree.notes == ("weight is computed by SpectralNorm from original in parametrizations.weight",)


class Held(nn.Module):
    """Parameters and modules in every container that PyTorch has."""

    def __init__(self):
        super().__init__()
        self.listed = nn.ParameterList([torch.zeros(1), torch.zeros(2)])
        self.named = nn.ParameterDict({"0": torch.zeros(1), "a b": torch.zeros(2)})
        self.modules_by_name = nn.ModuleDict({"0": nn.Linear(1, 1), "x-y": nn.Linear(1, 1)})
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
        self.sequence = nn.Sequential()
        self.sequence.add_module("first one", nn.Linear(1, 1))
        self.sequence.add_module("4", nn.Linear(1, 1))


def test_every_expression_is_true_whatever_holds_the_parameter():
    net = Held()
    assert list(pt.open(net)) == list(net.state_dict())
    for param in pt.open(net).values():
        assert eval(param.native, {"net": net}) is param.handle


# Containers


def test_a_state_dict():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = net.state_dict()
    tree = pt.open(state)
    assert list(tree) == list(state)
    assert [param.kind for param in tree.values()] == [param.kind for param in pt.open(net).values()]
    assert [param.trainable for param in tree.values()] == [None] * 7, "a state_dict does not say"
    tree["0.weight"].value[...] = 3
    assert (net[0].weight == 3).all(), "its tensors are the memory of the model"
    assert eval(tree["0.weight"].native, {"params": state}) is state["0.weight"]


def test_the_ties_of_a_state_dict_are_those_of_its_memory():
    shared = nn.Linear(2, 2)
    assert pt.open(nn.Sequential(shared, shared).state_dict()).ties == (
        ("0.weight", "1.weight"), ("0.bias", "1.bias"),
    )  # fmt: skip


def test_a_list_of_named_parameters():
    net = mlp()
    pairs = list(net.named_parameters())
    tree = pt.open(pairs)
    assert list(tree) == [name for name, _ in pairs]
    assert [param.trainable for param in tree.values()] == [True] * 4
    assert eval(tree["2.bias"].native, {"params": pairs}) is net[2].bias


def test_named_parameters_as_they_come():
    net = mlp()
    tree = pt.open(net.named_parameters())
    assert [param.handle for param in tree.values()] == list(net.parameters())


def test_a_training_checkpoint_in_memory():
    net = mlp()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(2, 4)).sum().backward()
    optimizer.step()
    tree = pt.open({"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})
    assert list(tree["model"]) == WRAPPED
    assert {param.kind for param in tree["optimizer"].values()} == {"state"}
    assert tree.size == sum(p.numel() for p in net.parameters())


def test_one_parameter():
    parameter = nn.Parameter(torch.ones(2, 3))
    tree = pt.open(parameter)
    assert list(tree) == ["parameter"]
    assert np.shares_memory(tree["parameter"].value, parameter.detach().numpy())


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(pt.MismatchError, match="two tensors are named 'a'"):
        pt.open([("a", torch.zeros(1)), ("a", torch.ones(1))])


def test_a_class_is_refused_with_the_next_step():
    with pytest.raises(pt.UnknownSourceError, match="Linear is a class; give a model made of it"):
        pt.open(nn.Linear)


@pytest.mark.parametrize("source", [{"a": {}}, [("a", 1)], {"epoch": 3}, ()])
def test_a_container_without_a_tensor_is_refused(source):
    with pytest.raises(pt.UnknownSourceError):
        pt.open(source)


def test_a_state_dict_is_updated_and_tied_and_a_list_says_what_it_cannot():
    state = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).state_dict()
    pt.update(state, {"0.bias": 1})
    pt.tie(state, "0.weight", "1.weight")
    assert state["0.weight"] is state["1.weight"]
    pairs = list(mlp().named_parameters())
    with pytest.raises(pt.UnsupportedError, match="a list has no place for another tensor"):
        pt.tie([*pairs, ("other", nn.Parameter(torch.zeros(8)))], "0.bias", "other")


# Gradients held outside


def test_gradients_by_name_as_torch_func_gives_them():
    net, batch = mlp(), torch.rand(2, 4)

    def loss(params):
        return torch.func.functional_call(net, params, (batch,)).sum()

    grads = torch.func.grad(loss)({name: p.detach() for name, p in net.named_parameters()})
    tree = pt.open(net, grads=grads)
    net(batch).sum().backward()
    for name, parameter in net.named_parameters():
        np.testing.assert_array_equal(tree[name].grad, parameter.grad.numpy())


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"2.weight": torch.zeros(3)}, r"'2.weight' has the shape \(3,\), its parameter \(1, 8\)"),
        ({"9.weight": torch.zeros(3)}, "no parameter '9.weight'"),
        ([torch.zeros(3)], "given by name"),
    ],
)
def test_gradients_of_another_structure_are_refused(grads, message):
    with pytest.raises(pt.MismatchError, match=message):
        pt.open(mlp(), grads=grads)


# Tensors that are elsewhere


def test_a_distributed_tensor_has_its_global_shape_and_says_how_to_gather_it(group):
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    net = nn.Linear(4, 6)
    mesh = init_device_mesh("cpu", (1,))
    net.weight = nn.Parameter(distribute_tensor(net.weight.detach(), mesh, [Shard(0)]))
    param = pt.open(net)["weight"]
    assert (param.shape, param.dtype) == ((6, 4), "float32")
    with pytest.raises(
        pt.UnreadableError, match=r"weight: a part of it is here; \.full_tensor\(\) gathers it"
    ):
        _ = param.value


def test_a_model_on_the_meta_device_is_listed_and_not_read():
    with torch.device("meta"):
        net = mlp()
    tree = pt.open(net)
    assert tree.size == 49
    with pytest.raises(pt.UnreadableError, match="the meta device holds no values"):
        _ = tree["0.weight"].value
    with pytest.raises(pt.UnreadableError, match="the meta device"):
        pt.update(net, {"0.weight": 0})


def test_opening_imports_no_other_framework():
    import subprocess
    import sys

    code = (
        "import sys, torch, paratree; before = set(sys.modules);"
        "net = torch.nn.Linear(2, 2); tree = paratree.open(net); repr(tree); tree['weight'].value;"
        "paratree.update(net, {'weight': 0});"
        "paratree.gradients(net, lambda net: net.weight.sum(), per_use=True);"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).split()
    assert not {"jax", "flax", "keras", "tensorflow", "mxnet", "transformers"} & set(loaded)
