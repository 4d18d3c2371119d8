"""Weights of what ``torch.export.save`` wrote (``.pt2``): storages as they lie, tensors described in JSON.

Layout: ``torch.export.pt2_archive`` (2.13). ``ROOT/data/weights/MODEL_weights_config.json`` says for each
name which member holds its storage, and dtype, sizes, strides and offset; ``data/constants`` has the same for
constants. The program itself (``models/MODEL.json``) and compiled libraries are not looked at.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.core.names import BUFFER, OTHER, PARAMETER
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.json import parse_object
from paratree.formats._torch_storages import is_big_endian
from paratree.formats._torch_tensors import StorageRecord, TensorRecord, array_of, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.files.local import LocalFile
    from paratree.files.zip import Member

_MARK = "archive_format"
_WEIGHTS, _CONSTANTS = "data/weights/", "data/constants/"
_CONFIGS = {_WEIGHTS: "_weights_config.json", _CONSTANTS: "_constants_config.json"}
_LARGEST_CONFIG = 100_000_000  # bytes
_STRIDED = 7
_DTYPES = {  # number of torch.export's schema -> dtype
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16",
    29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu", 34: "uint32", 35: "uint64",
}  # fmt: skip
_EARLIER = "serialized_state_dict.pt"


def export_root(members: dict[str, Member]) -> str | None:
    """Return the folder of an exported program in an archive, or ``None`` if it is none."""
    for name in members:
        root = name.removesuffix(_MARK)
        if root != name and root.count("/") == 1 and root + "archive_version" in members:
            return root
    return None


def is_earlier_export(members: dict[str, Member]) -> bool:
    """Tell whether an archive is what ``torch.export.save`` wrote before torch 2.8."""
    return _EARLIER in members


def open_export(file: LocalFile, members: dict[str, Member], root: str) -> ParamTree:
    """Describe every weight and constant of an exported program.

    Raises:
        CorruptFileError: the descriptions contradict themselves or the archive, or there are none.
    """
    configs = [
        (folder, name, name[len(root + folder) : -len(ending)])
        for folder, ending in _CONFIGS.items()
        for name in members
        if name.startswith(root + folder) and name.endswith(ending)
    ]
    if not configs:
        raise CorruptFileError(
            file.path, "the archive of torch.export holds no weights, only a compiled program",
            advice="open the checkpoint that it was made from",
        )  # fmt: skip
    big_endian = is_big_endian(members, root, file.path)
    several = len({model for _, _, model in configs}) > 1
    params: dict[str, Param] = {}
    for folder, config, model in configs:
        for key, facts in _entries(file, members[config]):
            name = f"{model}.{key}" if several else key
            name = f"constants.{name}" if name in params else name
            params[name] = _param(name, facts, file, members, root + folder, big_endian)
    return ParamTree(params, Origin(file.path, "PyTorch export", closers=[file.close]))


def _entries(file: LocalFile, member: Member) -> list[tuple[str, dict[str, Any]]]:
    if member.size > _LARGEST_CONFIG:
        raise CorruptFileError(file.path, f"{member.size} bytes are too many", member=member.name)
    config = parse_object(file, member.bytes(), 0, member.name).get("config")
    if not isinstance(config, dict) or not all(isinstance(facts, dict) for facts in config.values()):
        raise CorruptFileError(file.path, "no description of each tensor", member=member.name)
    return list(config.items())


def _param(
    name: str, facts: dict[str, Any], file: LocalFile, members: dict[str, Member], folder: str, big: bool
) -> Param:
    held, meta = members.get(folder + str(facts.get("path_name"))), facts.get("tensor_meta")
    if held is None:
        raise CorruptFileError(file.path, "the archive does not hold the values of this tensor", member=name)
    if not isinstance(meta, dict):  # an object that is no tensor
        record = TensorRecord(None, 0, (), ())
        record.problem = "a pickled object of the program; it is no tensor"
        return Param(name, array_of(record, None, file, name, big), OTHER)
    try:
        record = _record(meta, held)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(
            file.path, f"the description is none of a tensor ({type(error).__name__}: {str(error)[:60]})",
            member=name,
        ) from None  # fmt: skip
    if facts.get("use_pickle"):
        record.problem = "a subclass of tensor, pickled; save the state_dict with torch.save"
    elif meta.get("layout") != _STRIDED:
        record.problem = "it has no dense values; make it dense in torch"
    kind = PARAMETER if facts.get("is_param") else BUFFER if _WEIGHTS in folder else OTHER
    return Param(
        name,
        array_of(record, held.source(), file, name, big),
        kind,
        trainable=meta.get("requires_grad") is True,
    )


def _record(meta: dict[str, Any], held: Member) -> TensorRecord:
    dtype = _DTYPES[meta["dtype"]]
    storage = StorageRecord(held.name, dtype, held.size // width(dtype))
    sizes, strides = ([one["as_int"] for one in meta[what]] for what in ("sizes", "strides"))
    return TensorRecord(storage, meta["storage_offset"]["as_int"], sizes, strides)
