"""NumPy arrays, scalars and dtypes as pickles hold them: read from their description, never built.

Source: ``ndarray.__reduce_ex__`` and ``dtype.__reduce__`` of NumPy 2.4, and the names they had in NumPy 1;
``jax.Array.__reduce__`` of JAX 0.10, which wraps a NumPy array; ``joblib.numpy_pickle`` of joblib 1.5, which
writes the values of an array between the opcodes of the pickle, after its description.
"""

from __future__ import annotations

import struct
from math import prod

from paratree.core.array import RefusedArray
from paratree.core.dtypes import BITS, from_numpy_code, numpy_dtype
from paratree.core.errors import CorruptFileError
from paratree.files.array import check_shape, file_array
from paratree.files.composed import DecodedArray
from paratree.files.local import Memory, Window, read
from paratree.files.pickle import load
from paratree.files.pickled import Global, Opaque
from paratree.formats._npy import STRUCTURED, extended, structured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.local import Source

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_ARRAYS = frozenset({
    *((module, "_reconstruct") for module in _MULTIARRAY),
    *((module, "_frombuffer") for module in _NUMERIC),
    ("jax._src.array", "_reconstruct_array"), ("jax._src.device_array", "reconstruct_device_array"),
    ("joblib.numpy_pickle", "NumpyArrayWrapper"),
    ("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper"),
})  # fmt: skip
_MASKED = frozenset({("numpy.ma.core", "_mareconstruct"), ("numpy.ma", "_mareconstruct")})
_DTYPE = Global("numpy", "dtype")
_WRAPPER = "NumpyArrayWrapper"
_LONGEST_WIDTH = 9  # digits of the bytes a value
_REFUSALS = {  # letter of a dtype's code -> word for the dtype, and why it is not read
    "O": ("object", "Python objects; reading them would run their pickles, which paratree never does"),
    "U": ("text", "text; paratree reads numbers"),
    "S": ("text", "text; paratree reads numbers"),
    "a": ("text", "text; paratree reads numbers"),
    "T": ("text", "text; paratree reads numbers"),
    "M": ("datetime64", "dates; paratree reads numbers"),
    "m": ("timedelta64", "time spans; paratree reads numbers"),
    "V": ("void", "bytes of no type; save them as the dtype that they are"),
}
_SCALARS = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?",
}  # fmt: skip


def is_numpy_array(value: object) -> bool:
    """Tell whether an opaque object is a NumPy array, or a JAX array, which wraps one."""
    return isinstance(value, Opaque) and (value.target.module, value.target.name) in _ARRAYS


def numpy_array(value: Opaque, source: Source, member: str) -> LazyArray:
    """Describe the array that :func:`is_numpy_array` recognised; one object met twice is tied with itself.

    Args:
        value: the object.
        source: where its pickle lies, for messages.
        member: what the messages call the array.

    Raises:
        CorruptFileError: the bytes are not as many as shape and dtype need.
    """
    shape, dtype, fortran, raw = _parts(value)
    if not isinstance(shape, tuple) or not isinstance(dtype, Opaque):
        return RefusedArray((None,), "unknown", f"{member}: the NumPy array has no state; save it again")
    known = _known(dtype)
    if known is None or not isinstance(raw, bytes | str | Window):
        word, why = _refusal("O" if isinstance(raw, list) else _code(dtype)[1:2], dtype)
        return RefusedArray(check_shape(shape, source, member), word, f"{member}: {why}")
    lengths = check_shape(shape, source, member)
    strides = None
    if fortran and len(lengths) > 1:
        strides = [1]
        for length in lengths[:-1]:
            strides.append(strides[-1] * max(length, 1))
    held = _held(raw, value, source)
    name, big_endian = known
    narrow = BITS[name] < 8  # NumPy keeps those in a byte each
    kept = "uint8" if narrow else name
    array = file_array(held, 0, lengths, kept, strides=strides, big_endian=big_endian, member=member)
    if not narrow:
        return array
    return DecodedArray(lengths, name, lambda: array.read().view(numpy_dtype(name)), array.storage)


def _refusal(letter: str, dtype: Opaque) -> tuple[str, str]:
    """Return a word for a dtype that is not read, and why."""
    fields = dtype.state[3] if isinstance(dtype.state, tuple) and len(dtype.state) > 3 else None
    if letter == "V" and isinstance(fields, tuple) and all(isinstance(field, str) for field in fields):
        return STRUCTURED, structured(fields)
    return _REFUSALS.get(letter) or extended(_code(dtype))


def _held(raw: bytes | str | Window, value: Opaque, source: Source) -> Source:
    """Return the bytes of an array, identified by the object that holds them: equal only to itself."""
    held: Memory | Window
    if isinstance(raw, Window):
        held = Window(raw.source, raw.start, raw.size, raw.member)
    else:
        held = Memory(_latin(raw, source) if isinstance(raw, str) else raw, source.path, source.member)
    held.key = value
    return held


def _latin(text: str, source: Source) -> bytes:
    """Return the bytes that Python 2 and protocols below 3 write as text."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise CorruptFileError(
            source.path, "the bytes of an array are text beyond Latin-1", member=source.member
        ) from None


def _parts(value: Opaque) -> tuple[Any, Any, Any, Any]:
    """Return shape, dtype, Fortran order and bytes of an array; the shape is ``None`` if it has none."""
    if value.target.name == "_frombuffer":
        match value.args:
            case (raw, dtype, shape, str() as order):
                return shape, dtype, order == "F", raw
        return None, None, None, None
    state = value.state
    if value.target.name == _WRAPPER:
        state = state if isinstance(state, dict) else {}
        raw = value.entries[0] if value.entries else None
        return state.get("shape"), state.get("dtype"), state.get("order") == "F", raw
    if not value.target.module.startswith("numpy"):  # function, its arguments, the array's state, its type
        state = value.args[2] if len(value.args) > 2 else None
    match state:
        case (int(), shape, dtype, fortran, raw) | (shape, dtype, fortran, raw):
            return shape, dtype, fortran, raw
    return None, None, None, None


def values_between(value: Opaque, source: Source, position: int) -> int | None:
    """Attach the values that joblib writes after an array's description, unread.

    Args:
        value: an object that was given its state.
        source: where its pickle lies.
        position: where the pickle would go on.

    Returns:
        Where the pickle goes on; ``None`` if the object is no such description.
    """
    if value.target.name != _WRAPPER or not is_numpy_array(value):
        return None
    shape, dtype, _, _ = _parts(value)
    if not isinstance(shape, tuple) or not isinstance(dtype, Opaque):
        raise ValueError("an array of joblib has no shape or dtype")
    if _code(dtype)[1:2] == "O":  # its values are a pickle, which is walked for its end
        value.entries.append([])
        return load(source, position, lambda target, args: NotImplemented, _no_persistent)[1]
    if value.state.get("numpy_array_alignment_bytes") is not None:
        position += 1 + read(source, position, 1)[0]
    size = prod(check_shape(shape, source, source.member)) * _itemsize(dtype)
    value.entries.append(Window(source, position, size, source.member))
    return position + size


def _itemsize(dtype: Opaque) -> int:
    known = _known(dtype)
    if known is not None:
        return max(BITS[known[0]] // 8, 1)
    letter, digits = _code(dtype)[1:2], _code(dtype)[2:]
    if not digits.isdecimal() or len(digits) > _LONGEST_WIDTH:
        raise ValueError("an array of joblib has a dtype of unknown width")
    return int(digits) * (4 if letter == "U" else 1)


def _no_persistent(pid: Any) -> Any:
    raise ValueError("a persistent id where none belongs")


def plain_value(value: Opaque) -> Any:
    """Return what a NumPy scalar, dtype or masked array comes down to, or the opaque object itself."""
    target = value.target
    if (target.module, target.name) in _MASKED:
        return _masked(value)
    if target.module == "numpy" and target.name == "dtype" and value.args:
        return f"dtype({value.args[0]})"
    if target.module in _MULTIARRAY and target.name == "scalar":
        match value.args:
            case (Opaque() as dtype, bytes() | str() as raw):
                data = raw if isinstance(raw, bytes) else raw.encode("latin-1", "replace")
                return _scalar(_code(dtype), data, value)
    return value


def _masked(value: Opaque) -> Any:
    """Return data and mask of a masked array as arrays; made once, so that each is tied with itself."""
    match value.state:
        case (version, shape, Opaque() as dtype, fortran, raw, mask, *fill) if len(fill) < 2:
            of_mask = dtype if _code(dtype)[1:2] == "V" else Opaque(_DTYPE, ("b1",))  # a flag for each field
            value.state = {
                "data": _array((version, shape, dtype, fortran, raw)),
                "mask": _array((version, shape, of_mask, fortran, mask)),
            }
            if fill and fill[0] is not None:
                value.state["fill_value"] = fill[0]
    return value.state if isinstance(value.state, dict) else value


def _array(state: tuple[Any, ...]) -> Opaque:
    made = Opaque(Global(_MULTIARRAY[1], "_reconstruct"))
    made.state = state
    return made


def _scalar(code: str, raw: bytes, otherwise: Opaque) -> Any:
    form = _SCALARS.get(code[1:])
    if form is None or struct.calcsize("<" + form) != len(raw):
        return otherwise
    return struct.unpack((">" if code[0] == ">" else "<") + form, raw)[0]


def _known(dtype: Opaque) -> tuple[str, bool] | None:
    """Return a dtype's name and whether it is big-endian; those of ml_dtypes are named by their class."""
    kind = dtype.args[0] if dtype.args else None
    if isinstance(kind, Global):
        return (kind.name, _order(dtype) == ">") if kind.name in BITS and kind.module == "ml_dtypes" else None
    return from_numpy_code(_code(dtype))


def _code(dtype: Opaque) -> str:
    """Return a dtype's code with its byte order, as ``"<f4"``."""
    kind = dtype.args[0] if dtype.args else None
    word = kind if isinstance(kind, str) else kind.name if isinstance(kind, Global) else "?"
    return word if word[:1] in ("<", ">", "|", "=") else f"{_order(dtype)}{word}"


def _order(dtype: Opaque) -> str:
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    return order if order in ("<", ">", "|") else "<"
