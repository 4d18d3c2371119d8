"""The part of ``benchmarks.compare`` that holds values in memory: speed on one thread."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numba  # once it is imported, it is what diff uses
import torch

import paratree as pt
from benchmarks.scan_in_memory import state, summed
from benchmarks.timing import TORCH_PAIR, Row, shown
from benchmarks.weights_files import EVERY

if TYPE_CHECKING:
    from benchmarks.scan_in_memory import State


def rows(size: float) -> list[Row]:
    """List the jobs."""
    return [row for dtype in (torch.bfloat16, torch.float32) for row in _of(dtype, state(size, dtype))]


def _of(dtype: torch.dtype, a: State) -> list[Row]:
    b = {name: tensor.clone() for name, tensor in a.items()}
    for tensor in b.values():
        tensor.view(-1)[7::EVERY] *= 1.25
    script: dict[str, Any] = {}
    exec(TORCH_PAIR, script)
    reading = summed(a), summed(b)

    def ours() -> object:
        return pt.diff(a, b, threads=1)

    def both() -> object:
        return [read() for read in reading]

    def user() -> object:
        return [script["compared"](a[name], b[name]) for name in a]

    return [
        Row(f"{str(dtype)[6:]}, 1 thread, all figures, against reading both streams", ours, both, 2.3),
        Row("the same, against the torch script", ours, user, 20, faster=True),
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"numba {numba.__version__}", file=sys.stderr)
    sys.exit(0 if shown(rows(float(sys.argv[1])), int(sys.argv[2])) else 1)
