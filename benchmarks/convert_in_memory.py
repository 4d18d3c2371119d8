"""The part of ``benchmarks.convert`` in one process: all is imported; and arrays that lie transposed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file

import paratree as pt
from benchmarks.listing import FOLDER, made
from benchmarks.timing import Row, shown
from paratree.core.array import row_major

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LENGTH = 4096


def copies(dtype: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return what copies the transpose of a matrix: our way, and NumPy's."""
    values: np.ndarray[Any, Any] = np.random.default_rng(0).random((_LENGTH, _LENGTH)).astype(dtype)
    return (lambda: row_major(values.T)), (lambda: np.ascontiguousarray(values.T))


def conversions() -> tuple[Callable[[], object], Callable[[], object], Callable[[], object]]:
    """Return what converts 2.2 GB, ours without fsync and torch's, and what removes the result."""
    source, target = made("llama.pt", FOLDER), str(FOLDER / "converted.safetensors")

    def ours() -> None:
        with patch("os.fsync"):
            pt.save(source, target)

    def clear() -> None:
        Path(target).unlink(missing_ok=True)
        os.sync()

    return ours, lambda: save_file(torch.load(source, mmap=True, weights_only=True), target), clear


def rows() -> list[Row]:
    """List the jobs."""
    ours, by_torch, clear = conversions()
    what = f"the transpose of {_LENGTH} × {_LENGTH}"
    imported = ".pt to .safetensors of 2.2 GB, both imported, against torch.load(mmap) and save_file"
    return [
        Row(imported, ours, by_torch, 1.5, True, clear),
        Row(f"copying {what} float32, against NumPy's copy of .T", *copies("float32"), 2, faster=True),
        Row("the same, of 16 bits", *copies("uint16"), 2, faster=True),
    ]


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    kept = shown(rows(), int(sys.argv[1]))
    conversions()[2]()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
