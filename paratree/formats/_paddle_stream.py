"""A ``.pdiparams`` of Paddle: tensors one after the other, without names.

Layout: ``SerializeToStream`` of dense tensors in Paddle 3.3: a version (32 bits), the levels of detail (a
64-bit count, then for each a 64-bit size and its bytes), again a version, the size of a ``TensorDesc``
(32 bits), that protocol buffer, and the values; little-endian, all versions 0.
"""

from __future__ import annotations

import struct

from paratree.core.errors import CorruptFileError
from paratree.files.array import check_shape, file_array
from paratree.files.local import read
from paratree.files.protobuf import Wire
from paratree.formats._paddle_program import DTYPES, tensor_desc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from paratree.files.array import FileArray
    from paratree.files.local import LocalFile

_HEAD = struct.Struct("<IQ")  # version, levels of detail
_DESC = struct.Struct("<Ii")  # version, size of the description
_LEVEL = 8  # bytes of a size
_LONGEST_DESC = 1 << 10  # bytes; a dtype and 64 dims take 700


def begins_as_stream(file: LocalFile) -> bool:
    """Tell whether a file begins with a whole description of a tensor."""
    if file.size < _HEAD.size + _DESC.size or file.head[: _HEAD.size] != bytes(_HEAD.size):
        return False
    try:
        return _described(file, 0)[3] > 0
    except CorruptFileError:
        return False


def stream_arrays(file: LocalFile) -> list[FileArray]:
    """Return every tensor of the stream.

    Raises:
        CorruptFileError: a tensor contradicts itself, or does not end inside the file.
    """
    arrays: list[FileArray] = []
    place = 0
    while place < file.size:
        member = f"tensor {len(arrays)}"
        dtype, dims, start, _ = _described(file, place, member)
        shape = check_shape(dims, file, member)
        arrays.append(file_array(file, start, shape, dtype, member=member))
        place = start + arrays[-1].nbytes
    return arrays


def _described(file: LocalFile, place: int, member: str | None = None) -> tuple[str, list[int], int, int]:
    """Return dtype, dims, where the values begin and the size of the description of a tensor."""

    def fault(reason: str) -> CorruptFileError:
        return CorruptFileError(file.path, reason, offset=place, member=member)

    version, levels = _HEAD.unpack(read(file, place, _HEAD.size))
    place += _HEAD.size
    if version or levels > (file.size - place) // _LEVEL:
        raise fault(f"no tensor of version 0 begins here (version {version}, {levels} levels of detail)")
    for _ in range(levels):
        place += _LEVEL + int.from_bytes(read(file, place, _LEVEL), "little")
    version, size = _DESC.unpack(read(file, place, _DESC.size))
    place += _DESC.size
    if version or not 0 < size <= min(_LONGEST_DESC, file.size - place):
        raise fault(f"no description of a tensor is here (version {version}, {size} bytes)")
    number, dims = tensor_desc(Wire(file, member), (place, place + size))
    if number not in DTYPES:
        raise fault(f"the data type {number} is unknown")
    return DTYPES[number], dims, place + size, size
