"""ONNX models: a protocol buffer with graphs of nodes and the tensors that they use.

Specification: onnx.proto, docs/IR.md and docs/ExternalData.md of onnx 1.23. Weights are initializers of a
graph or values of nodes (Constant): in the graph of the model, in graphs inside nodes (If, Loop, Scan) and in
functions. Names are the model's; the way to an inner graph is put before a name that stands elsewhere too.
What is a weight and what a shape, an axis or a factor is told by dtype and shape (``_onnx_graphs``). The
checksum of external data is not looked at, as in the reference reader.
"""

from __future__ import annotations

from os import PathLike

from paratree.core.errors import CorruptFileError, UnknownSourceError, UnsupportedError, printable
from paratree.core.names import OTHER, STATE, join
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.local import LocalFile
from paratree.files.protobuf import BYTES, VARINT, Wire, signed
from paratree.formats._onnx_graphs import Found, Walk
from paratree.formats._onnx_tensors import DTYPES, PAIR, Tensors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from paratree.files.output import Output
    from paratree.files.protobuf import Span

NAME = "ONNX"
SUFFIXES = (".onnx",)
FOLDER = ("model.onnx", "*.onnx")
LAZY = "yes; integers packed as varints are decoded on reading"
TIES = "one name for every use, the same place of an external file"
READS = "initializers, constants, inner graphs, functions, sparse and external data, every dtype but text"
EXTRA = None
MAKES = "copy"
WRITES = tuple(dtype for dtype, _ in DTYPES.values() if dtype != "string")

_IR_VERSION, _PRODUCER, _PRODUCER_VERSION, _MODEL_DOMAIN, _MODEL_VERSION, _DOC = (
    1,
    2,
    3,
    4,
    5,
    6,
)  # ModelProto
_GRAPH, _OPSETS, _METADATA, _TRAINING, _FUNCTIONS, _DEVICES = 7, 8, 14, 20, 25, 26
_MODEL = {
    _IR_VERSION: (VARINT,), _PRODUCER: (BYTES,), _PRODUCER_VERSION: (BYTES,), _MODEL_DOMAIN: (BYTES,),
    _MODEL_VERSION: (VARINT,), _DOC: (BYTES,), _GRAPH: (BYTES,), _OPSETS: (BYTES,), _METADATA: (BYTES,),
    _TRAINING: (BYTES,), _FUNCTIONS: (BYTES,), _DEVICES: (BYTES,),
}  # fmt: skip
_WORDS = {
    _PRODUCER: "producer_name", _PRODUCER_VERSION: "producer_version", _MODEL_DOMAIN: "domain",
    _DOC: "doc_string",
}  # fmt: skip
_NUMBERS = {_IR_VERSION: "ir_version", _MODEL_VERSION: "model_version"}
_INPUTS, _OUTPUTS = 11, 12  # of GraphProto
_DIM = {1: (BYTES,)}
_LATEST_IR = 100  # the version of onnx 1.23 is 14
_LONGEST_PRODUCER = 200  # bytes
_FIRST_KEYS = frozenset(number << 3 | types[0] for number, types in _MODEL.items() if number < 16)
_RUNTIME = b"ORTM"  # ONNX Runtime's FlatBuffers


def sniff(file: LocalFile) -> bool:
    """Tell whether the file begins as a model: no magic, so its first fields must be a model's."""
    if _is_of_runtime(file):
        return True
    if not file.head or file.head[0] not in _FIRST_KEYS:
        return False
    seen: set[int] = set()
    wire = Wire(file)
    try:
        for number, kind, value in wire.fields():
            if kind not in _MODEL.get(number, ()) or not _plausible(wire, number, value):
                return False
            seen.add(number)
            if number == _GRAPH and _IR_VERSION in seen:
                return True
    except CorruptFileError:  # cut short, perhaps in its graph
        return {_IR_VERSION, _PRODUCER} <= seen
    return {_IR_VERSION, _GRAPH} <= seen


def _is_of_runtime(file: LocalFile) -> bool:
    return file.head[4:8] == _RUNTIME


def _plausible(wire: Wire, number: int, value: Any) -> bool:
    if number == _IR_VERSION:
        return bool(0 < value <= _LATEST_IR)
    if number in (_PRODUCER, _PRODUCER_VERSION):
        return value[1] - value[0] <= _LONGEST_PRODUCER and wire.text(value).isprintable()
    return True


def open(file: LocalFile) -> ParamTree:
    """Walk the model and return the tree; values stay where they are, here or in files beside it.

    A file with values that is not there leaves its tensors listed, not readable, and a note.

    Raises:
        CorruptFileError: the model contradicts itself, or the files beside it.
        UnsafeFileError: values are said to be outside the model's folder, or behind a link.
        UnknownSourceError: it is a model of ONNX Runtime's own format.
    """
    tensors = Tensors(file)
    meta, graph, found, notes = _walked(tensors)
    params = {name: Param(name, tensor.array, tensor.kind) for name, tensor in found.items()}
    meta |= _values(tensors.wire, graph, params)
    notes += [
        f"the values of {number} tensors are in {location[:200]}, which is not there: fetch it too"
        for location, number in tensors.missing.items()
    ]
    closers = [file.close, *(beside.close for beside in tensors.beside.values())]
    return ParamTree(params, Origin(file.path, NAME, meta, notes, closers))


def holds_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell that no tied group can be written: values are written inside the model, for each name."""
    return False


def save_copy(tree: ParamTree, output: Output, like: object) -> Sequence[str]:
    """Write a copy of a model with the values of a tree; all else is as in the model."""
    from paratree.formats._onnx_written import write

    if not isinstance(like, str | PathLike):
        raise UnsupportedError(
            f"ONNX is written into a copy of a file; give its path, not a {type(like).__name__}"
        )
    file = LocalFile(like)
    tensors = None
    try:
        if not sniff(file):
            raise UnsupportedError(f"{printable(file.path)}: no ONNX model to write into a copy of")
        tensors = Tensors(file)
        return write(tree, output, tensors, _walked(tensors)[2])
    finally:
        for source in (file, *(tensors.beside.values() if tensors is not None else ())):
            source.close()


def _walked(tensors: Tensors) -> tuple[dict[str, Any], Span, dict[str, Found], list[str]]:
    """Return the plain values of a model, its graph, its tensors by unique names, and notes."""
    if _is_of_runtime(tensors.file):
        raise UnknownSourceError(
            f"{printable(tensors.file.path)}: a model in ONNX Runtime's own format (FlatBuffers), which is "
            "not read; give the .onnx file that it was made from"
        )
    walk = Walk(tensors)
    meta, parts = _model(tensors.wire)
    if _GRAPH not in parts:
        raise CorruptFileError(tensors.file.path, "the model has no graph", offset=tensors.file.size)
    walk.graph(parts[_GRAPH][0])
    for function in parts.get(_FUNCTIONS, ()):
        walk.function(function)
    for i, training in enumerate(parts.get(_TRAINING, ())):
        for number, _, graph in tensors.wire.fields(training, {1: (BYTES,), 2: (BYTES,)}):
            what, kind = ("initialization", OTHER) if number == 1 else ("algorithm", STATE)
            walk.graph(graph, (f"training.{i}.{what}",), kind)
    return meta, parts[_GRAPH][0], *_named(walk.found)


def _model(wire: Wire) -> tuple[dict[str, Any], dict[int, list[Span]]]:
    """Return the plain values of the model, and where its graph, functions and training are."""
    meta: dict[str, Any] = {}
    parts: dict[int, list[Span]] = {}
    opsets: dict[str, int] = {}
    properties: dict[str, str] = {}
    for number, _, value in wire.fields(None, _MODEL):
        if number in _WORDS:
            if text := wire.text(value):
                meta[_WORDS[number]] = text
        elif number in _NUMBERS:
            meta[_NUMBERS[number]] = signed(value)
        elif number == _OPSETS:
            said = {n: v for n, _, v in wire.fields(value, {1: (BYTES,), 2: (VARINT,)})}
            opsets[wire.text(said[1]) if 1 in said else ""] = signed(said.get(2, 0))
        elif number == _METADATA:
            words = {n: wire.text(v) for n, _, v in wire.fields(value, PAIR)}
            properties[words.get(1, "")] = words.get(2, "")
        elif number == _GRAPH and number in parts:
            raise wire.fault("the model has two graphs", value[0])
        elif number != _DEVICES:
            parts.setdefault(number, []).append(value)
    if opsets:
        meta["opset_import"] = {domain or "ai.onnx": version for domain, version in opsets.items()}
    if properties:
        meta["metadata_props"] = properties
    return meta, parts


def _named(found: list[Found]) -> tuple[dict[str, Found], list[str]]:
    """Return the tensors by names that are unique; twins in inner graphs bear the way to them."""
    times: dict[str, int] = {}
    for tensor in found:
        times[tensor.name] = times.get(tensor.name, 0) + 1
    named: dict[str, Found] = {}
    doubles: dict[str, int] = {}  # a full name -> how often it was met again
    for tensor in found:
        name = tensor.name
        if tensor.path and (tensor.apart or times[name] > 1):
            name = join((*tensor.path, name))
        while name in named:
            doubles[name] = doubles.get(name, 1) + 1
            name = f"{name}~{doubles[name]}"
        named[name] = tensor
    if not doubles:
        return named, []
    number = sum(doubles.values()) - len(doubles)
    return named, [f"tensors whose full names are the name of another are listed as NAME~2: {number}"]


def _values(wire: Wire, graph: Span, params: dict[str, Param]) -> dict[str, dict[str, str]]:
    """Return dtype and shape of what goes into the model's graph and of what comes out."""
    found: dict[int, dict[str, str]] = {_INPUTS: {}, _OUTPUTS: {}}
    for number, _, value in wire.fields(graph, {_INPUTS: (BYTES,), _OUTPUTS: (BYTES,)}):
        name, about = _value(wire, value)
        if number == _OUTPUTS or name not in params:  # before IR 4, every initializer was an input too
            found[number][name] = about
    return {"inputs": found[_INPUTS], "outputs": found[_OUTPUTS]}


def _value(wire: Wire, span: Span) -> tuple[str, str]:
    """Return the name of a ``ValueInfoProto``, and its dtype and shape as ``"float32 [batch, 3]"``."""
    fields = {number: value for number, _, value in wire.fields(span, PAIR)}
    name = wire.text(fields[1]) if 1 in fields else ""
    kinds = {n: v for n, _, v in wire.fields(fields[2], {1: (BYTES,)})} if 2 in fields else {}
    if 1 not in kinds:
        return name, "no tensor"
    tensor = {number: value for number, _, value in wire.fields(kinds[1], {1: (VARINT,), 2: (BYTES,)})}
    dtype, _ = DTYPES.get(tensor.get(1, 0), ("unknown", 0))
    if 2 not in tensor:
        return name, f"{dtype} of any shape"
    return name, f"{dtype} [{', '.join(_length(wire, dim) for _, _, dim in wire.fields(tensor[2], _DIM))}]"


def _length(wire: Wire, span: Span) -> str:
    """Return a length along an axis: a number, or the name of one that is not fixed."""
    length = "?"
    for number, _, value in wire.fields(span, {1: (VARINT,), 2: (BYTES,)}):
        length = str(signed(value)) if number == 1 else wire.text(value)
    return length
