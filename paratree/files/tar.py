"""The members of a tar archive, found by walking its headers; nothing is extracted.

Layout: POSIX.1-2017, pax, "pax Interchange Format" and "ustar Interchange Format": a header block of 512
bytes with a checksum, then the member padded to whole blocks; the end is zeros. Extended headers may give
the next member another name or size.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError, printable
from paratree.files.local import LocalFile, Window, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BLOCK = 512
_MAGIC = b"ustar"
_LONGEST_END = 1 << 20  # zeros that writers pad with
_LARGEST_EXTENDED = 1 << 16
_REGULAR = (b"0", b"\0", b"7")


def first_name(file: LocalFile) -> str | None:
    """Return the name of the first member, or ``None`` if the first bytes are not those of a tar file."""
    head, place = file.head, 0
    while head[place + 257 : place + 262] == _MAGIC:
        header = head[place : place + _BLOCK]
        if header[156:157] not in (b"x", b"g"):
            return header[:100].rstrip(b"\0").decode("latin-1")
        place += _BLOCK * (1 - (-(_number(header[124:136]) or 0) // _BLOCK))
    return None


def tar_members(file: LocalFile, most: int) -> dict[str, Window]:
    """Return the members of a tar file by name.

    Args:
        file: the file.
        most: how many members there may be.

    Raises:
        CorruptFileError: a header is damaged, a member reaches beyond the file or is no regular file, two
            have one name, there are too many, or something follows the end.
    """
    members: dict[str, Window] = {}
    extended: dict[str, Any] = {}
    place = headers = 0
    while any(header := read(file, place, min(_BLOCK, file.size - place))):
        headers += 1
        kind, name, size = _header(file, header, place)
        size = extended.get("size", size)
        name = extended.get("path", name)
        start, place = place + _BLOCK, place + _BLOCK * (1 - (-size // _BLOCK))
        if place > file.size:
            raise CorruptFileError(
                file.path, f"{size} bytes are claimed and {max(file.size - start, 0)} are left",
                offset=start, member=printable(name),
            )  # fmt: skip
        if kind in (b"x", b"g") and headers <= 2 * most:
            extended = _extended(file, start, size)
            continue
        extended = {}
        if kind not in _REGULAR or name in members or len(members) == most:
            what = "is no regular file" if kind not in _REGULAR else "has the name of another"
            what = f"is one of over {most} members" if len(members) == most else what
            raise CorruptFileError(file.path, what, offset=start - _BLOCK, member=printable(name))
        members[name] = Window(file, start, size, printable(name))
    left = file.size - place
    if left < 2 * _BLOCK or left > _LONGEST_END or any(read(file, place, left)):
        what = "the archive's end is missing" if left < 2 * _BLOCK else "something follows the archive's end"
        raise CorruptFileError(file.path, what, offset=place)
    return members


def _header(file: LocalFile, header: bytes, place: int) -> tuple[bytes, str, int]:
    """Return kind, name and size of a header block whose checksum is right."""
    size = _number(header[124:136])
    recorded = _number(header[148:156])
    if len(header) < _BLOCK or sum(header) - sum(header[148:156]) + 8 * 0x20 != recorded:
        raise CorruptFileError(file.path, "the checksum of a header is wrong", offset=place)
    if header[257:262] != _MAGIC or size is None:
        raise CorruptFileError(file.path, "a header is not one of a tar archive", offset=place)
    prefix = header[345:500].partition(b"\0")[0]
    name = header[:100].partition(b"\0")[0]
    return header[156:157], (prefix + b"/" + name if prefix else name).decode("utf-8", "replace"), size


def _extended(file: LocalFile, start: int, size: int) -> dict[str, Any]:
    """Return what an extended header says of name and size of the next member."""
    if size > _LARGEST_EXTENDED:
        raise CorruptFileError(file.path, f"an extended header of {size} bytes", offset=start)
    data, place = read(file, start, size), 0
    found: dict[str, Any] = {}
    while place < size:
        length, _, _ = data[place : place + 20].partition(b" ")
        end = place + (int(length) if length.isdigit() else 0)
        key, equals, value = data[place + len(length) + 1 : end - 1].partition(b"=")
        if not place < end <= size or data[end - 1 : end] != b"\n" or not equals:
            raise CorruptFileError(file.path, "an extended header is damaged", offset=start + place)
        if key == b"path":
            found["path"] = value.decode("utf-8", "replace")
        elif key == b"size":
            if not value.isdigit() or len(value) > 20:
                raise CorruptFileError(file.path, "an extended size is no number", offset=start + place)
            found["size"] = int(value)
        place = end
    return found


def _number(field: bytes) -> int | None:
    """Return the number in a field: octal digits, or for large ones base 256."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and all(0x30 <= d <= 0x37 for d in digits) else None
