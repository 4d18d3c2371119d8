"""MXNet 1.9.1 on NumPy 2: ``from tests.mxnet_numpy import mxnet`` imports it, or raises ImportError.

While it is imported, MXNet asks NumPy for names that NumPy has given up. For that time alone NumPy answers:
with the values it had, or, for a function, with a stub that raises when it is called (fallbacks of operators
that no parameter needs). Afterwards NumPy is as before; a NumPy that still has the names is not asked for
them here.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from runpy import run_path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_GIVEN_UP = {
    "PZERO": 0.0, "NZERO": -0.0, "NINF": -np.inf, "PINF": np.inf, "NAN": np.nan, "NaN": np.nan, "Inf": np.inf,
    "bool": bool,
}  # fmt: skip


@contextmanager
def numpy_of_old() -> Iterator[None]:
    """Let NumPy answer for the names that it has given up, inside this block only."""
    original = np.__dict__.get("__getattr__")
    np.__getattr__ = _answering(original)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if original is None:
            del np.__getattr__  # type: ignore[attr-defined]
        else:
            np.__getattr__ = original  # type: ignore[attr-defined]


def _answering(original: Callable[[str], Any] | None) -> Callable[[str], Any]:
    def answer(name: str) -> Any:
        try:  # first: NumPy's own submodules come this way, too
            if original is not None:
                return original(name)
        except AttributeError:
            pass
        if name.startswith("__"):
            raise AttributeError(name)
        return _GIVEN_UP[name] if name in _GIVEN_UP else _stub(name)

    return answer


def _stub(name: str) -> Callable[..., Any]:
    def absent(*_: object, **__: object) -> Any:
        raise AttributeError(f"numpy {np.__version__} has no '{name}' any more")

    return absent


if "mxnet" not in sys.modules:
    with numpy_of_old():
        import_module("mxnet")
mxnet = sys.modules["mxnet"]

if __name__ == "__main__":
    run_path(sys.argv[1], run_name="__main__")
