"""The structures of an HDF5 file, as bytes: where they lie, how many there may be, whether they are sound.

In a sound file no two structures overlap, so all that is read of them is no more than the file. That, and a
limit on the steps, bounds the time that a hostile file can take.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError, UnsafeFileError
from paratree.files import lookup3
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from paratree.files.local import Source

BOMB = "it has the form of a bomb: open it with h5py if you trust it"
NOWHERE = (1 << 64) - 1  # the address of what was never written
_COPY = "copy what is in it to a new file with h5py"
_WINDOW = 4096  # bytes read at a time: a header, a heap and a tree often lie together
_MOST_STEPS = 1 << 20  # texts, messages in headers, objects in heaps, branches of trees
_SUM = 4  # bytes of a checksum


class Reader:
    """Reads what it is asked for, once and within bounds; addresses count from the file's base.

    Args:
        source: where the file is: itself, or a window on a member of an archive.
        base: where HDF5 begins in it.
    """

    def __init__(self, source: Source, base: int) -> None:
        self.source, self.base = source, base
        self._window, self._at = b"", 0
        self._steps = self._taken = 0

    def peek(self, address: int, length: int) -> bytes:
        """Return bytes that will be taken later, or less than that at the end of the file."""
        return self._read(address, max(min(length, self.source.size - self.base - address), 0))

    def take(self, address: int, length: int, signature: bytes = b"") -> bytes:
        """Return the bytes of a structure.

        Raises:
            CorruptFileError: they reach beyond the file, or begin with something else than the signature.
            UnsafeFileError: more was taken than the file holds.
        """
        found = self._read(address, length)
        self._taken += length
        if self._taken > self.source.size:
            raise self._unsafe("its headers, heaps and trees are larger than the file", address)
        if not found.startswith(signature):
            raise self.fault(f"here should be {signature[:4].decode('ascii')}", address)
        return found

    def checked(self, address: int, length: int, signature: bytes = b"") -> bytes:
        """Return the bytes of a structure without its checksum, which comes last.

        Raises:
            CorruptFileError: the checksum is another, too.
        """
        if length < _SUM:
            raise self.fault("a structure is too short for its checksum", address)
        found = self.take(address, length, signature)
        if lookup3.checksum(found[:-_SUM]) != int.from_bytes(found[-_SUM:], "little"):
            raise self.fault("its checksum is wrong", address)
        return found[:-_SUM]

    def step(self, address: int, steps: int = 1) -> None:
        """Count what is looked at, against the most that is looked at."""
        self._steps += steps
        if self._steps > _MOST_STEPS:
            raise self._unsafe(f"its headers, heaps and trees have over {_MOST_STEPS} entries", address)

    def fault(self, reason: str, address: int) -> CorruptFileError:
        """Return the error for damage at an address."""
        return CorruptFileError(
            self.source.path, reason, offset=self.base + address, member=self.source.member
        )

    def unknown(self, what: str, address: int) -> CorruptFileError:
        """Return the error for what may be sound, and is not read here."""
        return CorruptFileError(
            self.source.path,
            f"{what}, which paratree does not read",
            offset=self.base + address,
            member=self.source.member,
            advice=_COPY,
        )

    def _read(self, address: int, length: int) -> bytes:
        start = address - self._at
        if start < 0 or start + length > len(self._window):
            left = self.source.size - self.base - address
            wanted = max(length, min(_WINDOW, left)) if address >= 0 else length
            self._window, self._at, start = read(self.source, self.base + address, wanted), address, 0
        return self._window[start : start + length]

    def _unsafe(self, reason: str, address: int) -> UnsafeFileError:
        return UnsafeFileError(
            self.source.path, reason, offset=self.base + address, member=self.source.member, advice=BOMB
        )
