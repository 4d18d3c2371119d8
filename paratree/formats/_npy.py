"""One ``.npy`` record: a header that says dtype and shape, then the values.

Layout: ``numpy.lib.format``, versions 1 to 3. The header is a Python literal; it is matched, not evaluated.
"""

from __future__ import annotations

import re
from math import prod

from paratree.core.array import RefusedArray
from paratree.core.dtypes import from_numpy_code
from paratree.core.errors import CorruptFileError, printable
from paratree.core.names import OTHER, kind_of
from paratree.files.array import check_shape, file_array
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from paratree.core.array import LazyArray
    from paratree.files.local import LocalFile, Source

MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000  # what numpy.load accepts by default
_LONGEST_NUMBER = 20  # digits
_HEADER = re.compile(
    r"\s*\{\s*'descr'\s*:\s*(?P<descr>'[^']*'|\[.*\]|\(.*\))\s*,"
    r"\s*'fortran_order'\s*:\s*(?P<fortran>True|False)\s*,"
    r"\s*'shape'\s*:\s*\((?P<shape>[0-9L,\s]*)\)\s*,?\s*\}\s*",
    re.DOTALL,
)
_WIDTH = re.compile(r"[<>|=]([A-Za-z])([0-9]{1,9})(?:\[[^\]]*\])?")  # "<U5", "<M8[ns]"
_EXTENDED = {"f16": "float128", "f12": "float96", "c32": "complex256", "c24": "complex192"}  # as NumPy says
_FIELD = re.compile(r"[\[,]\s*\(\s*(?:\([^()]*,\s*)?'([^']*)'")  # of a structured dtype, by its name
_INNER = re.compile(r"\[[^][]*\]")  # the fields of a field
_MOST_FIELDS = 3  # that are named
_REFUSALS = {  # letter of a dtype's code -> why it is not read
    "O": "Python objects; reading them would run their pickles, which paratree never does",
    "V": "a void type, as most of float8 become in NumPy's files; save it in a format that names them",
    "U": "text; paratree reads numbers",
    "S": "text; paratree reads numbers",
    "M": "dates; paratree reads numbers",
    "m": "time spans; paratree reads numbers",
}
_OF_ML_DTYPES = {"<V2": ("bfloat16", False), "<f1": ("float8_e5m2", False)}  # no other type has these codes


def npy_record(
    source: Source, start: int, name: str, *, void: str | None = None
) -> tuple[LazyArray, int | None]:
    """Describe the record at ``start`` and tell where it ends; ``None`` if only a pickle machine could tell.

    Args:
        source: where the bytes are.
        start: byte of the record's magic.
        name: what the messages call it.
        void: dtype that two bytes of no type stand for, if the format says so.

    Raises:
        CorruptFileError: it is no record, or does not fit the source.
    """
    text, values = _header(source, start, name)
    if (found := _HEADER.fullmatch(text)) is None:
        raise CorruptFileError(
            source.path, "the header is not that of an array", offset=start + 10, member=name
        )
    words = [n.strip().rstrip("L") for n in found["shape"].split(",") if n.strip()]
    if any(not word.isdecimal() or len(word) > _LONGEST_NUMBER for word in words):
        raise CorruptFileError(
            source.path, "a length in the shape is no number", offset=start + 10, member=name
        )
    lengths = [int(word) for word in words]
    shape = check_shape(lengths, source, name)
    code = found["descr"].strip("'")
    known = from_numpy_code(code) or _OF_ML_DTYPES.get(code)
    if known is None and void is not None and code == "|V2":
        known = void, False
    if known is None:
        return _refused(source, values, shape, found["descr"], name)
    strides = None
    if found["fortran"] == "True" and len(shape) > 1:
        strides = [1]
        for length in shape[:-1]:
            strides.append(strides[-1] * max(length, 1))
    array = file_array(source, values, shape, known[0], strides=strides, big_endian=known[1], member=name)
    return array, values + array.nbytes


STRUCTURED = "structured"


def structured(fields: Sequence[str]) -> str:
    """Return why an array of records is not read."""
    named = ", ".join(printable(field) for field in fields[:_MOST_FIELDS])
    more = ", …" if len(fields) > _MOST_FIELDS else ""
    return f"records of the fields {named}{more}; save each field as an array of its own"


def extended(code: str) -> tuple[str, str]:
    """Return NumPy's name of a dtype that only some machines have, and why it is not read.

    >>> extended("<f16")[0]
    'float128'
    """
    return _EXTENDED.get(code[1:], code[1:41]), "a dtype that not every machine has; save it as float64"


def kind_of_record(name: str, array: LazyArray) -> str:
    """Return the kind of an array: what is no number is neither parameter nor buffer."""
    return OTHER if array.problem and array.dtype[1:2] != "V" else kind_of(name, array.dtype)


def is_followed(file: LocalFile) -> bool:
    """Tell whether the file begins with a record that another one follows."""
    if not file.head.startswith(MAGIC):
        return False
    try:
        end = npy_record(file, 0, "")[1]
        return end is not None and read(file, end, len(MAGIC)) == MAGIC
    except CorruptFileError:
        return False


def _refused(
    source: Source, values: int, shape: tuple[int, ...], descr: str, name: str
) -> tuple[LazyArray, int | None]:
    code = descr.strip("'")
    letter = code[1:2] or "?"
    word, why = "object" if letter == "O" else code[:40], _REFUSALS.get(letter)
    if descr[0] in "[(":
        word, why = STRUCTURED, structured(_FIELD.findall("[" + _INNER.sub("", descr[1:])))
    elif why is None:
        word, why = extended(code)
    array = RefusedArray(shape, word, f"{name}: {why}")
    width = _WIDTH.fullmatch(code)
    if width is None or letter == "O":
        return array, None
    needed = prod(shape) * int(width[2]) * (4 if letter == "U" else 1)
    if needed > source.size - values:
        raise CorruptFileError(
            source.path,
            f"the values need {needed} bytes and {source.size - values} are left",
            offset=values,
            member=name,
        )
    return array, values + needed


def _header(source: Source, start: int, name: str) -> tuple[str, int]:
    """Return the header's text and where the values begin."""
    head = read(source, start, min(12, max(source.size - start, 0)))
    if not head.startswith(MAGIC) or len(head) < 10:
        raise CorruptFileError(source.path, "this is no NumPy array", offset=start, member=name)
    version = head[6]
    wide = version > 1
    length = int.from_bytes(head[8:12] if wide else head[8:10], "little")
    text_start = start + (12 if wide else 10)
    if not 1 <= version <= 3 or length > _LONGEST_HEADER:
        what = f"version {version}" if not 1 <= version <= 3 else f"a header of {length} bytes"
        raise CorruptFileError(
            source.path, f"{what} is not one that NumPy writes", offset=start + 6, member=name
        )
    text = read(source, text_start, length)
    return text.decode("latin-1" if version < 3 else "utf-8", "replace"), text_start + length
