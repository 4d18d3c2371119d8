"""The header of a GGUF file: metadata, and where the tensors are; what is long is walked, not built.

Specification: ``docs/gguf.md`` of ggml, version 3, and 2 (which is 3 without big-endian files).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import islice

from paratree.core.errors import CorruptFileError
from paratree.files.array import MOST_AXES
from paratree.files.local import LocalFile, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAGIC = b"GGUF"
_BOOL, _TEXT, _ARRAY = 7, 8, 9
_LETTERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_WORDS = {
    0: "uint8", 1: "int8", 2: "uint16", 3: "int16", 4: "uint32", 5: "int32", 6: "float32", 7: "bool",
    8: "text", 9: "array", 10: "uint64", 11: "int64", 12: "float64",
}  # fmt: skip
_LEAST = {_TEXT: 8, _ARRAY: 12}  # bytes that a value of no fixed width takes at least
_WINDOW = 1 << 18  # bytes read at a time
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


class Header:
    """What is in front of the data: byte order, metadata, tensors, and where it ends."""

    __slots__ = ("big_endian", "end", "meta", "tensors")

    def __init__(self, file: LocalFile) -> None:
        self.big_endian = _is_big_endian(file)
        cursor = Cursor(file, 8, self.big_endian)
        tensors, keys = cursor.number("Q"), cursor.number("Q")
        cursor.check_count(tensors, 24, "tensors")
        cursor.check_count(keys, 13, "entries of metadata")
        if keys > _MOST_KEYS:
            raise cursor.fault(f"{keys} entries of metadata are too many; paratree reads {_MOST_KEYS}", 16)
        self.meta: dict[str, Any] = {}
        for _ in range(keys):
            place, key = cursor.place, cursor.name()
            if not key or key in self.meta:
                raise cursor.fault(f"the key '{key[:200]}' stands twice" if key else "a key is empty", place)
            cursor.member = key
            self.meta[key] = cursor.value(cursor.number("I"))
            cursor.member = None
        self.tensors = [cursor.tensor() for _ in range(tensors)]
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


class Cursor:
    """Reads one value after another; every length is checked against the file first."""

    def __init__(self, file: LocalFile, place: int, big_endian: bool, member: str | None = None) -> None:
        self.file, self.big_endian, self.member = file, big_endian, member
        order = ">" if big_endian else "<"
        self._structs = {letter: struct.Struct(order + letter) for letter in "BbHhIiQqfd"}
        self._buffer, self._start, self._at = b"", place, 0
        self._walked = self._kept = 0

    @property
    def place(self) -> int:
        """Where the next value begins."""
        return self._start + self._at

    def fault(self, reason: str, offset: int) -> CorruptFileError:
        """Return the error for a fault at a byte of the file."""
        return CorruptFileError(self.file.path, reason, offset=offset, member=self.member)

    def check_count(self, count: int, least: int, what: str) -> None:
        """Refuse a count of what takes at least so many bytes each, if the file is too short for it."""
        left = self.file.size - self.place
        if count * least > left:
            raise self.fault(f"{count} {what} are claimed and {left} bytes are left", self.place)

    def _fill(self, length: int) -> None:
        """Have ``length`` bytes in the buffer, and more if they are there."""
        if self._at + length > len(self._buffer):
            place = self.place
            window = max(length, min(_WINDOW, self.file.size - place))
            self._buffer, self._start, self._at = read(self.file, place, window), place, 0

    def _bytes(self, length: int) -> bytes:
        self._fill(length)
        found = self._buffer[self._at : self._at + length]
        self._at += length
        return found

    def number(self, letter: str) -> Any:
        """Read a number of the width that a letter of :mod:`struct` says."""
        form = self._structs[letter]
        self._fill(form.size)
        (found,) = form.unpack_from(self._buffer, self._at)
        self._at += form.size
        return found

    def name(self) -> str:
        """Read a key or the name of a tensor."""
        place, length = self.place, self.number("Q")
        if length > _LONGEST_NAME:
            raise self.fault(f"a name of {length} bytes is claimed; the limit is {_LONGEST_NAME}", place)
        try:
            return self._bytes(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.fault("a name is not UTF-8", place + 8) from None

    def tensor(self) -> Tensor:
        """Read what is said about a tensor."""
        place, name = self.place, self.name()
        self.member = name
        axes = self.number("I")
        if axes > MOST_AXES:
            raise self.fault(f"{axes} axes are claimed; NumPy holds at most {MOST_AXES}", self.place - 4)
        lengths = [self.number("Q") for _ in range(axes)]
        found = Tensor(name, tuple(reversed(lengths)), self.number("I"), self.number("Q"), place)
        self.member = None
        return found

    def value(self, type: int, depth: int = 0) -> Any:
        """Read a value of metadata; a long array is passed over and read when it is asked for."""
        place = self.place
        if type == _TEXT:
            return self._text()
        if type == _ARRAY:
            return self._array(depth)
        if type not in _LETTERS:
            raise self.fault(f"there is no type {type} of metadata", place - 4)
        found = self.number(_LETTERS[type])
        if type != _BOOL:
            return found
        if found > 1:
            raise self.fault(f"a bool is {found}; it must be 0 or 1", place)
        return found == 1

    def _text(self) -> str:
        length = self.number("Q")
        self.check_count(length, 1, "bytes of text")
        kept = min(length, _LONGEST_TEXT) if self._kept < _MOST_KEPT else 0
        self._kept += kept
        text = self._bytes(kept).decode("utf-8", "backslashreplace")
        self.skip(length - kept)
        return text if kept == length else f"{text}… ({length} bytes)"

    def _array(self, depth: int) -> Any:
        type, count = self._head_of_array(depth)
        if count <= _LONGEST_LIST and self._kept < _MOST_KEPT:
            self._kept += 8 * count
            return [self.value(type, depth + 1) for _ in range(count)]
        place, member = self.place, self.member
        self._pass(type, count, depth)
        return LongArray(self.file, place, self.big_endian, member, type, count)

    def _head_of_array(self, depth: int) -> tuple[int, int]:
        place, type, count = self.place, self.number("I"), self.number("Q")
        if depth >= _DEEPEST:
            raise self.fault(f"arrays lie in arrays more than {_DEEPEST} deep", place)
        if type not in _WORDS:
            raise self.fault(f"there is no type {type} of metadata", place)
        if type not in _LEAST:
            self.check_count(count, self._structs[_LETTERS[type]].size, f"values of {_WORDS[type]}")
            return type, count
        self.check_count(count, _LEAST[type], f"values of {_WORDS[type]}")
        self._walked += count * (_ARRAY_COUNTS if type == _ARRAY else 1)
        if self._walked > _MOST_WALKED:
            raise self.fault(f"over {_MOST_WALKED} texts are too many; no vocabulary has as many", place)
        return type, count

    def skip(self, length: int) -> None:
        """Pass over bytes, which are known to be there."""
        self._at += length

    def _pass(self, type: int, count: int, depth: int) -> None:
        """Pass over the values of an array."""
        if type == _TEXT:
            self._pass_texts(count)
        elif type == _ARRAY:
            for _ in range(count):
                self._pass(*self._head_of_array(depth + 1), depth + 1)
        else:
            self.skip(count * self._structs[_LETTERS[type]].size)

    def _pass_texts(self, count: int) -> None:
        """Pass over texts, reading nothing but their lengths: most of the time that a vocabulary takes."""
        first, length_at = self.place, self._structs["Q"].unpack_from
        while count:
            self._fill(8)
            buffer, at = self._buffer, self._at
            try:
                for left in range(count, 0, -1):  # noqa: B007 -- how many are left when the buffer ends
                    at += 8 + length_at(buffer, at)[0]
                left = 0
            except (struct.error, OverflowError):
                pass
            count, self._at = left, at
            if self.place + 8 * count > self.file.size:
                raise self.fault("a text in this array reaches beyond the end of the file", first)


class LongArray(Sequence["Any"]):
    """A long array of metadata, as a vocabulary: its values are read from the file when asked for."""

    def __init__(
        self, file: LocalFile, place: int, big_endian: bool, member: str | None, type: int, count: int
    ) -> None:
        self._where, self._type, self._count = (file, place, big_endian, member), type, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        cursor = Cursor(*self._where)
        return (cursor.value(self._type, 1) for _ in range(self._count))

    def __getitem__(self, index: int | slice) -> Any:
        places = range(self._count)[index]
        if isinstance(places, range):
            found = list(islice(self, max(places, default=-1) + 1))
            return [found[place] for place in places]
        return next(islice(self, places, None))

    def __repr__(self) -> str:
        first = ", ".join(repr(value)[:40] for value in islice(self, 3))
        return f"<{self._count} values of {_WORDS[self._type]}: {first}, …>"
