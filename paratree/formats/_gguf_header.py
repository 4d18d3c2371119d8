"""The header of a GGUF file: metadata, and where the tensors are; what is long is walked, not built.

Specification: ``docs/gguf.md`` of ggml, version 3, and 2 (which is 3 without big-endian files).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from paratree.core.errors import CorruptFileError
from paratree.files.array import MOST_AXES
from paratree.files.cursor import Cursor
from paratree.files.local import LocalFile, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAGIC = b"GGUF"
_BOOL, _TEXT, _ARRAY = 7, 8, 9
_LETTERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_WIDTHS = {  # number of a type -> its name, and the bytes that a value takes, or takes at least
    0: ("uint8", 1), 1: ("int8", 1), 2: ("uint16", 2), 3: ("int16", 2), 4: ("uint32", 4), 5: ("int32", 4),
    6: ("float32", 4), 7: ("bool", 1), 8: ("text", 8), 9: ("array", 12), 10: ("uint64", 8), 11: ("int64", 8),
    12: ("float64", 8),
}  # fmt: skip
_LONGEST_NAME = 65_535  # bytes; the specification's limit for keys
_LONGEST_TEXT = 1 << 18  # bytes of a value that is kept whole; chat templates take 20,000
_LONGEST_LIST = 256  # values of an array that is kept as a list; layers have as many entries
_MOST_KEYS = 100_000
_MOST_WALKED = 4_000_000  # texts in arrays; vocabularies have 500,000. An array in an array counts for many
_ARRAY_COUNTS = 40
_MOST_KEPT = 1 << 22  # bytes of what is kept whole, together
_DEEPEST = 4  # arrays in arrays


class Tensor:
    """What the header says about a tensor."""

    __slots__ = ("name", "offset", "place", "shape", "type")

    def __init__(self, name: str, shape: tuple[int, ...], type: int, offset: int, place: int) -> None:
        self.name, self.shape, self.type, self.offset, self.place = name, shape, type, offset, place


class Metadata(dict[str, "Any"]):
    """The metadata of a file, and where each value lies in it, so that it can be written again as it is."""

    __slots__ = ("_big_endian", "_file", "places")

    def __init__(self, file: LocalFile, big_endian: bool) -> None:
        super().__init__()
        self._file, self._big_endian = file, big_endian
        self.places: dict[str, tuple[int, int]] = {}

    def stored(self, key: str) -> bytes | None:
        """Return the number of the type and the value as they stand in the file, if that is little-endian."""
        if self._big_endian:
            return None
        start, end = self.places[key]
        return read(self._file, start, end - start)


class Header:
    """What is in front of the data: byte order, metadata, tensors, and where it ends."""

    __slots__ = ("big_endian", "end", "meta", "tensors")

    def __init__(self, file: LocalFile) -> None:
        self.big_endian = _is_big_endian(file)
        cursor = Cursor(file, 8, big_endian=self.big_endian)
        tensors, keys = cursor.number("Q"), cursor.number("Q")
        cursor.check_count(tensors, 24, "tensors")
        cursor.check_count(keys, 13, "entries of metadata")
        if keys > _MOST_KEYS:
            raise cursor.fault(f"{keys} entries of metadata are too many; paratree reads {_MOST_KEYS}", 16)
        self.meta = Metadata(file, self.big_endian)
        values = _Values(cursor)
        for _ in range(keys):
            place, key = cursor.place, cursor.name(_LONGEST_NAME)
            if not key or key in self.meta:
                raise cursor.fault(f"the key '{key[:200]}' stands twice" if key else "a key is empty", place)
            cursor.member = key
            start = cursor.place
            self.meta[key] = values.value(cursor.number("I"))
            self.meta.places[key] = start, cursor.place
            cursor.member = None
        self.tensors = [_tensor(cursor) for _ in range(tensors)]
        self.end = cursor.place


def _is_big_endian(file: LocalFile) -> bool:
    """Tell the byte order by the version, which is a small number, and refuse versions that differ."""
    if not file.head.startswith(MAGIC):
        raise CorruptFileError(file.path, f"this does not begin with {MAGIC.decode()}", offset=0)
    word = read(file, 4, 4)
    big_endian = word[:2] == b"\0\0"
    version = int.from_bytes(word, "big" if big_endian else "little")
    if version in (2, 3):
        return big_endian
    if version == 1:
        raise CorruptFileError(
            file.path, "GGUF version 1, which was written for some weeks of 2023 only", offset=4,
            advice="convert the original model again",
        )  # fmt: skip
    raise CorruptFileError(
        file.path, f"GGUF version {version} is not one that is known", offset=4,
        advice="a newer paratree may know it, or the file is damaged",
    )  # fmt: skip


def _tensor(cursor: Cursor) -> Tensor:
    """Read what is said about a tensor."""
    place, name = cursor.place, cursor.name(_LONGEST_NAME)
    cursor.member = name
    axes = cursor.number("I")
    if axes > MOST_AXES:
        raise cursor.fault(f"{axes} axes are claimed; NumPy holds at most {MOST_AXES}", cursor.place - 4)
    lengths = cursor.numbers("Q", axes)
    found = Tensor(name, lengths[::-1], cursor.number("I"), cursor.number("Q"), place)
    cursor.member = None
    return found


class _Values:
    """Reads values of metadata; bounds what of them is kept and walked through."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor, self._walked, self._kept = cursor, 0, 0

    def value(self, type: int, depth: int = 0) -> Any:
        """Read a value; a long array is passed over, to be read when it is asked for."""
        cursor, place = self._cursor, self._cursor.place
        if type == _TEXT:
            return self._text()
        if type == _ARRAY:
            return self._array(depth)
        if type not in _LETTERS:
            raise cursor.fault(f"there is no type {type} of metadata", place - 4)
        found = cursor.number(_LETTERS[type])
        if type != _BOOL:
            return found
        if found > 1:
            raise cursor.fault(f"a bool is {found}; it must be 0 or 1", place)
        return found == 1

    def _text(self) -> str:
        cursor, length = self._cursor, self._cursor.number("Q")
        cursor.check_count(length, 1, "bytes of text")
        kept = min(length, _LONGEST_TEXT) if self._kept < _MOST_KEPT else 0
        self._kept += kept
        text = cursor.bytes(kept).decode("utf-8", "backslashreplace")
        cursor.skip(length - kept)
        return text if kept == length else f"{text}… ({length} bytes)"

    def _array(self, depth: int) -> Any:
        type, count = self._head_of_array(depth)
        if count <= _LONGEST_LIST and self._kept < _MOST_KEPT:
            self._kept += 8 * count
            return [self.value(type, depth + 1) for _ in range(count)]
        place = self._cursor.place
        self._pass(type, count, depth)
        return LongArray(self._cursor, place, type, count)

    def _head_of_array(self, depth: int) -> tuple[int, int]:
        cursor, place = self._cursor, self._cursor.place
        type, count = cursor.number("I"), cursor.number("Q")
        if depth >= _DEEPEST:
            raise cursor.fault(f"arrays lie in arrays more than {_DEEPEST} deep", place)
        if type not in _WIDTHS:
            raise cursor.fault(f"there is no type {type} of metadata", place)
        cursor.check_count(count, _WIDTHS[type][1], f"values of {_WIDTHS[type][0]}")
        if type in (_TEXT, _ARRAY):
            self._walked += count * (_ARRAY_COUNTS if type == _ARRAY else 1)
        if self._walked > _MOST_WALKED:
            raise cursor.fault(f"over {_MOST_WALKED} texts are too many; no vocabulary has as many", place)
        return type, count

    def _pass(self, type: int, count: int, depth: int) -> None:
        """Pass over the values of an array."""
        if type == _TEXT:
            self._cursor.skip_texts(count)
        elif type == _ARRAY:
            for _ in range(count):
                self._pass(*self._head_of_array(depth + 1), depth + 1)
        else:
            self._cursor.skip(count * _WIDTHS[type][1])


class LongArray(Sequence["Any"]):
    """A long array of metadata, as a vocabulary: its values are read from the file when asked for."""

    def __init__(self, cursor: Cursor, place: int, type: int, count: int) -> None:
        self._cursor, self._place, self._type, self._count = cursor, place, type, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        values = _Values(self._cursor.at(self._place))
        return (values.value(self._type, 1) for _ in range(self._count))

    def __getitem__(self, index: int | slice) -> Any:
        places = range(self._count)[index]
        if isinstance(places, range):
            found = list(islice(self, max(places, default=-1) + 1))
            return [found[place] for place in places]
        return next(islice(self, places, None))

    def __repr__(self) -> str:
        first = ", ".join(repr(value)[:40] for value in islice(self, 3))
        return f"<{self._count} values of {_WIDTHS[self._type][0]}: {first}, …>"
