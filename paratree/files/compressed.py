"""A file that is compressed as a whole, read as what it inflates to: zlib, gzip, bzip2, xz, lzma.

Such a stream can be read forwards only: a read goes on where the last one ended, or begins again. How much
it inflates to is found by inflating it once, in small pieces, of which none is kept.
"""

from __future__ import annotations

from _thread import allocate_lock

from paratree.core.errors import CorruptFileError, UnsafeFileError, printable
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    from paratree.files.local import LocalFile
else:
    Protocol = object

_CHUNK = 1 << 16
_MOST_INFLATED, _SUSPECT_RATIO = 64 << 20, 200  # beyond both together it is a bomb, as in files.zip
_MOST_MEMORY = 128 << 20  # for the dictionary of xz: its largest preset takes 65 MiB
_STARTS = {  # first bytes -> what compressed the file
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"]\0\0": "lzma",
    b"\x78\x01": "zlib", b"\x78\x5e": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib",
    b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4",
}  # fmt: skip
_COMMANDS = {  # how a shell inflates it, and what its files end in
    "gzip": ("gunzip -c", ".gz"), "bzip2": ("bunzip2 -c", ".bz2"), "xz": ("unxz -c", ".xz"),
    "lzma": ("unlzma -c", ".lzma"), "zstd": ("unzstd -c", ".zst"), "lz4": ("unlz4 -c", ".lz4"),
    "zlib": ("zlib-flate -uncompress <", ".zlib"),
}  # fmt: skip
_ONE_STREAM = ("zlib", "lzma")  # the others may follow each other


class _Engine(Protocol):
    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most so many of the inflated bytes."""


def compression(head: bytes) -> str | None:
    """Return the name of what compressed a file that begins with these bytes, or ``None``."""
    return next((name for start, name in _STARTS.items() if head.startswith(start)), None)


def suffix_of(name: str) -> str:
    """Return what files end in that are compressed by what is called ``name``."""
    return _COMMANDS[name][1]


def advice(path: str, name: str) -> str:
    """Return how to inflate the file at ``path``.

    >>> advice("m.pt.gz", "gzip")
    "inflate it, gunzip -c 'm.pt.gz' > 'm.pt', and open the result"
    """
    command, suffix = _COMMANDS[name]
    inflated = path.removesuffix(suffix) if path.endswith(suffix) else path + ".inflated"
    return f"inflate it, {command} '{printable(path)}' > '{printable(inflated)}', and open the result"


class Inflated:
    """The bytes that a compressed file inflates to.

    Args:
        file: the file.
        name: what compressed it, as :func:`compression` says.

    Raises:
        CorruptFileError: the stream is damaged or cut short, bytes follow it, or nothing here inflates it.
        UnsafeFileError: it is a decompression bomb.
    """

    member: str | None = "inflated"

    def __init__(self, file: LocalFile, name: str) -> None:
        self.path, self.key, self.size = file.path, (file.key, name), 0
        self._pieces: Iterator[bytes] = iter(())
        self._piece, self._start = b"", 0  # the piece that was read last, and where it begins
        self._file, self._name, self._lock = file, name, allocate_lock()
        for piece in self._inflate():
            self.size += len(piece)
            if self.size > _MOST_INFLATED and self.size > _SUSPECT_RATIO * file.size:
                raise UnsafeFileError(
                    self.path, f"{file.size} bytes would inflate to over {self.size}",
                    advice="it has the form of a decompression bomb; unpack it yourself if you trust it",
                )  # fmt: skip
        self._begin()

    def readinto(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` from ``offset`` of the inflated bytes."""
        self._file.readinto(memoryview(bytearray()), 0)  # is it still open, and what it was?
        done = 0
        with self._lock:
            if offset < self._start:
                self._begin()
            while done < len(view):
                place = offset + done - self._start
                if place >= len(self._piece):
                    self._start += len(self._piece)
                    self._piece = next(self._pieces)
                    continue
                found = self._piece[place : place + len(view) - done]
                view[done : done + len(found)] = found
                done += len(found)

    def _begin(self) -> None:
        self._pieces, self._piece, self._start = self._inflate(), b"", 0

    def _inflate(self) -> Iterator[bytes]:
        """Yield the inflated bytes in pieces, to the last stream of the file."""
        file, engine, place, fed = self._file, self._engine(), 0, b""
        while True:
            if not fed and engine.needs_input:
                fed = read(file, place, min(_CHUNK, file.size - place))
                place += len(fed)
            found = self._decompress(engine, fed)
            if found:
                yield found
            elif not fed and engine.needs_input:
                raise CorruptFileError(self.path, f"the {self._name} stream is cut short", offset=file.size)
            fed = b""
            if engine.eof:
                if not engine.unused_data and place == file.size:
                    return
                if self._name in _ONE_STREAM:
                    end = place - len(engine.unused_data)
                    raise CorruptFileError(
                        self.path, f"the {self._name} stream ends here and the file goes on", offset=end
                    )
                fed, engine = engine.unused_data, self._engine()

    def _decompress(self, engine: _Engine, data: bytes) -> bytes:
        import lzma
        import zlib

        try:
            return engine.decompress(data, _CHUNK)
        except (zlib.error, lzma.LZMAError, OSError) as error:  # bz2 raises OSError
            raise CorruptFileError(
                self.path, f"the {self._name} stream is damaged: {printable(str(error))[:80]}"
            ) from None

    def _engine(self) -> Any:
        if self._name in ("zlib", "gzip"):
            return _Deflate(15 if self._name == "zlib" else 31)
        if self._name == "bzip2":
            from bz2 import BZ2Decompressor

            return BZ2Decompressor()
        if self._name in ("xz", "lzma"):
            import lzma

            form = lzma.FORMAT_XZ if self._name == "xz" else lzma.FORMAT_ALONE
            return lzma.LZMADecompressor(form, memlimit=_MOST_MEMORY)
        raise CorruptFileError(
            self.path, f"it is compressed with {self._name}", advice=advice(self.path, self._name)
        )


class _Deflate:
    """A decompressor of zlib with the interface of those of bz2 and lzma."""

    def __init__(self, window_bits: int) -> None:
        import zlib

        self._engine, self._left, self.needs_input = zlib.decompressobj(window_bits), b"", True

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return self._engine.eof

    @property
    def unused_data(self) -> bytes:
        """What follows the end of the stream."""
        return self._engine.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most so many of the inflated bytes."""
        found = self._engine.decompress(self._left or data, max_length)
        self._left = self._engine.unconsumed_tail
        self.needs_input = not self._left and len(found) < max_length
        return found
