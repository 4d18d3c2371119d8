"""One tensor's values, or a slice of them, in another dtype if asked for."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paratree.core.dtypes import BITS
from paratree.core.errors import MismatchError, NoSuchParamError, UnreadableError, printable
from paratree.core.param import Param
from paratree.verbs._source_files import NO_FILES, SourceFiles, files_of
from paratree.verbs.listing import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import numpy as np

    from paratree.core.array import Index
    from paratree.core.tree import ParamTree


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """What :func:`get` read.

    Attributes:
        source: path, or the class of the live object.
        param: the parameter.
        values: its values, or the part asked for.
        dtype: name of the dtype of ``values``.
        changed: how many values the cast to another dtype changed.
        files: those of the source, none of which the values may take the place of.
    """

    source: str
    param: Param
    values: np.ndarray[Any, Any]
    dtype: str
    changed: int = 0
    files: SourceFiles = NO_FILES


def get(tree: ParamTree, name: str, index: Index = ..., *, dtype: str | None = None) -> Values:
    """Read a parameter, or the part of it at a basic NumPy index; little more than that is read.

    Args:
        tree: a tree of a live model or a file.
        name: name of the parameter.
        index: integers, slices and an Ellipsis, as NumPy takes them.
        dtype: name of the dtype to cast to, as ``"float32"``; the parameter's own by default.

    Returns:
        The values, and how many of them a cast has changed.

    Raises:
        NoSuchParamError: there is no parameter of that name.
        UnreadableError: NumPy cannot hold the values, there are none yet, or there is no such dtype.
        IndexError: the index does not fit the shape.

    Example:
        >>> get(tree, "encoder.0.weight", (slice(0, 3), 1), dtype="float32").values  # doctest: +SKIP
        array([0.1, 0.2, 0.3], dtype=float32)
    """
    import numpy as np

    param = param_of(tree, name)
    if dtype is not None and dtype not in BITS:
        raise UnreadableError(
            f"{printable(name)}: '{printable(dtype)}' is no dtype; there are: {', '.join(BITS)}"
        )
    with placed(tree, param):
        values = np.asarray(param[index])
    if dtype is None or dtype == param.dtype:
        return Values(tree.source, param, values, param.dtype, files=files_of(tree))
    cast, changed = _cast(values, dtype)
    return Values(tree.source, param, cast, dtype, changed, files_of(tree))


def param_of(tree: ParamTree, name: str) -> Param:
    """Return the parameter that is listed as ``name``: with its control characters escaped.

    Raises:
        NoSuchParamError: there is none; a subtree is no parameter.
    """
    if name not in tree:
        name = next((other for other in tree if other != printable(other) == name), name)
    param = tree[name]
    if not isinstance(param, Param):
        raise NoSuchParamError(name, tree, tree.source)
    return param


@contextmanager
def placed(tree: ParamTree, param: Param) -> Iterator[None]:
    """Let errors say first in which source, and about which parameter."""
    try:
        yield
    except (UnreadableError, MismatchError, IndexError) as error:
        place = f"{printable(tree.source)}: {printable(param.name)}"
        raise type(error)(f"{place}: {reason_of(str(error))}") from None


def _cast(values: np.ndarray[Any, Any], dtype: str) -> tuple[np.ndarray[Any, Any], int]:
    """Return the values in another dtype, and how many do not come back from it the same."""
    import warnings

    import numpy as np

    from paratree.core.cast import rounded

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a lost imaginary part is counted, too
        cast = rounded(values, dtype)
        back = cast.astype(values.dtype)
        same = (back == values) | ((back != back) & (values != values))
    return cast, int(values.size - np.count_nonzero(same))


def parse_index(text: str) -> tuple[Any, ...]:
    """Return the NumPy index that a text like ``0:3,1`` or ``..., -1`` says.

    Raises:
        ValueError: it says none.

    >>> parse_index("0:3,1"), parse_index("::2, ..., -1")
    ((slice(0, 3, None), 1), (slice(None, None, 2), Ellipsis, -1))
    """
    return tuple(_part(part.strip()) for part in text.strip().removeprefix("[").removesuffix("]").split(","))


def _part(text: str) -> Any:
    if text == "...":
        return ...
    try:
        numbers = [int(number) if number.strip() else None for number in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] is not None:
        return numbers[0]
    if not 2 <= len(numbers) <= 3 or numbers[2:] == [0]:
        raise ValueError(f"'{text}' is no index; give numbers, slices and '...', as in 0:3,1")
    return slice(*numbers)


def write_npy(found: Values, path: str, *, force: bool = False) -> None:
    """Write values to a .npy file; the path holds the old file or the new one, never a part.

    Args:
        found: what :func:`get` read.
        path: the file to write.
        force: whether a file that is there may be replaced.

    Raises:
        UnreadableError: NumPy's format has no word for the dtype.
        FileExistsError: there is a file and ``force`` is false.
        MismatchError: the file is one of the source itself.
    """
    from numpy.lib import format as npy

    from paratree.files.atomic import replacing

    if found.values.dtype.kind not in "biufc":
        raise UnreadableError(
            f"{printable(found.param.name)}: a .npy file cannot say {found.dtype}; cast it: --dtype float32"
        )
    found.files.check_is_none(path)
    with replacing(path, force=force) as file:
        npy.write_array(file, found.values, allow_pickle=False)
