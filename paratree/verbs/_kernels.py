"""Which hot loops to use: those written with NumPy, or those that numba compiles. Both give the same figures.

numba is the extra ``paratree[fast]``. It takes half a second to import, so it is used where the work repays
that, or where the process has imported it already.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

_REPAYS = 1 << 30  # bytes of work
_LOADING = Lock()


def loops(job: str, nbytes: int) -> ModuleType:
    """Return the module with the loops of a job, ``"scan"`` or ``"compare"``, for so many bytes of work."""
    compiled = "numba" in sys.modules or (nbytes >= _REPAYS and _has_numba())
    if compiled:
        _load_numba()
    return import_module(f"paratree.verbs._{job}_{'numba' if compiled else 'numpy'}")


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None


def _load_numba() -> None:
    """Import numba, without SciPy for now.

    When it first runs something, numba imports ``scipy.linalg`` only to see that it is there, which takes a
    quarter of a second. Our loops have no linear algebra; those of others import it when they first use it.
    """
    with _LOADING:
        if "numba.np.arraymath" in sys.modules or find_spec("scipy") is None:
            return
        linalg: Any = import_module("numba.np.linalg")
        look = getattr(linalg, "ensure_blas", None)
        if look is None:  # it is no public name: another numba may do without
            return
        linalg.ensure_blas = lambda: None
        try:
            import_module("numba.np.arraymath")
        finally:
            linalg.ensure_blas = look
