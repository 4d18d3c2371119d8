"""Names of number types: those of the array API standard, those of ml_dtypes, and ggml's quantised ones."""

from __future__ import annotations

from functools import cache

from paratree.core.errors import MismatchError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import numpy as np

BITS = {  # name -> bits a value
    "bool": 8, "int8": 8, "int16": 16, "int32": 32, "int64": 64,
    "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64,
    "float16": 16, "float32": 32, "float64": 64, "complex64": 64, "complex128": 128,
    "bfloat16": 16, "float8_e4m3fn": 8, "float8_e4m3fnuz": 8, "float8_e5m2": 8, "float8_e5m2fnuz": 8,
    "float8_e4m3": 8, "float8_e3m4": 8, "float8_e4m3b11fnuz": 8, "float8_e8m0fnu": 8,
    "float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2,
}  # fmt: skip

BLOCKS = {  # name of a quantised dtype -> values in a block, and the bytes it takes (gguf 0.19)
    "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22), "q5_1": (32, 24), "q8_0": (32, 34),
    "q8_1": (32, 40),
    "q2_k": (256, 84), "q3_k": (256, 110), "q4_k": (256, 144), "q5_k": (256, 176), "q6_k": (256, 210),
    "q8_k": (256, 292), "q1_0": (128, 18),
    "iq1_s": (256, 50), "iq1_m": (256, 56), "iq2_xxs": (256, 66), "iq2_xs": (256, 74), "iq2_s": (256, 82),
    "iq3_xxs": (256, 98), "iq3_s": (256, 110), "iq4_nl": (32, 18), "iq4_xs": (256, 136),
    "tq1_0": (256, 54), "tq2_0": (256, 66), "mxfp4": (32, 17), "nvfp4": (64, 36),
    "q4_0_4_4": (32, 18), "q4_0_4_8": (32, 18), "q4_0_8_8": (32, 18),
    "iq4_nl_4_4": (32, 18), "iq4_nl_4_8": (32, 18), "iq4_nl_8_8": (32, 18),
}  # fmt: skip

UNREAD = {  # name of a dtype of torch that NumPy cannot hold -> bits a value
    "complex32": 32, "qint8": 8, "quint8": 8, "qint32": 32, "float4_e2m1fn_x2": 8, "bits8": 8, "bits16": 16,
}  # fmt: skip

_SHORT = {
    "half": "float16", "bf16": "bfloat16", "fp8": "float8_e4m3fn", "fp8_e4m3": "float8_e4m3fn",
}  # fmt: skip

_OF_ML_DTYPES = frozenset(name for name, n in BITS.items() if "_" in name or n < 8 or name == "bfloat16")


def is_known(name: str) -> bool:
    """Tell whether values of the dtype called ``name`` can be read."""
    return name in BITS or name in BLOCKS


def has_width(name: str) -> bool:
    """Tell whether :func:`nbytes` knows the dtype called ``name``, though NumPy may not hold it."""
    return is_known(name) or name in UNREAD


def nbytes(size: int, name: str) -> int:
    """Return the bytes that ``size`` values take when packed without gaps."""
    if (bits := BITS.get(name) or UNREAD.get(name)) is not None:
        return -(-size * bits // 8)
    values, width = BLOCKS[name]
    return -(-size // values) * width


def floating_dtype(name: object) -> str:
    """Return the floating dtype that a name means: ``"float16"`` for ``"fp16"``.

    Raises:
        MismatchError: there is none.
    """
    lower = name.lower() if isinstance(name, str) else ""
    long = f"float{lower[2:]}" if lower[:2] == "fp" and lower[2:3].isdecimal() else lower
    known = _SHORT.get(lower, long)
    if known not in BITS or not known.startswith(("float", "bfloat")):
        given = printable(name) if isinstance(name, str) else f"{name!r:.80}"
        raise MismatchError(f"'{given}' is no floating dtype; give a name, as float16 or bfloat16")
    return known


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the numpy dtype called ``name`` in native byte order, e.g. ``"bfloat16"``."""
    import numpy as np

    if name in _OF_ML_DTYPES:
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extended
    return np.dtype(name)


@cache
def name_of(dtype: np.dtype[Any]) -> str:
    """Return the name of a numpy dtype, which NumPy makes anew each time it is asked."""
    return dtype.name


def finfo(name: str) -> Any:
    """Return the limits of the floating dtype called ``name``, as ``numpy.finfo`` does."""
    import numpy as np

    if name not in _OF_ML_DTYPES:
        return np.finfo(name)
    from ml_dtypes import finfo as extended

    return extended(numpy_dtype(name))  # type: ignore[no-untyped-call]


_OF_NUMPY_CODE = {  # those that every NumPy has
    "b1": "bool", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64",
    "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
    "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128",
}  # fmt: skip


STANDARD = tuple(_OF_NUMPY_CODE.values())


def numpy_code(name: str) -> str:
    """Return NumPy's code for a dtype, little-endian; those of ml_dtypes have the codes that NumPy writes.

    >>> numpy_code("float32"), numpy_code("bool"), numpy_code("bfloat16")
    ('<f4', '|b1', '<V2')
    """
    return numpy_dtype(name).newbyteorder("<").str


def from_numpy_code(code: str) -> tuple[str, bool] | None:
    """Return the name of a dtype and whether it is big-endian, from NumPy's code for it.

    >>> from_numpy_code(">f4"), from_numpy_code("|O")
    (('float32', True), None)
    """
    name = _OF_NUMPY_CODE.get(code[1:])
    return None if name is None or code[:1] not in "<>|=" else (name, code[0] == ">")
