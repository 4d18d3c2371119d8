"""zstd frames: how long they can get, told before anything is decompressed; then tensorstore does it.

Layout: RFC 8878, section 3. Blocks that repeat one byte expand 32,768 times, so the stored size says little.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError, MissingPackageError, UnsafeFileError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import numpy as np

_MAGIC, _SKIPPED = 0xFD2FB528, 0x184D2A50
_LONGEST_BLOCK = 1 << 17  # bytes, decompressed
_RAW, _REPEATED, _COMPRESSED = 0, 1, 2
_SMALL, _MOST_SPARE = 64 << 20, 32  # a writer may fill its blocks by a part only


def decompress(data: bytes, size: int, path: str, member: str) -> np.ndarray[Any, Any]:
    """Return the ``size`` bytes that frames hold.

    Raises:
        CorruptFileError: they hold another number, or are damaged.
        UnsafeFileError: they could expand to far more.
        MissingPackageError: tensorstore is not installed.
    """
    most = _longest(data, path, member)
    if most < size:
        raise CorruptFileError(
            path, f"{len(data)} bytes cannot decompress to the {size} that are claimed", member=member
        )
    if most > max(_SMALL, _MOST_SPARE * size):
        raise UnsafeFileError(
            path, f"{len(data)} bytes for {size} would decompress to as many as {most}", member=member,
            advice="it has the form of a decompression bomb; decompress it yourself if you trust it",
        )  # fmt: skip
    tensorstore = import_tensorstore(path)
    metadata = {
        "zarr_format": 2, "shape": [size], "chunks": [size], "dtype": "|u1", "order": "C", "filters": None,
        "fill_value": None, "compressor": {"id": "zstd", "level": 1},
    }  # fmt: skip
    spec = {"driver": "zarr", "kvstore": {"driver": "memory"}, "metadata": metadata}
    context = tensorstore.Context()
    try:
        store = tensorstore.KvStore.open({"driver": "memory"}, context=context).result()
        store.write("0", data).result()
        array = tensorstore.open(spec, context=context, open=True, assume_metadata=True).result()
        values: np.ndarray[Any, Any] = array.read().result()
    except (ValueError, RuntimeError, OSError) as error:
        raise CorruptFileError(path, f"not zstd through: {first_line(error)}", member=member) from None
    return values


def import_tensorstore(path: str) -> Any:
    """Return the package.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import tensorstore
    except ImportError:
        raise MissingPackageError(
            f"{printable(path)}: reading this checkpoint takes tensorstore; pip install 'paratree[orbax]'"
        ) from None
    return tensorstore


def first_line(error: Exception) -> str:
    """Return what an error of tensorstore says, without its sources."""
    return printable(str(error).partition("\n")[0].partition(" [")[0][:200])


def _longest(data: bytes, path: str, member: str) -> int:
    """Return the most bytes that frames can decompress to, from the headers of their blocks."""
    place, most = 0, 0
    while place < len(data):
        magic = int.from_bytes(data[place : place + 4], "little")
        if magic & ~15 == _SKIPPED:
            place += 8 + int.from_bytes(data[place + 4 : place + 8], "little")
            continue
        if magic != _MAGIC or len(data) < place + 6:
            raise CorruptFileError(path, "no zstd frame begins here", offset=place, member=member)
        place, checksum = _after_header(data, place)
        last = False
        while not last:
            header = int.from_bytes(data[place : place + 3], "little")
            last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            if place + 3 > len(data) or kind > _COMPRESSED or size > _LONGEST_BLOCK:
                raise CorruptFileError(path, "a zstd block is broken off here", offset=place, member=member)
            most += _LONGEST_BLOCK if kind == _COMPRESSED else size
            place += 3 + (1 if kind == _REPEATED else size)
        place += checksum
    if place != len(data):
        raise CorruptFileError(path, "the last zstd frame is cut short", offset=len(data), member=member)
    return most


def _after_header(data: bytes, place: int) -> tuple[int, int]:
    """Return where the first block of a frame begins, and how long the checksum at its end is."""
    flags = data[place + 4]
    single = flags >> 5 & 1
    dictionary = (0, 1, 2, 4)[flags & 3]
    size = (single, 2, 4, 8)[flags >> 6]
    return place + 5 + (1 - single) + dictionary + size, 4 if flags & 4 else 0
