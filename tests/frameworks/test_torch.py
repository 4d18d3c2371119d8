"""PyTorch modules as trees: names, values in shared memory, gradients, what cannot be read."""

import doctest
import gc
import warnings
import weakref
from importlib import import_module
from typing import ClassVar

import ml_dtypes
import numpy as np
import pytest

import paratree as pt

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")
nn = torch.nn


def net_with_everything():
    return nn.Sequential(
        nn.Embedding(11, 6),
        nn.Conv1d(6, 4, 3),
        nn.BatchNorm1d(4),
        nn.LSTM(4, 5, num_layers=2, bidirectional=True),
        nn.Sequential(nn.Linear(10, 3, bias=False), nn.PReLU()),
    )


class Holder(nn.Module):
    """A module with the parameters it is given."""

    def __init__(self, **tensors):
        super().__init__()
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)


def frozen(tensor):
    return nn.Parameter(tensor, requires_grad=False)


# Names, order, kinds


def test_names_order_and_values_are_those_of_the_state_dict():
    net = net_with_everything()
    tree = pt.open(net)
    assert list(tree) == list(net.state_dict())
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(tree[name].value, tensor.numpy())
        assert tree[name].shape == tuple(tensor.shape)
        assert tree[name].dtype == str(tensor.dtype).removeprefix("torch.")


def test_the_source_is_the_class_and_the_format_is_pytorch():
    class Net(nn.Linear):
        pass

    tree = pt.open(Net(2, 3))
    assert (tree.source, tree.format) == ("Net", "PyTorch")


def test_parameters_and_buffers_are_told_apart():
    tree = pt.open(net_with_everything())
    assert list(tree.select(kind="buffer")) == ["2.running_mean", "2.running_var", "2.num_batches_tracked"]
    assert {p.kind for name, p in tree.items() if not name.startswith("2.")} == {"parameter"}
    assert tree["2.running_var"].trainable is False
    assert tree["2.weight"].trainable is True
    assert pt.open(Holder(mask=torch.ones(2, requires_grad=True)))["mask"].trainable is False


def test_a_frozen_parameter_is_not_trainable():
    net = nn.Linear(2, 3)
    net.weight.requires_grad_(False)
    tree = pt.open(net)
    assert (tree["weight"].trainable, tree["bias"].trainable) == (False, True)
    assert "frozen" in repr(tree["weight"])


def test_a_buffer_that_is_not_saved_is_in_the_tree():
    net = nn.Module()
    net.register_buffer("mask", torch.ones(3, dtype=torch.bool), persistent=False)
    assert "mask" not in net.state_dict()
    assert pt.open(net)["mask"].kind == "buffer"


def test_absent_parameters_and_modules_are_no_names():
    net = nn.Module()
    net.register_parameter("bias", None)
    net.register_buffer("mask", None)
    net.register_module("down", None)
    net.weight = nn.Parameter(torch.ones(2))
    assert list(pt.open(net)) == ["weight"]


def test_a_module_inside_itself_is_walked_once():
    net = nn.Sequential(nn.Linear(2, 2))
    net[0].register_module("parent", net)
    assert list(pt.open(net)) == ["0.weight", "0.bias"]


def test_a_module_without_parameters_is_an_empty_tree():
    tree = pt.open(nn.ReLU())
    assert (len(tree), tree.size, tree.ties, tree.layers) == (0, 0, (), ())


def test_a_scripted_module_opens_like_its_original():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer versions warn that scripting will end
        tree = pt.open(torch.jit.script(net))
    assert list(tree) == ["0.weight", "0.bias"]
    np.testing.assert_array_equal(tree["0.weight"].value, net[0].weight.detach().numpy())


@pytest.mark.parametrize("other", [torch.float32, torch.device("cpu")])
def test_what_is_no_module_is_refused_by_name(other):
    with pytest.raises(pt.UnknownSourceError, match=r"not a model of any of: .*torch"):
        pt.open(other)


# Values


def test_the_value_shares_memory_in_both_directions():
    net = nn.Linear(3, 2)
    value = pt.open(net)["weight"].value
    value[0, 1] = 42
    assert net.weight[0, 1].item() == 42
    with torch.no_grad():
        net.weight[1, 2] = -7
    assert value[1, 2] == -7
    assert value.ctypes.data == net.weight.data_ptr()


@pytest.mark.parametrize(
    ("torch_name", "dtype"),
    [(name, np.dtype(name)) for name in ("float16", "float32", "float64", "complex64", "complex128", "bool")]
    + [(name, np.dtype(name)) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")]
    + [
        (name, np.dtype(getattr(ml_dtypes, name)))
        for name in (
            "bfloat16",
            "float8_e4m3fn",
            "float8_e4m3fnuz",
            "float8_e5m2",
            "float8_e5m2fnuz",
            "float8_e8m0fnu",
        )
    ],
)
def test_every_dtype_that_numpy_has_shares_memory(torch_name, dtype):
    source = torch.arange(1, 7).reshape(2, 3).to(torch.float32).to(getattr(torch, torch_name)).t()
    param = pt.open(Holder(w=source))["w"]
    assert (param.dtype, param.value.dtype, param.shape) == (torch_name, dtype, (3, 2))
    assert param.nbytes == 6 * source.itemsize
    np.testing.assert_array_equal(param.value.astype("complex128"), source.to(torch.complex128).numpy())
    assert param.value.ctypes.data == source.data_ptr()
    param.value[2, 1] = 1
    assert source[2, 1].item() == 1


def test_conjugate_and_negative_views_are_resolved():
    stored = torch.tensor([[1 + 2j, 3 - 1j]])
    tree = pt.open(
        Holder(plain=stored, conjugate=stored.conj(), plus=stored.imag, imaginary=stored.conj().imag)
    )
    np.testing.assert_array_equal(tree["conjugate"].value, [[1 - 2j, 3 + 1j]])
    np.testing.assert_array_equal(tree["imaginary"].value, [[-2, 1]])
    assert tree["conjugate"][0, 1] == 3 + 1j
    assert tree.ties == ()


INDICES = [..., (), 0, -1, (1, 2), (slice(None), 1), slice(1, None), (..., -1), np.int64(1), (1, ..., 2, 2)]
INDICES += [
    (slice(None, None, -1), slice(4, 0, -2)),
    (0, slice(3, 3)),
    slice(5, 2),
    slice(-99, 99, 3),
    (1, 2, 2),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_index_reads_a_view_as_numpy_would(index, dtype):
    tensor = torch.arange(60).reshape(3, 4, 5).to(getattr(torch, dtype)).permute(1, 2, 0)
    param = pt.open(Holder(w=tensor))["w"]
    part, expected = param[index], param.value[index]
    assert isinstance(part, np.ndarray)
    np.testing.assert_array_equal(part, expected)
    assert part.dtype == expected.dtype
    assert np.shares_memory(part, param.value) or not part.size


@pytest.mark.parametrize(
    "index", [4, (0, -6), (0, 0, 0, 0), (..., ...), [0], None, True, 1.0, np.ones(4, bool)], ids=repr
)
def test_an_index_that_does_not_fit_is_an_index_error(index):
    with pytest.raises(IndexError):
        pt.open(Holder(w=torch.zeros(4, 5, 3)))["w"][index]


def test_a_scalar_parameter_reads_as_an_array_of_no_axes():
    param = pt.open(Holder(scale=frozen(torch.tensor(2.5))))["scale"]
    assert (param.shape, param.value.shape, param.size) == ((), (), 1)
    assert param[()] == 2.5


class OnDevice(torch.Tensor):
    """Stands for a tensor on a device: it counts what is copied to the host."""

    copied: ClassVar[list] = []

    device = torch.device("cuda")
    is_cpu = False

    def numpy(self, *, force):
        assert force
        self.copied.append(tuple(self.shape))
        return self.as_subclass(torch.Tensor).clone().numpy()


def test_from_a_device_only_the_part_asked_for_is_copied():
    tensor = torch.arange(12.0).reshape(3, 4)
    param = pt.open(Holder(w=tensor.as_subclass(OnDevice)))["w"]
    OnDevice.copied.clear()
    np.testing.assert_array_equal(param[1, ::-2], [7, 5])
    assert OnDevice.copied == [(2,)]
    param.value[:] = 0
    assert tensor[2, 3] == 11


def test_the_array_protocols_reach_the_live_memory():
    net = nn.Linear(3, 2)
    param = pt.open(net)["weight"]
    assert np.shares_memory(np.asarray(param), param.value)
    assert np.from_dlpack(param).ctypes.data == net.weight.data_ptr()
    assert torch.from_dlpack(param).data_ptr() == net.weight.data_ptr()


def test_shape_dtype_and_value_follow_the_live_tensor():
    net = nn.Linear(3, 2)
    tree = pt.open(net)
    net.half()
    assert (tree["weight"].dtype, tree["weight"].value.dtype) == ("float16", np.float16)
    net.weight.data = torch.ones(5)
    assert (tree["weight"].shape, tree["weight"].value.tolist()) == ((5,), [1] * 5)


# Gradients


def test_the_gradient_is_none_and_then_the_live_memory():
    net = nn.Linear(3, 2)
    param = pt.open(net)["weight"]
    assert param.grad is None
    net(torch.ones(1, 3)).sum().backward()
    np.testing.assert_array_equal(param.grad, np.ones((2, 3)))
    param.grad[0, 0] = 9
    assert net.weight.grad[0, 0].item() == 9
    net.zero_grad()
    assert param.grad is None


def test_buffers_have_no_gradient():
    assert pt.open(nn.BatchNorm1d(2))["running_mean"].grad is None


def test_a_sparse_gradient_is_refused_with_the_next_step():
    net = nn.Embedding(5, 2, sparse=True)
    net(torch.tensor([1])).sum().backward()
    with pytest.raises(pt.UnreadableError, match=r"gradient of weight: torch.sparse_coo .*to_dense\(\)"):
        _ = pt.open(net)["weight"].grad


# Layouts


def test_layouts_come_from_the_class_of_the_layer():
    tree = pt.open(net_with_everything())
    layouts = {name: param.layout for name, param in tree.items()}
    assert layouts["0.weight"] == "vocabulary dimension"
    assert (layouts["1.weight"], layouts["1.bias"]) == ("out in length", "out")
    assert layouts["2.running_var"] == layouts["2.weight"] == "channel"
    assert layouts["2.num_batches_tracked"] is None
    assert layouts["3.weight_ih_l1_reverse"] == "gates in"
    assert layouts["3.weight_hh_l0"] == "gates hidden"
    assert layouts["4.0.weight"] == "out in"


@pytest.mark.parametrize(
    ("layer", "name", "layout"),
    [
        (nn.Conv2d(1, 1, 2), "weight", "out in height width"),
        (nn.Conv3d(1, 1, 2), "weight", "out in depth height width"),
        (nn.ConvTranspose2d(1, 1, 2), "weight", "in out height width"),
        (nn.Bilinear(2, 3, 4), "weight", "out in1 in2"),
        (nn.LayerNorm(4), "weight", "channel"),
        (nn.LayerNorm((4, 4)), "weight", None),
        (nn.SyncBatchNorm(4), "running_mean", "channel"),
        (nn.MultiheadAttention(4, 2), "in_proj_weight", "qkv in"),
        (nn.MultiheadAttention(4, 2), "out_proj.weight", "out in"),
        (nn.LSTM(4, 4, proj_size=2), "weight_hr_l0", "projection hidden"),
        (nn.GRUCell(4, 3), "weight_ih", "gates in"),
        (nn.RNN(4, 3), "weight_hh_l0", "out hidden"),
        (nn.LazyConv2d(4, 3), "weight", "out in height width"),
        (nn.LazyBatchNorm2d(), "bias", "channel"),
    ],
)
def test_layout_of_a_layer(layer, name, layout):
    assert pt.open(layer)[name].layout == layout


def test_a_subclass_inherits_its_layout_and_a_namesake_does_not():
    class Quiet(nn.Linear):
        pass

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 3))

    assert pt.open(Quiet(2, 3))["weight"].layout == "out in"
    assert pt.open(Linear())["weight"].layout is None
    assert pt.open(Holder(weight=torch.ones(2, 2)))["weight"].layout is None


# Ties


def test_one_parameter_under_two_names_is_tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    tree = pt.open(net)
    assert tree.ties == (("0.weight", "1.weight"),)
    assert (tree.size, tree.expanded_size) == (24, 40)


def test_two_parameters_over_the_same_memory_are_tied():
    memory = torch.ones(4, 3)
    again = torch.from_numpy(memory.numpy())
    tree = pt.open(Holder(a=frozen(memory), b=frozen(memory[:]), c=frozen(memory.clone()), d=frozen(again)))
    assert tree.ties == (("a", "b", "d"),)
    assert tree["a"].storage == tree["b"].storage != tree["c"].storage


def test_parts_and_other_views_of_one_storage_are_not_tied():
    flat = torch.arange(16.0)
    square = flat.reshape(4, 4)
    tree = pt.open(
        Holder(
            low=frozen(flat[:8]),
            high=frozen(flat[8:]),
            overlapping=frozen(flat[4:12]),
            longer=frozen(flat),
            square=frozen(square),
            turned=frozen(square.t()),
            integers=flat.view(torch.int32),
        )
    )
    assert tree.ties == ()


def test_the_slices_of_a_flattened_lstm_are_not_tied():
    net = nn.LSTM(3, 3)
    flat = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    start = 0
    for parameter in net.parameters():
        parameter.data = flat[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    tree = pt.open(net)
    assert len({param.storage.key for param in tree.values()}) == 1
    assert tree.ties == ()
    assert tree.size == tree.expanded_size == start


def test_empty_tensors_are_never_tied():
    empty = frozen(torch.empty(0, 3))
    net = Holder(a=empty, b=empty)
    assert pt.open(net).ties == ()


def test_meta_and_lazy_parameters_are_tied_only_if_they_are_one_object():
    meta, other = nn.Parameter(torch.empty(3, device="meta")), nn.Parameter(torch.empty(3, device="meta"))
    assert pt.open(Holder(a=meta, b=other, c=meta)).ties == (("a", "c"),)
    shared = nn.LazyLinear(3)
    tree = pt.open(nn.Sequential(shared, nn.LazyLinear(3), shared))
    assert tree.ties == (("0.weight", "2.weight"), ("0.bias", "2.bias"))


def test_freed_memory_is_no_tie():
    tensors = [torch.ones(3), torch.ones(3)]
    for tensor in tensors:
        tensor.untyped_storage().resize_(0)
    assert pt.open(Holder(a=tensors[0], b=tensors[1])).ties == ()


def test_a_storage_keeps_its_memory_so_that_no_other_takes_the_address():
    memory = np.ones(10)
    gone = weakref.ref(memory)
    storage = pt.open(Holder(w=torch.from_numpy(memory)))["w"].storage
    assert f"{memory.ctypes.data:#x}" in repr(storage)
    del memory
    gc.collect()
    assert gone() is not None
    del storage
    gc.collect()
    assert gone() is None


def test_a_tree_keeps_the_tensors_but_not_the_module():
    net = nn.Linear(2, 2)
    tree, gone = pt.open(net), weakref.ref(net)
    expected = net.bias.tolist()
    del net
    gc.collect()
    assert gone() is None
    assert tree["bias"].value.tolist() == expected


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(import_module("paratree.frameworks.torch")).failed == 0
