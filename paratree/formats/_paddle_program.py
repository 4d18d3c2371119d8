"""What a Paddle program says of the variables whose values lie in a ``.pdiparams`` beside it.

Layout: framework.proto (``.pdmodel``), the JSON of PIR programs (``.json``) and the pickle
``.pdiparams.info``, as Paddle 3.3 writes them. A ``.pdiparams`` holds the persistable variables in the order
of their names.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.files.json import parse_object
from paratree.files.local import read
from paratree.files.pickle import load
from paratree.files.protobuf import BYTES, VARINT, Wire, signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from paratree.files.local import LocalFile
    from paratree.files.protobuf import Span

DTYPES = {  # VarType.Type -> name of the dtype
    0: "bool", 1: "int16", 2: "int32", 3: "int64", 4: "float16", 5: "float32", 6: "float64", 20: "uint8",
    21: "int8", 22: "bfloat16", 23: "complex64", 24: "complex128", 32: "float8_e4m3fn", 33: "float8_e5m2",
    36: "uint16", 37: "uint32", 38: "uint64",
}  # fmt: skip
TENSOR_DESC = {1: (VARINT,), 2: (VARINT, BYTES)}  # dtype, dims
_LARGEST_PROGRAM = 100_000_000  # bytes of JSON, which is read whole
_DENSE = 7  # VarType.Type of a variable that is a tensor
_BLOCK = {1: (BYTES,)}  # of ProgramDesc
_VARS, _OPS = 3, 4  # of BlockDesc
_VAR = {1: (BYTES,), 2: (BYTES,), 3: (VARINT,), 5: (VARINT,)}  # name, type, persistable, is_parameter
_VAR_TYPE = {1: (VARINT,), 3: (BYTES,)}  # type, dense tensor
_OP = {1: (BYTES,), 3: (BYTES,)}  # inputs, type
_OP_INPUT = {1: (BYTES,), 2: (BYTES,)}  # parameter, arguments
_BEHIND = 1 << 10
_STATISTICS = ("Mean", "Variance")  # inputs of a batch norm that it updates
_PIR_STATISTICS = (1, 2)  # the same, by their places
_PIR_DTYPES = {
    "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64", "i8": "int8", "u8": "uint8",
    "i16": "int16", "i32": "int32", "i64": "int64", "bool": "bool", "index": "int64", "c64": "complex64",
    "c128": "complex128", "f8e4m3fn": "float8_e4m3fn", "f8e5m2": "float8_e5m2",
}  # fmt: skip


class Variable:
    """A variable: its name, and as much as the program says of it.

    Attributes:
        dtype: name of its dtype, or ``None``.
        shape: length along each axis, negative where it is not fixed, or ``None``.
        trainable: whether training changes it, or ``None``.
        statistic: whether a batch norm keeps it.
        place: number of the operator that uses it first, and its place there, or ``None``.
    """

    __slots__ = ("dtype", "name", "place", "shape", "statistic", "trainable")

    def __init__(self, name: str, dtype: str | None, shape: list[int] | None) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape
        self.trainable: bool | None = None
        self.statistic = False
        self.place: tuple[int, int] | None = None

    def note_use(self, operator: int, place: int, *, statistic: bool) -> None:
        """Note that an operator uses it: what a batch norm keeps stands behind what it learned."""
        self.statistic |= statistic
        if self.place is None:
            self.place = (operator, place + (_BEHIND if statistic else 0))


# Programs of Paddle 1 and 2


def variables_of_program(file: LocalFile) -> list[Variable]:
    """Return the persistable tensors of a ``ProgramDesc``, by name.

    Raises:
        CorruptFileError: the file is no such protocol buffer.
    """
    wire = Wire(file)
    found: dict[str, Variable] = {}
    for _, _, block in wire.fields(None, _BLOCK):
        for _, _, span in wire.fields(block, {_VARS: (BYTES,)}):
            if (variable := _variable(wire, span)) is not None:
                found.setdefault(variable.name, variable)
    operator = 0
    for _, _, block in wire.fields(None, _BLOCK):
        for _, _, span in wire.fields(block, {_OPS: (BYTES,)}):
            operator += 1
            for parameter, name in _uses(wire, span):
                if name in found:  # inputs are in the order of the alphabet: Bias, Mean, Scale
                    found[name].note_use(operator, parameter == "Bias", statistic=parameter in _STATISTICS)
    return sorted(found.values(), key=lambda variable: variable.name)


def _variable(wire: Wire, span: Span) -> Variable | None:
    fields = {number: value for number, _, value in wire.fields(span, _VAR)}
    if not fields.get(3) or 1 not in fields or 2 not in fields:
        return None
    kind = {number: value for number, _, value in wire.fields(fields[2], _VAR_TYPE)}
    if kind.get(1) != _DENSE or 3 not in kind:
        return None
    dtype, shape = None, None
    for _, _, tensor in wire.fields(kind[3], {1: (BYTES,)}):
        number, shape = tensor_desc(wire, tensor)
        dtype = DTYPES.get(number)
    return Variable(wire.text(fields[1]), dtype, shape)


def tensor_desc(wire: Wire, span: Span) -> tuple[int, list[int]]:
    """Return the number of the dtype and the dims of a ``TensorDesc``; -1 if it has no dtype."""
    dtype, dims = -1, []
    for number, kind, value in wire.fields(span, TENSOR_DESC):
        if number == 1:
            dtype = value
        else:
            dims += [signed(n) for n in (wire.varints(value) if kind == BYTES else [value])]
    return dtype, dims


def _uses(wire: Wire, span: Span) -> Iterator[tuple[str, str]]:
    """Yield what an operator uses: the name of its input, and that of a variable."""
    for number, _, value in wire.fields(span, _OP):
        if number == 1:
            parameter = ""
            for part, _, text in wire.fields(value, _OP_INPUT):
                if part == 1:
                    parameter = wire.text(text)
                else:
                    yield parameter, wire.text(text)


# Programs of Paddle 3


def variables_of_pir(file: LocalFile) -> list[Variable] | None:
    """Return the parameters of a PIR program, by name; ``None`` if it is none, or of an unknown form.

    Raises:
        CorruptFileError: the file is too large, or no JSON.
    """
    if file.size > _LARGEST_PROGRAM:
        raise CorruptFileError(file.path, f"{file.size} bytes are too many for a program")
    root = parse_object(file, read(file, 0, file.size))
    try:
        if root["base_code"]["magic"] != "pir":
            return None
        operators = [
            op for region in root["program"]["regions"] for block in region["blocks"] for op in block["ops"]
        ]
        found: dict[int, Variable] = {}
        for op in operators:
            if op["#"] == "p":
                found[op["O"]["%"]] = _pir_variable(op)
        _note_pir_uses(operators, found)
    except (AttributeError, KeyError, TypeError, IndexError, ValueError):
        return None
    if len({variable.name for variable in found.values()}) != len(found):
        return None
    return sorted(found.values(), key=lambda variable: variable.name)


def _pir_variable(op: dict[str, Any]) -> Variable:
    name, tensor = op["A"][3], op["O"]["TT"]["D"]
    shape = tensor[1]
    if not isinstance(name, str) or not all(type(n) is int for n in shape):
        raise TypeError("a parameter has no name, or no shape")
    variable = Variable(name, _PIR_DTYPES.get(tensor[0]["#"].rpartition("t_")[2]), list(shape))
    variable.trainable = bool(op["OA"][2])
    return variable


def _note_pir_uses(operators: list[dict[str, Any]], found: dict[int, Variable]) -> None:
    for number, op in enumerate(operators):
        norm = "batch_norm" in op["#"]
        for place, value in enumerate(op.get("I") or []):
            if (used := found.get(value["%"])) is not None:
                used.note_use(number, place, statistic=norm and place in _PIR_STATISTICS)


# The names that the layers have


def structured_names(file: LocalFile) -> dict[str, tuple[str, bool | None]]:
    """Return name and trainability in the model for the variables of a ``.pdiparams.info``; a pickle.

    Raises:
        CorruptFileError: it is no pickle.
        UnsafeFileError: it would call code.
    """
    root, _ = load(file, 0, lambda target, args: NotImplemented, _no_persistent, length=file.size)
    found = {}
    for name, about in root.items() if isinstance(root, dict) else ():
        if (
            isinstance(name, str)
            and isinstance(about, dict)
            and isinstance(about.get("structured_name"), str)
        ):
            trainable = about.get("trainable")
            found[name] = (about["structured_name"], trainable if isinstance(trainable, bool) else None)
    return found


def _no_persistent(pid: Any) -> Any:
    raise ValueError("a persistent id where none belongs")
