"""Write a copy of an ONNX model with other values; every other byte is copied.

Specification: onnx.proto of onnx 1.23. A tensor's values become ``raw_data``, also where they were typed
numbers or in another file; the messages around it are then of other lengths, which are written anew.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from paratree.core.array import size_of
from paratree.core.dtypes import nbytes
from paratree.core.errors import MismatchError, UnsupportedError, printable
from paratree.core.names import OTHER
from paratree.files.array import FileArray, file_array
from paratree.files.output import blocks
from paratree.files.protobuf import BYTES, FIXED32, FIXED64, VARINT
from paratree.formats._onnx_graphs import DENSE, FLOATS, INT, INTS, SPARSE
from paratree.formats._onnx_tensors import EXTERNAL_DATA, LOCATION, RAW, SEGMENT, VALUES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from paratree.core.array import LazyArray
    from paratree.core.tree import ParamTree
    from paratree.files.output import Output
    from paratree.files.protobuf import Span, Wire
    from paratree.formats._onnx_graphs import Found
    from paratree.formats._onnx_tensors import Tensors

    Piece = bytes | LazyArray
    Edits = dict[Span, list[Piece]]  # what is written in the place of a range

_LARGEST = (1 << 31) - 1  # bytes of a message that protobuf reads
_MOST_NAMED = 5
_WIDTHS = {FIXED32: 4, FIXED64: 8}
_PLACES = (*VALUES, SEGMENT, EXTERNAL_DATA, LOCATION)  # fields that say what the values are, or where


def write(tree: ParamTree, output: Output, tensors: Tensors, found: dict[str, Found]) -> list[str]:
    """Write a copy of the model of ``tensors``, in which ``found`` are its tensors by their names.

    Raises:
        MismatchError: names, shapes or dtypes of the tree are not those of the model.
        UnsupportedError: a tensor is sparse in the model, or the copy would be larger than a model may be.
    """
    path = printable(tensors.file.path)
    _check_names(tree, found, path)
    for name in tree:
        _check(tree, name, found[name], path)
    arrays = {name: tree[name].array for name in tree}
    outside = {name: t.array for name, t in found.items() if name not in tree and _is_outside(t, tensors)}
    edits = {
        found[name].span: _rewritten(tensors.wire, found[name], array)
        for name, array in (arrays | outside).items()
    }
    lengths: Edits = {}
    whole = (0, tensors.file.size)
    size = tensors.file.size + _grown(tensors.wire, whole, edits, sorted(edits), lengths)
    if size > _LARGEST:
        raise UnsupportedError(
            f"{path}: with its values inside, the copy would take {size} bytes, over the 2 GB that protobuf "
            "reads; write another format, as safetensors"
        )
    _emit(output, tensors, {**edits, **lengths})
    return _notes(tree, found, tensors)


def _check_names(tree: ParamTree, found: dict[str, Found], path: str) -> None:
    """Look that the tree has the names of the model; what is no parameter may be left as it is there."""
    strange = [name for name in tree if name not in found]
    missing = [name for name, tensor in found.items() if name not in tree and _is_needed(tensor)]
    if strange:
        raise MismatchError(f"{path}: the model has no {_some(strange)}; rename them as the model does")
    if missing:
        fact = f"what is written lacks {_some(missing)} of the model"
        raise MismatchError(f"{path}: {fact}; all its parameters are needed")


def _is_needed(tensor: Found) -> bool:
    return tensor.kind != OTHER or (tensor.array.problem is not None and tensor.array.dtype != "string")


def _check(tree: ParamTree, name: str, tensor: Found, path: str) -> None:
    param, array = tree[name], tensor.array
    if tensor.field == SPARSE:
        raise UnsupportedError(f"{path}: {printable(name)} is sparse there; make it dense in the model")
    if (param.shape, param.dtype) != (array.shape, array.dtype):
        ours, theirs = (f"{each.dtype} {list(each.shape)}" for each in (param, array))
        advice = (
            f"cast it (dtype='{array.dtype}')" if param.shape == array.shape else "it is of another model"
        )
        raise MismatchError(f"{path}: {printable(name)} is {theirs} there, not {ours}; {advice}")


def _is_outside(tensor: Found, tensors: Tensors) -> bool:
    """Tell whether values are in another file, which the copy would not have beside it."""
    array = tensor.array
    return isinstance(array, FileArray) and array.source in tensors.beside.values()


def _notes(tree: ParamTree, found: dict[str, Found], tensors: Tensors) -> list[str]:
    notes = []
    if number := sum(_is_outside(tensor, tensors) for tensor in found.values()):
        notes.append(f"values that the model has in other files are inside the copy: {number}")
    if tree.format != "ONNX" and (left := _some(list(tree.meta))):
        notes.append(f"the copy keeps the metadata of the model, left out: {left}")
    return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:_MOST_NAMED])) + ", …" * (len(names) > _MOST_NAMED)


# Messages with other values


def _rewritten(wire: Wire, tensor: Found, array: LazyArray) -> list[Piece]:
    """Return the message of a tensor, or the attribute that is one, with other values."""
    if tensor.field == DENSE:
        return _with_field(wire, tensor.span, RAW, _PLACES, [array])
    if tensor.field == INT:
        value = int(array.read())
        return _with_field(wire, tensor.span, INT, (INT,), [varint(value % (1 << 64))], VARINT)
    if tensor.field == INTS:
        packed = b"".join(varint(value % (1 << 64)) for value in array.read().tolist())
        return _with_field(wire, tensor.span, INTS, (INTS,), [packed])
    if tensor.field == FLOATS:
        return _with_field(wire, tensor.span, FLOATS, (FLOATS,), [array])
    return _with_field(wire, tensor.span, tensor.field, (tensor.field,), [array], FIXED32)


def _with_field(
    wire: Wire, span: Span, number: int, dropped: Iterable[int], values: list[Piece], kind: int = BYTES
) -> list[Piece]:
    """Return a message with ``values`` as one field, in the place of the first of those that are dropped."""
    head = varint(number << 3 | kind) + (varint(sum(map(_size, values))) if kind == BYTES else b"")
    new: list[Piece] = [head, *values]
    pieces: list[Piece] = []
    for other, type_, value in wire.fields(span):
        if other not in dropped:
            pieces.append(_field(wire, other, type_, value))
        else:
            pieces += new
            new = []
    return pieces + new


def _field(wire: Wire, number: int, kind: int, value: Span | int) -> bytes:
    key = varint(number << 3 | kind)
    if kind == BYTES:
        span = cast("Span", value)
        return key + varint(span[1] - span[0]) + wire.raw(span)
    plain = cast("int", value)
    return key + (varint(plain) if kind == VARINT else plain.to_bytes(_WIDTHS[kind], "little"))


def varint(value: int) -> bytes:
    """Return an unsigned number as protobuf has it."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _size(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else nbytes(size_of(piece), piece.dtype)


# Messages around them


def _grown(wire: Wire, span: Span, edits: Edits, places: list[Span], lengths: Edits) -> int:
    """Return by how many bytes a message grows, and add the new lengths of those in it that grow.

    Args:
        wire: the model.
        span: the message.
        edits: what is written in the place of messages.
        places: those messages, in order.
        lengths: what is added to.
    """
    total = 0
    for _, kind, value in wire.fields(span):
        if kind != BYTES:
            continue
        at = bisect_left(places, (value[0], 0))
        if at == len(places) or places[at][0] >= value[1]:
            continue
        if value in edits:
            grown = sum(map(_size, edits[value])) - (value[1] - value[0])
        else:
            grown = _grown(wire, value, edits, places, lengths)
        if grown:
            before, after = _length_of(wire, value[0]), varint(value[1] - value[0] + grown)
            lengths[before] = [after]
            total += grown + len(after) - (before[1] - before[0])
    return total


def _length_of(wire: Wire, start: int) -> Span:
    """Return where the length is that stands before a field: its last byte, and those before that say so."""
    first = start - 1
    while wire.raw((first - 1, first))[0] > 0x7F:
        first -= 1
    return first, start


def _emit(output: Output, tensors: Tensors, edits: Edits) -> None:
    end = tensors.file.size
    places = [(0, 0), *sorted(edits), (end, end)]
    for before, place in pairwise(places):
        _copy(output, tensors, (before[1], place[0]))
        for piece in edits.get(place, ()):
            if isinstance(piece, bytes):
                output.write(piece)
            else:
                output.values(piece)


def _copy(output: Output, tensors: Tensors, span: Span) -> None:
    if span[0] < span[1]:
        for block in blocks(file_array(tensors.file, span[0], (span[1] - span[0],), "uint8")):
            output.file.write(block)
