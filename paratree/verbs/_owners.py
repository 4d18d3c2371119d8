"""Which parameter of a source has the values of another one: a sample of each first, then every value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from paratree import engine
from paratree.core.dtypes import BITS
from paratree.core.errors import MissingPackageError, UnreadableError
from paratree.verbs._compare_numpy import bits_of
from paratree.verbs._pairs import Pair, cast, is_same, native
from paratree.verbs.reading import flat

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Any

    from paratree.core.param import Param
    from paratree.core.tree import ParamTree

    Values = np.ndarray[Any, Any]
    Key = tuple[tuple[int | None, ...], str, bytes]

_BLOCK = 1 << 20  # values
_SAMPLE = 1 << 10


class Owners:
    """Looks up which parameter of a tree has the values of another; of most, a sample is read."""

    def __init__(self, tree: ParamTree, suspects: Sequence[Param]) -> None:
        self._tree = tree
        self._names: dict[Key, list[str]] = {}
        dtypes: dict[tuple[int | None, ...], set[str]] = {}
        for param in suspects:
            dtypes.setdefault(param.shape, set()).add(param.dtype)
        for name, param in tree.items():
            if param.shape not in dtypes or tree.tied_with(name)[0] != name:
                continue
            for dtype in sorted(dtypes[param.shape]):
                if (key := _key(param, dtype)) is not None:
                    self._names.setdefault(key, []).append(name)

    def of(self, held: Param, besides: Collection[str]) -> str | None:
        """Return the name of the parameter whose values these are, if there is one besides those given.

        Values that begin with one and the same number say nothing, and belong to none.
        """
        key = _key(held, held.dtype)
        for name in () if key is None else self._names.get(key, ()):
            if name not in besides and self._is_same(held, self._tree[name]):
                return name
        return None

    def _is_same(self, held: Param, param: Any) -> bool:
        try:
            return is_same(Pair(held, param), held.dtype)
        except (UnreadableError, MissingPackageError):
            return False


def _key(param: Param, dtype: str) -> Key | None:
    """Return what parameters of the same values have in common, cast to a dtype, if it says something."""
    if not param.size or not is_readable(param):
        return None
    try:
        values = next(parts(param, _SAMPLE))
    except (UnreadableError, MissingPackageError):
        return None
    made = cast(values, dtype) if dtype in BITS else values
    if made is None:
        return None
    bits = bits_of(made)
    if (bits == bits[0]).all():
        return None
    return param.shape, dtype, np.ascontiguousarray(bits).tobytes()


def is_readable(param: Param) -> bool:
    """Tell whether the values of a parameter can be had, as far as its source says."""
    return param.array.problem is None


def parts(param: Param, most: int = _BLOCK) -> Iterator[Values]:
    """Yield all values of a parameter of known shape, in one dimension, row-major."""
    shape: Any = param.shape
    for block in engine.blocks_of([shape], most):
        yield native(flat(param[block.index]))
