"""The part of ``benchmarks.scan`` that holds values in memory: speed on one thread, and accuracy."""

from __future__ import annotations

import sys
from math import fsum, sqrt
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch

import paratree as pt
from benchmarks.timing import TORCH_USER, Row, line, shown
from benchmarks.weights_files import chosen
from paratree.verbs import _scan_numba, _scan_numpy

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    State = dict[str, torch.Tensor]

ACCURATE = 1 << 20  # values whose figures are also made with math.fsum


def state(size: float, dtype: torch.dtype) -> State:
    """Return weights of some megabytes, normal, without NaN."""
    torch.manual_seed(0)
    shapes = chosen(int(size * 1e6), dtype.itemsize)
    return {name: (torch.randn(shape) * 0.02).to(dtype) for name, shape in shapes.items()}


def summed(tensors: State) -> Callable[[], object]:
    """Return what sums the bytes, eight at a time: no one reads them faster on one thread."""
    words = [tensor.view(torch.uint8).numpy().reshape(-1).view(np.uint64) for tensor in tensors.values()]
    return lambda: [part.sum() for part in words]


def described(tensors: State, work: ModuleType, *, histogram: bool = True) -> Callable[[], object]:
    """Return our statistics on one thread, with the given loops."""

    def run() -> object:
        with patch("paratree.verbs.stats.loops", lambda job, nbytes: work):
            return pt.stats(tensors, threads=1, histogram=histogram)

    return run


def by_torch(tensors: State) -> Callable[[], object]:
    """Return the script of users, tensor by tensor."""
    script: dict[str, Any] = {}
    exec(TORCH_USER, script)
    return lambda: [script["described"](tensor) for tensor in tensors.values()]


def rows(size: float) -> list[Row]:
    """List the jobs."""
    half, wide = state(size, torch.bfloat16), state(size, torch.float32)
    compiled, plain = described(half, _scan_numba), described(half, _scan_numpy)
    torch_half, sum_wide = by_torch(half), summed(wide)
    everything = described(wide, _scan_numba)
    moments = described(wide, _scan_numba, histogram=False)
    return [
        Row("bfloat16, 1 thread, everything, against summing the bytes", compiled, summed(half), 6.5),
        Row("the same, against the torch script", compiled, torch_half, 40, faster=True),
        Row("the same without numba, against the torch script", plain, torch_half, 10, faster=True),
        Row("float32, 1 thread, with histogram, against summing the bytes", everything, sum_wide, 3.6),
        Row("float32, 1 thread, without, against summing the bytes", moments, sum_wide, 1.3),
    ]


def worst(dtype: torch.dtype, work: ModuleType) -> float:
    """Return how far mean, L1, L2 and deviation are from those of math.fsum, at most and relatively."""
    torch.manual_seed(1)
    tensor = (torch.randn(ACCURATE) * 0.02 + 0.001).to(dtype)
    values = tensor.double().tolist()
    mean = fsum(values) / len(values)
    right = {
        "mean": mean,
        "l1": fsum(map(abs, values)),
        "l2": sqrt(fsum(value * value for value in values)),
        "std": sqrt(fsum((value - mean) ** 2 for value in values) / len(values)),
    }
    with patch("paratree.verbs.stats.loops", lambda job, nbytes: work):
        row = pt.stats({"weight": tensor}, threads=1)["weight"]
    return max(abs(float(getattr(row, name)) / value - 1) for name, value in right.items())


def accuracy() -> bool:
    """Print the rows of accuracy."""
    kept = True
    for dtype, bar in ((torch.bfloat16, 1e-12), (torch.float16, 1e-12), (torch.float32, 1e-10)):
        for work in (_scan_numba, _scan_numpy):
            error = worst(dtype, work)
            loops = "numba" if work is _scan_numba else "NumPy"
            title = f"{str(dtype)[6:]}, {loops}: mean, L1, L2, std against math.fsum, relative error"
            print(line(title, "| ", f"{error:.1e}", f"≤ {bar:g}", passed=error <= bar), flush=True)
            kept &= error <= bar
    return kept


if __name__ == "__main__":
    torch.set_num_threads(1)
    fast = shown(rows(float(sys.argv[1])), int(sys.argv[2]))
    sys.exit(0 if accuracy() and fast else 1)
