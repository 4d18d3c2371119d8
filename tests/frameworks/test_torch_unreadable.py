"""PyTorch tensors that have no values to read, now or at all: listed, and refused with the next step."""

import warnings

import numpy as np
import pytest

import paratree as pt

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")
nn = torch.nn


def holder_of(**tensors):
    """Return a module with these tensors as its buffers."""
    module = nn.Module()
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor)
    return module


def quantized():
    with warnings.catch_warnings(action="ignore"):
        return torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.quint8)


def nested():
    with warnings.catch_warnings(action="ignore"):
        return torch.nested.nested_tensor([torch.rand(2), torch.rand(3)])


def freed():
    tensor = torch.ones(2, 3)
    tensor.untyped_storage().resize_(0)
    return tensor


def fake():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(3)


UNREADABLE = [
    (lambda: torch.eye(3).to_sparse(), (3, 3), "float32", r"sparse_coo .*\.to_dense\(\)"),
    (lambda: torch.eye(3).to_sparse_csr(), (3, 3), "float32", r"sparse_csr .*\.to_dense\(\)"),
    (quantized, (3,), "quint8", r"\.dequantize\(\)"),
    (nested, (None, None), "float32", r"\.to_padded_tensor"),
    (lambda: torch.ones(2, 3, device="meta"), (2, 3), "float32", "load a checkpoint"),
    (fake, (3,), "float32", "FakeTensor computes its values; open a model of plain tensors"),
    (freed, (2, 3), "float32", "its memory was freed; bring the values back"),
    (lambda: torch.zeros(2, dtype=torch.complex32), (2,), "complex32", "NumPy has no complex32; convert"),
    (
        lambda: torch.zeros(2, dtype=torch.uint8).view(torch.bits8),
        (2,),
        "bits8",
        "NumPy has no bits8; convert",
    ),
]


@pytest.mark.parametrize(("make", "shape", "dtype", "advice"), UNREADABLE)
@pytest.mark.filterwarnings("ignore:.*(beta|experimental)")
def test_what_cannot_be_read_is_listed_and_refused_with_the_next_step(make, shape, dtype, advice):
    param = pt.open(holder_of(w=make()))["w"]
    assert (param.shape, param.dtype) == (shape, dtype)
    assert "not readable" in repr(param)
    for read in (lambda: param.value, lambda: param[0], lambda: np.asarray(param)):
        with pytest.raises(pt.UnreadableError, match=f"^w: .*{advice}"):
            read()


def test_inside_a_transform_the_tensor_is_refused():
    seen = []

    def look(row):
        seen.append(pt.open(holder_of(w=row))["w"].array.problem)
        return row

    torch.vmap(look)(torch.ones(2, 3))
    assert "computes its values" in seen[0]


def test_memory_that_is_freed_later_is_noticed():
    tensor = torch.ones(2, 3)
    param = pt.open(holder_of(w=tensor))["w"]
    assert param.array.problem is None
    tensor.untyped_storage().resize_(8)
    with pytest.raises(pt.UnreadableError, match="freed"):
        _ = param.value


def test_a_view_beyond_freed_memory_is_refused_and_one_before_it_is_not():
    flat = torch.arange(8.0)
    head, tail = flat[:4], flat[4:]
    flat.untyped_storage().resize_(16)
    tree = pt.open(holder_of(head=head, tail=tail))
    assert tree["head"].value.tolist() == [0, 1, 2, 3]
    with pytest.raises(pt.UnreadableError, match="tail: its memory was freed"):
        _ = tree["tail"].value


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_an_empty_tensor_can_be_read(shape):
    param = pt.open(holder_of(w=torch.empty(shape)))["w"]
    assert (param.value.shape, param.size, param.nbytes) == (shape, 0, 0)


# Lazy modules

LAZY = [
    (nn.LazyLinear(8), {"weight": (8, None), "bias": (8,)}, (2, 4)),
    (nn.LazyLinear(8, bias=False), {"weight": (8, None)}, (2, 4)),
    (nn.LazyConv1d(6, 3), {"weight": (6, None, 3), "bias": (6,)}, (1, 4, 9)),
    (nn.LazyConv2d(6, (3, 5), groups=2), {"weight": (6, None, 3, 5), "bias": (6,)}, (1, 4, 9, 9)),
    (nn.LazyConv3d(6, 3), {"weight": (6, None, 3, 3, 3), "bias": (6,)}, (1, 4, 9, 9, 9)),
    (nn.LazyConvTranspose1d(6, 3), {"weight": (None, 6, 3), "bias": (6,)}, (1, 4, 9)),
    (nn.LazyConvTranspose2d(6, 3, groups=2), {"weight": (None, 3, 3, 3), "bias": (6,)}, (1, 4, 9, 9)),
    (nn.LazyConvTranspose3d(6, 3), {"weight": (None, 6, 3, 3, 3), "bias": (6,)}, (1, 4, 5, 5, 5)),
    (nn.LazyBatchNorm1d(), dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (None,)), (2, 4)),
    (
        nn.LazyInstanceNorm2d(affine=True, track_running_stats=False),
        dict.fromkeys(("weight", "bias"), (None,)),
        (2, 4, 5, 5),
    ),
]


@pytest.mark.parametrize(("layer", "shapes", "batch"), LAZY)
def test_a_lazy_layer_tells_what_it_knows_and_no_more_than_becomes_true(layer, shapes, batch):
    before = pt.open(layer)
    layouts = {name: before[name].layout for name in shapes}
    assert {name: p.shape for name, p in before.items() if p.array.problem} == shapes
    for name in shapes:
        with pytest.raises(pt.UnreadableError, match=rf"^{name}: not initialised yet; run .* net\(X\)"):
            _ = before[name].value
    layer(torch.rand(batch))
    after = pt.open(layer)
    for name, known in shapes.items():
        assert after[name].layout == layouts[name]
        assert len(known) == after[name].ndim
        assert all(a in (b, None) for a, b in zip(known, after[name].shape, strict=True))
        assert after[name].value.shape == tuple(getattr(layer, name).shape)
        assert before[name].shape == after[name].shape, "a tree follows the live model"


def test_of_an_unknown_lazy_parameter_not_even_the_rank_is_known():
    net = nn.Module()
    net.weight = nn.parameter.UninitializedParameter()
    param = pt.open(net)["weight"]
    assert (param.shape, param.size, param.nbytes, param.dtype) == ((None,), None, None, "float32")
    assert (param.trainable, param.grad) == (True, None)


def test_lazy_parameters_are_counted_as_unknown():
    tree = pt.open(nn.Sequential(nn.LazyLinear(8), nn.LazyLinear(1)))
    total = tree.totals["parameter"]
    assert (total.names, total.unknown, total.size) == (4, 2, 9)
