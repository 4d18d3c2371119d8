"""Where two sources differ, told by their content hashes, and whether other bits are other values."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from paratree.core.errors import MissingPackageError, UnreadableError, printable
from paratree.core.names import BUFFER, PARAMETER
from paratree.engine import blocks_of
from paratree.verbs import fingerprint as hashing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from paratree.core.param import Param
    from paratree.verbs.fingerprint import Fingerprint, ParamFingerprint

    Params = Mapping[str, Param]

_COMPARED = 1 << 18  # values at once; most tensors that differ do so in the first
_OF_MODELS = (PARAMETER, BUFFER)
_HINT = (
    "the parameters and buffers are the same; to check them alone: --kind parameter --kind buffer "
    "(in Python: kind=['parameter', 'buffer'])"
)


def differences(
    mine: Params, found: Fingerprint, theirs: Params, other: Fingerprint
) -> Iterator[tuple[str, str]]:
    """Yield the name of each parameter that is not the same in both, and what is so."""
    if found == other:
        return
    there = printable(other.source)
    here, beyond = {**found.params, **found.problems}, {**other.params, **other.problems}
    for name in dict.fromkeys([*here, *beyond]):
        if (problem := found.problems.get(name) or other.problems.get(name)) is not None:
            yield name, f"not read: {problem}"
        elif name not in beyond:
            yield name, f"not in {there}"
        elif name not in here:
            yield name, f"only in {there}"
        elif (one := found.params[name]).hash != (another := other.params[name]).hash:
            if (one.dtype, one.shape) == (another.dtype, another.shape):
                words = f"{_what_differs(mine[name], theirs[name])} than in {there}"
                equal = ", equal values" if words.startswith("other bits") else ""
                yield name, f"{words}{equal}{_range(one, another)}"
            else:
                yield name, f"{one.dtype} {[*one.shape]}, and {another.dtype} {[*another.shape]} in {there}"


def hint_of_differences(names: Iterable[str], mine: Params, theirs: Params) -> str | None:
    """Return what to try where all that differs belongs to no model, as the state of an optimizer."""
    kinds = {(mine.get(name) or theirs[name]).kind for name in names}
    return _HINT if kinds and not kinds.intersection(_OF_MODELS) else None


def hint_of_hash(mine: Params, found: Fingerprint, expected: str) -> str | None:
    """Return what to try where the hash that is expected is that of the parameters and buffers."""
    own = {name: one for name, one in found.params.items() if mine[name].kind in _OF_MODELS}
    return _HINT if own and hashing.hash_of_source(own) == expected else None


def _what_differs(one: Param, other: Param) -> str:
    """Compare the values of two parameters whose bits differ, NaN equal to NaN."""
    shape = cast("tuple[int, ...]", one.shape)
    try:
        for block in blocks_of([shape], _COMPARED):
            a, b = one[block.index], other[block.index]
            with np.errstate(invalid="ignore"):
                if not ((a == b) | ((a != a) & (b != b))).all():
                    return "other values"
    except (UnreadableError, MissingPackageError):  # what is hashed is stored, and its decoder may be missing
        return "other bytes"
    return "other bits"


def _range(one: ParamFingerprint, other: ParamFingerprint) -> str:
    """Return where the first chunk that differs is, if there are several."""
    if len(one.chunks) == 1:
        return ""
    pairs = enumerate(zip(one.chunks, other.chunks, strict=True))
    start = next(i for i, (mine, theirs) in pairs if mine != theirs) * hashing.CHUNK
    stop = min(start + hashing.CHUNK, one.nbytes)
    return f", the first between byte {start} and byte {stop} of its values"
