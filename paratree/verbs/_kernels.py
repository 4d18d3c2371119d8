"""Which hot loops to use: those written with NumPy, or those that numba compiles. Both give the same figures.

numba is the extra ``paratree[fast]``. It takes half a second to import, so it is used where the work repays
that, or where the process has imported it already.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

_REPAYS = 1 << 30  # bytes of work


def loops(job: str, nbytes: int) -> ModuleType:
    """Return the module with the loops of a job, ``"scan"`` or ``"compare"``, for so many bytes of work."""
    compiled = "numba" in sys.modules or (nbytes >= _REPAYS and _has_numba())
    return import_module(f"paratree.verbs._{job}_{'numba' if compiled else 'numpy'}")


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None
