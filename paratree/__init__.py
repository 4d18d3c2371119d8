"""One parameter tree over every framework's model and every checkpoint file."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.core.array import LazyArray, Storage
    from paratree.core.errors import (
        CorruptFileError,
        MissingPackageError,
        NoSuchParamError,
        ParatreeError,
        SourceNotFoundError,
        UnknownSourceError,
        UnreadableError,
        UnsafeFileError,
    )
    from paratree.core.tree import Param, ParamTree
    from paratree.registry import open

__version__ = "0.1.0"

__all__ = [
    "CorruptFileError",
    "LazyArray",
    "MissingPackageError",
    "NoSuchParamError",
    "Param",
    "ParamTree",
    "ParatreeError",
    "SourceNotFoundError",
    "Storage",
    "UnknownSourceError",
    "UnreadableError",
    "UnsafeFileError",
    "open",
]

_HOME = {
    "open": "registry",
    "Param": "core.tree",
    "ParamTree": "core.tree",
    "LazyArray": "core.array",
    "Storage": "core.array",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562): ``import paratree`` alone loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'paratree' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"paratree.{_HOME.get(name, 'core.errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
