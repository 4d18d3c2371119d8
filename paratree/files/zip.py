"""The directory of a zip archive, checked against itself, and windows on its members.

Nothing is extracted. Members are read by position: the standard library's reader seeks backwards by
reading again (3.11), and takes the central directory's word for what the local headers say.
Layout: PKWARE APPNOTE 6.3.10, sections 4.3 (headers) and 4.5.3 (zip64).
"""

from __future__ import annotations

import struct

from paratree.core.errors import CorruptFileError, UnsafeFileError
from paratree.files.local import LocalFile, Window, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.files.local import Source

STORED, DEFLATED = 0, 8
_LOCAL, _CENTRAL, _END, _END64, _LOCATOR64 = b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7"
_LOCAL_FORMAT = struct.Struct("<4s5H3I2H")
_CENTRAL_FORMAT = struct.Struct("<4s6H3I5H2I")
_LONGEST_COMMENT = 0xFFFF
_LARGEST_DIRECTORY = 100_000_000
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _DESCRIPTOR, _UTF8 = 0x1, 0x8, 0x800
_MOST_RATIO = 1032  # the most that a deflate stream can expand (RFC 1951)
_MOST_INFLATED, _SUSPECT_RATIO = 64 << 20, 200  # beyond both together, a member is a bomb
_CHUNK = 1 << 16
_MOST_STOPPED = 4  # inflations kept, as many as threads that read one member in turn


class Inside(Window):
    """An archive that is a part of another file, as each chunk of a distributed checkpoint is."""

    def __init__(self, source: Source, start: int, size: int, member: str | None = None) -> None:
        super().__init__(source, start, size, member)
        self.archive: Any = None
        self.head = read(self, 0, min(_LOCAL_FORMAT.size, size))


class Member:
    """One entry: its name, where its bytes are and how they are stored."""

    __slots__ = ("_central", "compressed", "crc", "file", "header", "method", "name", "offset", "size")

    def __init__(
        self, file: LocalFile | Inside, name: str, central: tuple[int, int, int, int, int], header: int
    ) -> None:
        self.file, self.name, self._central, self.header = file, name, central, header
        self.method, _, self.crc, self.compressed, self.size = central
        self.offset = 0  # of the data; known once the local header is read

    def source(self) -> Source:
        """Return the member's bytes as a source: a window if stored, inflated on reading if deflated."""
        if self.method == STORED:
            return Window(self.file, self.offset, self.size, self.name)
        return Inflated(self)

    def whole(self) -> Source:
        """Return the member's bytes as a source that will be read in one piece: a bomb is refused now."""
        source = self.source()
        if isinstance(source, Inflated):
            source.refuse_bomb()
        return source

    def bytes(self) -> bytes:
        """Return the whole member; for headers and small parts, not for arrays."""
        source = self.whole()
        return read(source, 0, source.size)

    def verified(self) -> Source:
        """Return the member's bytes as a source that checks the CRC-32 whenever its end is read.

        Not for torch's files: torch can be told to write none.
        """
        return Verified(self.source(), self.crc)

    def locate(self) -> int:
        """Check the local header against the directory and return where the member ends."""
        file, name = self.file, self.name
        head = read(file, self.header, _LOCAL_FORMAT.size)
        magic, _, flags, method, _, _, crc, compressed, size, name_length, extra_length = (
            _LOCAL_FORMAT.unpack(head)
        )
        if magic != _LOCAL:
            raise CorruptFileError(
                file.path, "no local header where the directory says", offset=self.header, member=name
            )
        tail = read(file, self.header + _LOCAL_FORMAT.size, name_length + extra_length)
        sizes = _sizes(tail[name_length:], [size, compressed])
        local = (method, flags & ~_UTF8, crc, sizes[1], sizes[0])
        same = local == self._central
        if not same and flags & _DESCRIPTOR:  # the sizes follow the data; the directory has them
            same = local[:2] == self._central[:2]
        if not same or _text(tail[:name_length], flags) != name:
            raise CorruptFileError(
                file.path,
                "its local header disagrees with the archive's directory",
                offset=self.header,
                member=name,
            )
        self.offset = self.header + _LOCAL_FORMAT.size + name_length + extra_length
        return self.offset + self.compressed


class Inflated:
    """The bytes of a deflated member: a read goes on where one before it stopped, or begins at the start."""

    def __init__(self, member: Member) -> None:
        self.path, self.size = member.file.path, member.size
        self.member: str | None = member.name
        self.key = (member.file.key, member.offset, "inflated")
        self._packed = Window(member.file, member.offset, member.compressed, member.name)
        self._stopped: list[_Inflation] = []
        if self.size > _MOST_RATIO * max(member.compressed, 1):
            raise CorruptFileError(
                self.path,
                f"{member.compressed} bytes cannot inflate to the {self.size} that are claimed",
                offset=member.offset,
                member=self.member,
            )

    def refuse_bomb(self) -> None:
        """Refuse a member that inflates to far more than weights do.

        Raises:
            UnsafeFileError: it does.
        """
        if self.size > _MOST_INFLATED and self.size > _SUSPECT_RATIO * self._packed.size:
            raise UnsafeFileError(
                self.path,
                f"{self._packed.size} bytes would inflate to {self.size}",
                member=self.member,
                advice="it has the form of a decompression bomb; unpack it yourself if you trust it",
            )

    def readinto(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` from ``offset`` of the inflated bytes.

        Raises:
            UnsafeFileError: the member is a decompression bomb.
            CorruptFileError: the deflate stream is damaged or shorter than claimed.
        """
        self.refuse_bomb()
        inflation, done = self._nearest(offset), 0
        while done < len(view):
            skipped = min(max(offset - inflation.position, 0), len(inflation.out))
            useful = inflation.out[skipped : skipped + len(view) - done]
            view[done : done + len(useful)] = useful
            done += len(useful)
            if done < len(view) and not inflation.go_on():
                raise CorruptFileError(
                    self.path,
                    f"the deflate stream ends after {inflation.position} of {self.size} bytes",
                    member=self.member,
                )
        self._stopped.append(inflation)
        del self._stopped[:-_MOST_STOPPED]

    def _nearest(self, offset: int) -> _Inflation:
        """Take the inflation that stopped nearest before ``offset``; several threads may ask at a time."""
        before = [one for one in tuple(self._stopped) if one.position <= offset]
        for one in sorted(before, key=lambda one: one.position, reverse=True):
            try:
                self._stopped.remove(one)
            except ValueError:  # another thread has just taken it
                continue
            return one
        return _Inflation(self._packed)


class _Inflation:
    """How far a deflated member is inflated.

    Attributes:
        position: where ``out`` begins in the inflated bytes.
        out: the bytes that were inflated last.
    """

    __slots__ = ("_engine", "_packed", "_taken", "out", "position")

    def __init__(self, packed: Window) -> None:
        import zlib

        self._packed, self._taken = packed, 0
        self._engine = zlib.decompressobj(-zlib.MAX_WBITS)
        self.position, self.out = 0, b""

    def go_on(self) -> bool:
        """Inflate a little more; tell whether there was more.

        Raises:
            CorruptFileError: the deflate stream is damaged.
        """
        import zlib

        self.position, self.out = self.position + len(self.out), b""
        while not self.out and not self._engine.eof:
            fed = self._engine.unconsumed_tail
            if not fed:
                fed = read(self._packed, self._taken, min(_CHUNK, self._packed.size - self._taken))
                self._taken += len(fed)
            try:
                self.out = self._engine.decompress(fed, _CHUNK)
            except zlib.error as error:
                raise CorruptFileError(
                    self._packed.path, f"the deflate stream is damaged: {error}", member=self._packed.member
                ) from None
            if not self.out and not fed:
                break
        return bool(self.out)


class Verified:
    """A source whose CRC-32 is checked when a read reaches its end from near its start."""

    def __init__(self, source: Source, crc: int) -> None:
        self.path, self.member, self.size, self.key = source.path, source.member, source.size, source.key
        self._source, self._crc = source, crc

    def readinto(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` from ``offset``.

        Raises:
            CorruptFileError: all was read, and it is not what was written.
        """
        import zlib

        self._source.readinto(view, offset)
        if offset <= _CHUNK and offset + len(view) == self.size:
            before = read(self._source, 0, offset)
            if zlib.crc32(view, zlib.crc32(before)) != self._crc:
                raise CorruptFileError(self.path, "its CRC-32 is not the recorded one", member=self.member)


def archive(file: LocalFile | Inside) -> dict[str, Member] | None:
    """Return the members of a zip file by name, in directory order; ``None`` if it is no zip file.

    Raises:
        CorruptFileError: the archive contradicts itself: truncated, overlapping or duplicate members,
            headers that disagree, bytes after the end.
    """
    if not file.head.startswith((_LOCAL, _END)):
        return None
    if file.archive is None:
        file.archive = _directory(file)
    members: dict[str, Member] = file.archive
    return members


def _directory(file: LocalFile | Inside) -> dict[str, Member]:
    count, size, offset, end = _end(file)
    if offset + size != end or not count * _CENTRAL_FORMAT.size <= size <= _LARGEST_DIRECTORY:
        raise CorruptFileError(
            file.path,
            f"the archive's directory cannot be {count} entries in {size} bytes",
            offset=offset,
            member=file.member,
        )
    data = read(file, offset, size)
    members: dict[str, Member] = {}
    place = 0
    for _ in range(count):
        member, place = _entry(file, data, place, offset)
        if member.name in members:
            raise CorruptFileError(
                file.path, "two members have this name", offset=offset + place, member=member.name
            )
        members[member.name] = member
    if place != size:
        raise CorruptFileError(
            file.path,
            "the archive's directory has another length than recorded",
            offset=offset,
            member=file.member,
        )
    _check_layout(file, members, offset)
    return members


def _check_layout(file: LocalFile | Inside, members: dict[str, Member], directory: int) -> None:
    """Check that members follow each other without overlap, up to the directory."""
    end = 0
    for member in sorted(members.values(), key=lambda m: m.header):
        if member.header < end:
            raise CorruptFileError(
                file.path, "overlaps the member before it", offset=member.header, member=member.name
            )
        end = member.locate()
        if end > directory:
            raise CorruptFileError(
                file.path, "reaches into the archive's directory", offset=member.offset, member=member.name
            )


def _entry(file: LocalFile | Inside, data: bytes, place: int, start: int) -> tuple[Member, int]:
    """Return the member of the directory entry at ``place`` and where the next entry begins."""
    after = place + _CENTRAL_FORMAT.size
    if after > len(data) or data[place : place + 4] != _CENTRAL:
        raise CorruptFileError(
            file.path, "the archive's directory is broken off here", offset=start + place, member=file.member
        )
    fields: tuple[Any, ...] = _CENTRAL_FORMAT.unpack_from(data, place)
    flags, method, crc, compressed, size = fields[3], fields[4], fields[7], fields[8], fields[9]
    name_length, extra_length, comment_length, header = fields[10], fields[11], fields[12], fields[16]
    name = _text(data[after : after + name_length], flags)
    extra = data[after + name_length : after + name_length + extra_length]
    size, compressed, header = _sizes(extra, [size, compressed, header])
    if flags & _ENCRYPTED or method not in (STORED, DEFLATED):
        what = "is encrypted" if flags & _ENCRYPTED else f"is compressed by method {method}"
        raise CorruptFileError(
            file.path, f"{what}; only stored and deflated members are read", offset=header, member=name,
            advice="unpack it yourself and open what is inside",
        )  # fmt: skip
    if method == STORED and compressed != size:
        raise CorruptFileError(
            file.path, "is stored with two different sizes", offset=start + place, member=name
        )
    member = Member(file, name, (method, flags & ~_UTF8, crc, compressed, size), header)
    return member, after + name_length + extra_length + comment_length


def _end(file: LocalFile | Inside) -> tuple[int, int, int, int]:
    """Return number of entries, size and offset of the directory, and where the end record begins."""
    tail_length = min(file.size, 22 + _LONGEST_COMMENT)
    tail = read(file, file.size - tail_length, tail_length)
    place = len(tail)
    while (place := tail.rfind(_END, 0, place)) >= 0:
        if len(tail) - place >= 22 and place + 22 + int.from_bytes(
            tail[place + 20 : place + 22], "little"
        ) == len(tail):
            break
    if place < 0:
        raise CorruptFileError(
            file.path,
            "the archive has no directory at its end, so its last part is missing",
            offset=file.size,
            member=file.member,
        )
    end = file.size - tail_length + place
    disk, first, here, count, size, offset = struct.unpack_from("<4H2I", tail, place + 4)
    if (
        _FULL16 in (disk, count)
        or _FULL32 in (size, offset)
        or (end >= 20 and read(file, end - 20, 4) == _LOCATOR64)
    ):
        return _end64(file, end)
    if disk or first or here != count:
        raise CorruptFileError(
            file.path, "the archive is one part of several", offset=end, member=file.member
        )
    return count, size, offset, end


def _end64(file: LocalFile | Inside, end: int) -> tuple[int, int, int, int]:
    locator = end - 20
    if locator < 0 or read(file, locator, 4) != _LOCATOR64:
        raise CorruptFileError(
            file.path, "the archive's zip64 locator is missing", offset=max(locator, 0), member=file.member
        )
    (place,) = struct.unpack("<Q", read(file, locator + 8, 8))
    record = read(file, place, 56)
    if record[:4] != _END64:
        raise CorruptFileError(
            file.path,
            "the archive's zip64 end record is not where it should be",
            offset=place,
            member=file.member,
        )
    count, size, offset = struct.unpack_from("<3Q", record, 32)
    return count, size, offset, place


def _sizes(extra: bytes, values: list[int]) -> list[int]:
    """Replace the values that are all ones by those of the zip64 extra field, in its order."""
    if _FULL32 not in values:
        return values
    place = 0
    while place + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, place)
        if tag == 1:
            field = extra[place + 4 : place + 4 + length]
            wide = iter([int.from_bytes(field[i : i + 8], "little") for i in range(0, len(field) - 7, 8)])
            return [next(wide, value) if value == _FULL32 else value for value in values]
        place += 4 + length
    return values


def _text(name: bytes, flags: int) -> str:
    """Decode a member's name; without the UTF-8 flag it is code page 437, as the specification says."""
    return name.decode("utf-8", "surrogateescape") if flags & _UTF8 else name.decode("cp437")
