"""The part of ``benchmarks.convert`` that holds values in memory: arrays that lie transposed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

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


def rows() -> list[Row]:
    """List the jobs."""
    what = f"the transpose of {_LENGTH} × {_LENGTH}"
    return [
        Row(f"copying {what} float32, against NumPy's copy of .T", *copies("float32"), 2, faster=True),
        Row("the same, of 16 bits", *copies("uint16"), 2, faster=True),
    ]


if __name__ == "__main__":
    sys.exit(0 if shown(rows(), int(sys.argv[1])) else 1)
