"""safetensors: an 8-byte length, a JSON header, then the raw arrays, without gaps.

Specification: the format section of the safetensors README (0.8.0); limits as in its reference reader.
"""

from __future__ import annotations

from math import prod

from paratree.core.dtypes import BITS
from paratree.core.errors import CorruptFileError
from paratree.core.names import kind_of, natural
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.array import file_array
from paratree.files.json import parse_object
from paratree.files.local import LocalFile, read
from paratree.files.shards import is_index, open_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from paratree.files.array import FileArray
    from paratree.files.output import Output

NAME = "safetensors"
SUFFIXES = (".safetensors", ".safetensors.index.json")
FOLDER = (
    "model.safetensors.index.json",
    "*.safetensors.index.json",
    "model.safetensors",
    "shard-00001-model-00001-of-*.safetensors",
    "*.safetensors",
)
LAZY = "yes"
TIES = "alias metadata"
READS = "every dtype of the specification, shard indexes and their folders, shards of processes"
EXTRA = None

_LARGEST_HEADER = 100_000_000  # the limit that the reference reader sets
_ENTRY = frozenset({"dtype", "shape", "data_offsets"})
_DTYPES = {  # word in the header -> name of the dtype
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32",
    "F64": "float64", "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F4": "float4_e2m1fn", "F6_E2M3": "float6_e2m3fn", "F6_E3M2": "float6_e3m2fn",
}  # fmt: skip
MAKES = "file"
WRITES = tuple(_DTYPES.values())


def sniff(file: LocalFile) -> bool:
    """Tell whether the file is a safetensors file or an index of some."""
    return file.head[8:9] == b"{" or is_index(file, ".safetensors")


def open(file: LocalFile) -> ParamTree:
    """Read the header, check it against the file, and return the tree.

    Raises:
        CorruptFileError: the header breaks the specification or does not fit the file.
    """
    if file.head[8:9] != b"{":
        return open_index(file, _open_one, NAME)
    if file.path.rpartition("/")[2].startswith("shard-"):
        from paratree.formats._dcp_safetensors import open_processes, shards_of_processes  # rarely needed

        if shards := shards_of_processes(file):
            return open_processes(file, shards, _open_one, NAME)
    return _open_one(file)


def holds_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell that every tied group can be written."""
    return True


def save(tree: ParamTree, output: Output) -> Sequence[str]:
    """Write the header, then the arrays, those of wide dtypes first: each at a multiple of its width."""
    from paratree.formats._safetensors_written import write

    return write(tree, output, {name: word for word, name in _DTYPES.items()})


def _open_one(file: LocalFile) -> ParamTree:
    length = int.from_bytes(read(file, 0, 8), "little")
    if length > min(_LARGEST_HEADER, file.size - 8):
        raise CorruptFileError(
            file.path,
            f"the header claims {length} bytes and the file has {file.size}",
            offset=0,
            member="header",
        )
    header = parse_object(file, read(file, 8, length), 8, "header")
    metadata = _metadata(file, header.pop("__metadata__", None))
    arrays = _arrays(file, header, 8 + length)
    names = _model_order(arrays)
    params = {name: Param(name, arrays[name], kind_of(name, arrays[name].dtype)) for name in names}
    for alias, name in metadata.items():
        if name in params and alias not in params and alias != "format":
            params[alias] = Param(alias, params[name].array, params[name].kind)
    meta = {key: value for key, value in metadata.items() if key not in params}
    return ParamTree(params, Origin(file.path, NAME, meta, closers=[file.close]))


def _metadata(file: LocalFile, found: object) -> dict[str, str]:
    if found is None:  # as MLX writes it where there is none; the reference reader takes it
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CorruptFileError(
            file.path, "__metadata__ is no map from text to text", offset=8, member="header"
        )
    return found


def _arrays(file: LocalFile, header: dict[str, Any], start: int) -> dict[str, FileArray]:
    """Describe every tensor; together they must cover the data exactly, none over another, no hole."""
    spans: list[tuple[int, int, str]] = []
    arrays = {}
    for name, entry in header.items():
        dtype, shape, low, high = _entry(file, name, entry)
        arrays[name] = array = file_array(file, start + low, shape, dtype, member=name)
        bits = prod(array.shape) * BITS[dtype]
        if bits != (high - low) * 8:
            raise CorruptFileError(
                file.path,
                f"{dtype} {'×'.join(map(str, shape)) or 'scalar'} takes {bits / 8:g} bytes, "
                f"its offsets give {high - low}",
                offset=start + low,
                member=name,
            )
        spans.append((low, high, name))
    end = 0
    for low, high, name in sorted(spans):
        if low != end:
            what = (
                "overlaps the tensor before it"
                if low < end
                else f"leaves a hole of {low - end} bytes before it"
            )
            raise CorruptFileError(file.path, what, offset=start + low, member=name)
        end = high
    if start + end != file.size:
        raise CorruptFileError(
            file.path, f"the tensors end here and the file goes on to byte {file.size}", offset=start + end
        )
    return arrays


def _entry(file: LocalFile, name: str, entry: object) -> tuple[str, list[Any], int, int]:
    """Return dtype, shape, begin and end of a header entry."""
    if not isinstance(entry, dict) or entry.keys() != _ENTRY:
        raise _entry_fault(file, name, "its entry is not dtype, shape and data_offsets")
    word, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(word, str) or not isinstance(shape, list) or not isinstance(offsets, list):
        raise _entry_fault(file, name, "its dtype, shape or data_offsets is of a wrong type")
    low, high = offsets if len(offsets) == 2 else (1, 0)
    if type(low) is not int or type(high) is not int or not 0 <= low <= high:
        raise _entry_fault(file, name, f"its data_offsets {str(offsets)[:60]} are no range")
    if word not in _DTYPES:
        raise CorruptFileError(
            file.path, f"the dtype {word[:40]} is not one of the specification", offset=8, member=name,
            advice="a newer paratree may know it",
        )  # fmt: skip
    return _DTYPES[word], shape, low, high


def _entry_fault(file: LocalFile, name: str, reason: str) -> CorruptFileError:
    return CorruptFileError(file.path, reason, offset=8, member=name)


def _model_order(arrays: dict[str, FileArray]) -> list[str]:
    """Return the names in the file's order, unless that is only the writer's sorting.

    The reference writer sorts by width of the dtype, then by name, which loses the model's order and puts
    layer 10 before layer 2. If the file is sorted so, numbers are put back in numeric order.
    """
    names = list(arrays)
    if names != sorted(names, key=lambda name: (-BITS[arrays[name].dtype], name)):
        return names
    return sorted(names, key=natural)
