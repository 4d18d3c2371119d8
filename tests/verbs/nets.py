"""Modules of PyTorch that are loaded, and how a load that is refused is looked at."""

import numpy as np
import pytest

import paratree as pt

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")
nn = torch.nn

RNG = np.random.default_rng(0)


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def net_of(**arrays):
    """Return a module whose parameters and buffers have these values; a dot parts modules."""
    net = nn.Module()
    for name, values in arrays.items():
        *path, key = name.split(".")
        place = net
        for part in path:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place._modules[part]
        tensor = framework_tensor(values)
        if tensor.is_floating_point() or tensor.is_complex():
            place.register_parameter(key, nn.Parameter(tensor))
        else:
            place.register_buffer(key, tensor)
    return net


def framework_tensor(values):
    values = np.asarray(values)
    name = values.dtype.name
    if name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        carrier = np.int16 if name == "bfloat16" else np.uint8
        return torch.from_numpy(values.view(carrier).copy()).view(getattr(torch, name))
    return torch.from_numpy(values.copy())


def small(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2)
        else:
            tensor.fill_(seed + 7)
    return net.eval()


def bits(net):
    """Return the bytes of everything that a module keeps."""
    return {name: param.value.tobytes() for name, param in pt.open(net).items()}


def refused(net, source, **options):
    """Return the error of a load that has changed nothing."""
    before = bits(net)
    with pytest.raises(pt.LoadError) as caught:
        pt.load(net, source, **options)
    assert bits(net) == before
    error = caught.value
    assert isinstance(error, pt.MismatchError)
    assert "\n" not in str(error)
    assert error.report.model is net
    assert not error.report.complete
    assert error.report.verdict.startswith("nothing was changed · ")
    return error


def statuses(report):
    return {row.name: row.status for row in report}


class Failure(Exception):
    """What a device that is lost raises in a test."""
