"""Who is tied with whom, and how much there is: unique, and with ties expanded."""

from __future__ import annotations

from paratree.core.names import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from paratree.core.param import Param


class Total:
    """How much there is of one kind.

    Attributes:
        names: how many names.
        count: how many parameters, a tied group counted once.
        size: number of values, a tied group counted once.
        nbytes: bytes, a tied group counted once.
        expanded_size: number of values, a tied group counted under each name.
        expanded_nbytes: bytes, a tied group counted under each name.
        unknown: names whose size is not known yet and is not in these sums.
    """

    __slots__ = ("count", "expanded_nbytes", "expanded_size", "names", "nbytes", "size", "unknown")

    def __init__(self) -> None:
        self.names = self.count = self.size = self.nbytes = 0
        self.expanded_size = self.expanded_nbytes = self.unknown = 0


def identity(param: Param) -> Hashable | None:
    """Return what two names must have in common to be one parameter; ``None`` if it can have no twin.

    An empty array is never tied: it has no memory that could change.
    """
    array = param.array
    storage = array.storage
    if storage is None or 0 in array.shape:
        return None
    return storage.key, storage.offset, storage.strides, array.shape, array.dtype


def tied_groups(params: Mapping[str, Param]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of two or more names that share one identity, in order of first appearance."""
    first_of: dict[Hashable, str] = {}
    groups: dict[str, list[str]] = {}
    for name, param in params.items():
        if (same := identity(param)) is not None and (first := first_of.setdefault(same, name)) != name:
            groups.setdefault(first, [first]).append(name)
    return tuple(tuple(groups[first]) for first in first_of.values() if first in groups) if groups else ()


def totals_by_kind(params: Mapping[str, Param], groups: Iterable[tuple[str, ...]]) -> dict[str, Total]:
    """Return a total for every kind; a tied group counts once, under the kind of its first name."""
    totals = {kind: Total() for kind in KINDS}
    for alike in _alike(params.values()):
        param, number = alike[0], len(alike)
        size, total = param.size, totals[param.kind]
        total.names += number
        total.unknown += number if size is None else 0
        total.expanded_size += number * (size or 0)
        total.expanded_nbytes += number * (param.nbytes or 0)
    for total in totals.values():
        total.count, total.size, total.nbytes = total.names, total.expanded_size, total.expanded_nbytes
    for param in (params[name] for group in groups for name in group[1:]):
        total = totals[param.kind]
        total.count -= 1
        total.size -= param.size or 0
        total.nbytes -= param.nbytes or 0
    return totals


def _alike(params: Iterable[Param]) -> Iterable[list[Param]]:
    """Return the parameters in lists of equal kind, shape and dtype: sums are taken once for each list."""
    found: dict[tuple[object, ...], list[Param]] = {}
    for param in params:
        array = param.array
        found.setdefault((param.kind, array.shape, array.dtype), []).append(param)
    return found.values()
