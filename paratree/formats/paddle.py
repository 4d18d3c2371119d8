"""Paddle: ``.pdiparams`` of inference models, ``.pdparams`` and ``.pdopt`` of training; without Paddle.

A ``.pdiparams`` has no names: they come from the program beside it (``.pdmodel``, or ``.json`` since
Paddle 3) and, as in Paddle itself, from ``.pdiparams.info``, which knows the names in the model.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError, SourceNotFoundError
from paratree.core.names import BUFFER, kind_of
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.folder import beside
from paratree.formats._paddle_pickled import NAMES, open_pickled
from paratree.formats._paddle_program import (
    Variable,
    structured_names,
    variables_of_pir,
    variables_of_program,
)
from paratree.formats._paddle_stream import begins_as_stream, stream_arrays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from paratree.files.array import FileArray
    from paratree.files.local import LocalFile

NAME = "Paddle"
SUFFIXES = (".pdiparams", ".pdparams", ".pdopt")
FOLDER = ("inference.pdiparams", "*.pdiparams", "*.pdparams")
LAZY = "yes"
TIES = "tensors of one name in training checkpoints"
READS = "inference parameters with the program beside them, training checkpoints, optimizer state"
EXTRA = None
WRITES = ()

_PICKLED = (".pdparams", ".pdopt")
_PICKLE, _INTEGER = 0x80, 0x8A  # opcodes: protocol; a long integer, with which torch begins
_PROTOCOLS = (2, 3, 4)
_LAST = 1 << 16  # bytes at the end of a pickle, where the names of the tensors are


def sniff(file: LocalFile) -> bool:
    """Tell whether the file is a stream of tensors, or a pickle that says it is Paddle's.

    A pickle says so by the key of its tensors' names, at its end; without it, the suffix must.
    """
    return begins_as_stream(file) or _is_pickle(file)


def _is_pickle(file: LocalFile) -> bool:
    head = file.head
    if len(head) < 3 or head[0] != _PICKLE or head[1] not in _PROTOCOLS or head[2] == _INTEGER:
        return False
    if file.path.lower().endswith(_PICKLED):
        return True
    tail = bytearray(min(file.size, _LAST))
    file.readinto(memoryview(tail), file.size - len(tail))
    return NAMES.encode() in tail


def open(file: LocalFile) -> ParamTree:
    """Describe every tensor and return the tree; values stay in the file.

    Raises:
        CorruptFileError: a tensor contradicts itself or the program beside it.
        UnsafeFileError: a pickle would call code.
    """
    if _is_pickle(file):
        return open_pickled(file, "Paddle pickle")
    arrays = stream_arrays(file)
    variables, notes = _variables(file, arrays)
    names = _names(file, [variable.name for variable in variables], notes)
    params = {}
    for i in sorted(
        range(len(arrays)), key=lambda i: (variables[i].place is None, variables[i].place or (i, 0))
    ):
        name, trainable = names[i]
        kind = BUFFER if variables[i].statistic else kind_of(name, arrays[i].dtype)
        trainable = variables[i].trainable if trainable is None else trainable
        params[name] = Param(name, arrays[i], kind, trainable=None if kind == BUFFER else trainable)
    return ParamTree(params, Origin(file.path, NAME, {}, notes, [file.close]))


def _variables(file: LocalFile, arrays: list[FileArray]) -> tuple[list[Variable], list[str]]:
    """Return what the program beside the file says of each of its tensors; their numbers if there is none."""
    numbered = [Variable(str(i), None, None) for i in range(len(arrays))]
    name = file.path.rpartition("/")[2]
    stem = name.removesuffix(".pdiparams")
    programs: list[tuple[str, Callable[[LocalFile], list[Variable] | None]]] = [
        ("__model__" if name == "__params__" else f"{stem}.pdmodel", variables_of_program),
        (f"{stem}.json", variables_of_pir),
    ]
    for other, read_program in programs:
        program = _beside(file, other)
        if program is None:
            continue
        variables = read_program(program)
        program.close()
        if variables is None:
            return numbered, [f"tensors are numbered: {other} is no program of a form that is known"]
        _check(file, other, variables, arrays)
        return variables, []
    return numbered, [
        f"tensors are numbered: their names are in {stem}.pdmodel or {stem}.json, which is not there"
    ]


def _beside(file: LocalFile, name: str) -> LocalFile | None:
    try:
        return beside(file, name, links=True)
    except SourceNotFoundError:
        return None


def _check(file: LocalFile, program: str, variables: list[Variable], arrays: list[FileArray]) -> None:
    """Check that program and parameters belong together: as many, and each of the dtype and shape it says."""
    if len(variables) != len(arrays):
        reason = f"{len(arrays)} tensors are here and {len(variables)} variables in {program}"
        raise CorruptFileError(file.path, reason, advice="fetch both again, of one model")
    for variable, array in zip(variables, arrays, strict=True):
        shape = variable.shape or []
        same = len(shape) == len(array.shape) and all(
            n in (m, -1) for n, m in zip(shape, array.shape, strict=True)
        )
        if (variable.shape is not None and not same) or variable.dtype not in (None, array.dtype):
            reason = f"{array.dtype} {array.shape} is here, {variable.dtype} {tuple(shape)} in {program}"
            raise CorruptFileError(
                file.path, reason, offset=array.offset, member=variable.name,
                advice="fetch both again, of one model",
            )  # fmt: skip


def _names(file: LocalFile, names: list[str], notes: list[str]) -> list[tuple[str, bool | None]]:
    """Return names and trainability in the model, if a file beside knows all; else the program's names."""
    plain: list[tuple[str, bool | None]] = [(name, None) for name in names]
    other = file.path.rpartition("/")[2] + ".info"
    if (info := _beside(file, other)) is None:
        return plain
    known = structured_names(info)
    info.close()
    if not known.keys() >= {*names} or len({known[name][0] for name in names}) != len(names):
        return plain
    notes.append(f"names are those in the model, from {other}")
    return [known[name] for name in names]
