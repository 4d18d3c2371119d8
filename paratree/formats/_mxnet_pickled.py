"""MXNet arrays as pickles hold them, above all the states of an optimizer from ``Trainer.save_states``.

Source: ``NDArray.__getstate__`` and ``Updater.get_states`` of MXNet 1.9.1; the bytes of an array are those
of ``NDArray::Save``.
"""

from __future__ import annotations

from paratree.core.array import RefusedArray
from paratree.core.errors import CorruptFileError
from paratree.files.cursor import Cursor
from paratree.files.local import Memory, Window
from paratree.files.pickled import Opaque
from paratree.formats._mxnet_arrays import read_array

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.local import Source

_ARRAYS = frozenset({
    ("mxnet.ndarray.ndarray", "NDArray"), ("mxnet.ndarray", "NDArray"), ("mxnet.numpy.multiarray", "ndarray"),
    ("mxnet.ndarray.sparse", "RowSparseNDArray"), ("mxnet.ndarray.sparse", "CSRNDArray"),
})  # fmt: skip
_OPTIMIZERS = "mxnet.optimizer"
_WINDOW = 4096


def is_mxnet_array(value: object) -> bool:
    """Tell whether an opaque object is an array of MXNet."""
    return isinstance(value, Opaque) and (value.target.module, value.target.name) in _ARRAYS


def optimizer_of(root: object) -> dict[str, Any] | None:
    """Return class and plain settings of the optimizer, if a pickle is a pair of its states and itself."""
    match root:
        case (dict(), Opaque(target=target, state=dict() as state)) if target.module.startswith(_OPTIMIZERS):
            plain = {key: value for key, value in state.items() if isinstance(value, str | int | float)}
            return {"optimizer": target.name, **plain}
    return None


def mxnet_array(value: Opaque, source: Source, member: str) -> LazyArray:
    """Describe the array that :func:`is_mxnet_array` recognised; one object met twice is tied with itself.

    Args:
        value: the object.
        source: where its pickle lies, for messages.
        member: what the messages call the array.

    Raises:
        CorruptFileError: the bytes are no array, or more than one.
    """
    raw = value.state.get("handle") if isinstance(value.state, dict) else None
    held: Memory | Window
    if isinstance(raw, Window):
        held = Window(raw.source, raw.start, raw.size, raw.member)
    elif isinstance(raw, bytes):
        held = Memory(raw, source.path, source.member)
    else:
        return RefusedArray((None,), "unknown", f"{member}: the MXNet array has no values")
    held.key = value
    cursor = Cursor(held, window=_WINDOW)
    cursor.member = member
    array = read_array(cursor)
    if cursor.left:
        raise CorruptFileError(
            source.path, f"{cursor.left} bytes follow an array", offset=cursor.place, member=member
        )
    return array
