"""The conformance suite with models on a GPU: ``python -m tests.gpu``; not a part of the tests.

CI has no GPU. This runs the same cases as tests/frameworks/test_conformance.py with PyTorch and JAX on their
first device, and besides: opening a model waits for no device, changes stay on the device.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module

import numpy as np

import paratree as pt
from paratree.testing import CHECKS


def run_cases(name: str) -> int:
    """Run every check on every case of a framework; return how many failed."""
    failed = 0
    cases = import_module(f"tests.frameworks.cases.{name}").CASES
    for case in cases:
        for check in CHECKS:
            try:
                check(case)
            except AssertionError as error:
                failed += 1
                print(f"FAILED {name}: {case.name}: {check.__name__}: {error}")
    print(f"{name}: {len(cases)} cases of {len(CHECKS)} checks, {failed} failed")
    return failed


def torch_on_gpu() -> int:
    """Run PyTorch's cases with every tensor made on the GPU."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("tests.gpu: PyTorch sees no GPU here")
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name()}")
    torch.set_default_device("cuda")
    failed = run_cases("torch")

    net = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(200)])  # 0.8 GB
    torch.cuda.set_sync_debug_mode("error")
    tree = pt.open(net)
    text = repr(tree)
    torch.cuda.set_sync_debug_mode("default")
    print(f"opened without a synchronisation: {text}")
    assert tree["7.weight"].storage.key != tree["8.weight"].storage.key
    part = tree["7.weight"][3:5, ::256]
    np.testing.assert_array_equal(part, net[7].weight.detach()[3:5, ::256].cpu().numpy())
    pt.update(net, {"7.weight": 3, "8.weight": lambda w: w * 2})
    assert bool((net[7].weight == 3).all())
    assert net[7].weight.is_cuda
    pt.tie(net, "1.weight", "2.weight")
    found = pt.gradients(net, lambda net, x: net(x).mean(), torch.rand(2, 1024), per_use=True)
    assert [use.by for use in found.uses["2.weight"]] == ["linear", "linear"]
    times = []
    for call in (lambda: pt.open(net), lambda: list(net.named_parameters())) * 5:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    print(
        f"open {np.median(times[::2]) * 1e3:.2f} ms, named_parameters {np.median(times[1::2]) * 1e3:.2f} ms"
    )
    return failed


def jax_on_gpu() -> int:
    """Run the cases of JAX and Flax on JAX's default device."""
    import jax

    if jax.default_backend() != "gpu":
        raise SystemExit(f"tests.gpu: JAX runs on {jax.default_backend()} here")
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
    failed = run_cases("flax") + run_cases("jax")
    params = {"params": {"dense": {"kernel": jax.numpy.ones((1024, 1024)), "bias": jax.numpy.zeros(1024)}}}
    with jax.transfer_guard("disallow"):
        tree = pt.open(params)
        text = repr(tree)
    print(f"opened without a transfer: {text}")
    assert float(tree["dense.kernel"].value.sum()) == 1024 * 1024
    new = pt.update(params, {"dense.kernel": 2})
    assert new["params"]["dense"]["kernel"].devices() == params["params"]["dense"]["kernel"].devices()
    return failed


if __name__ == "__main__":
    sys.exit(bool(torch_on_gpu() + jax_on_gpu()))
