"""One parameter tree over every framework's model and every checkpoint file."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.core.array import LazyArray, Storage
    from paratree.core.errors import (
        CorruptFileError,
        MismatchError,
        MissingPackageError,
        NoSuchParamError,
        ParatreeError,
        SourceNotFoundError,
        UnknownSourceError,
        UnreadableError,
        UnsafeFileError,
        UnsupportedError,
    )
    from paratree.core.param import Param
    from paratree.core.results import Labels, Partition, Tied, Use
    from paratree.core.tree import ParamTree
    from paratree.registry import open
    from paratree.verbs._differences import Diff, Difference
    from paratree.verbs.check import Check, check
    from paratree.verbs.diff import diff
    from paratree.verbs.fingerprint import Fingerprint, fingerprint
    from paratree.verbs.gradients import Gradients, gradients
    from paratree.verbs.load import Loaded, LoadError, load
    from paratree.verbs.manifest import Manifest, manifest
    from paratree.verbs.save import Saved, save
    from paratree.verbs.spectrum import Spectrum, spectrum
    from paratree.verbs.stats import ParamStats, Stats, stats
    from paratree.verbs.training import freeze, groups, unfreeze
    from paratree.verbs.tying import tie, untie
    from paratree.verbs.update import update
    from paratree.verbs.verify import Verification, verify

__version__ = "0.1.0"

__all__ = [
    "Check",
    "CorruptFileError",
    "Diff",
    "Difference",
    "Fingerprint",
    "Gradients",
    "Labels",
    "LazyArray",
    "LoadError",
    "Loaded",
    "Manifest",
    "MismatchError",
    "MissingPackageError",
    "NoSuchParamError",
    "Param",
    "ParamStats",
    "ParamTree",
    "ParatreeError",
    "Partition",
    "Saved",
    "SourceNotFoundError",
    "Spectrum",
    "Stats",
    "Storage",
    "Tied",
    "UnknownSourceError",
    "UnreadableError",
    "UnsafeFileError",
    "UnsupportedError",
    "Use",
    "Verification",
    "check",
    "diff",
    "fingerprint",
    "freeze",
    "gradients",
    "groups",
    "load",
    "manifest",
    "open",
    "save",
    "spectrum",
    "stats",
    "tie",
    "unfreeze",
    "untie",
    "update",
    "verify",
]

_HOME = {
    "Check": "verbs.check",
    "check": "verbs.check",
    "Diff": "verbs._differences",
    "Difference": "verbs._differences",
    "diff": "verbs.diff",
    "open": "registry",
    "Param": "core.param",
    "ParamTree": "core.tree",
    "LazyArray": "core.array",
    "Storage": "core.array",
    "Labels": "core.results",
    "Partition": "core.results",
    "Tied": "core.results",
    "Use": "core.results",
    "Fingerprint": "verbs.fingerprint",
    "fingerprint": "verbs.fingerprint",
    "Gradients": "verbs.gradients",
    "gradients": "verbs.gradients",
    "LoadError": "verbs.load",
    "Loaded": "verbs.load",
    "load": "verbs.load",
    "Manifest": "verbs.manifest",
    "manifest": "verbs.manifest",
    "Saved": "verbs.save",
    "save": "verbs.save",
    "Spectrum": "verbs.spectrum",
    "spectrum": "verbs.spectrum",
    "ParamStats": "verbs.stats",
    "Stats": "verbs.stats",
    "stats": "verbs.stats",
    "freeze": "verbs.training",
    "groups": "verbs.training",
    "unfreeze": "verbs.training",
    "tie": "verbs.tying",
    "untie": "verbs.tying",
    "update": "verbs.update",
    "Verification": "verbs.verify",
    "verify": "verbs.verify",
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
