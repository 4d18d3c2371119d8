"""GGUF: metadata, where each tensor is, then the tensors, each at a multiple of an alignment.

Specification: ``docs/gguf.md`` of ggml; split files as ``gguf-split`` of llama.cpp writes them. The header is
read here, whole vocabularies are passed over; quantised values are decoded by the package gguf.
"""

from __future__ import annotations

import re

from paratree.core.dtypes import BLOCKS
from paratree.core.errors import CorruptFileError
from paratree.core.names import BUFFER, OTHER, kind_of
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.folder import beside
from paratree.formats._gguf_header import MAGIC, Header
from paratree.formats._gguf_tensors import REFUSED, TYPES, stored_bytes, tensor_array

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.local import LocalFile
    from paratree.files.output import Output

NAME = "GGUF"
SUFFIXES = (".gguf",)
FOLDER = ("*-00001-of-*.gguf", "*.gguf")
LAZY = "yes; quantised blocks too"
TIES = "output.weight left out"
READS = "versions 2 and 3, both byte orders, every type of ggml, split files; metadata"
EXTRA = "gguf"
MAKES = "file"
WRITES = (
    "float32", "float16", "bfloat16", "float64", "int8", "int16", "int32", "int64",
    *(dtype for dtype in TYPES.values() if dtype in BLOCKS and dtype not in REFUSED),
)  # fmt: skip

_ALIGNMENT = 32  # if the file names none
_ENDING = "-{:05}-of-{:05}.gguf"
_BLOCK = re.compile(r"blk\.[0-9]{1,9}\.")
_ARCHITECTURE = "general.architecture"
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_TIED = frozenset((  # architectures whose output layer is the embedding when the file has none (llama.cpp)
    "arcee", "arctic", "bitnet", "bloom", "chameleon", "chatglm", "codeshell", "cohere2", "command-r", "deci",
    "dream", "ernie4_5", "exaone", "exaone4", "falcon", "falcon-h1", "gemma", "gemma2", "gemma3", "gemma3n",
    "glm4", "gpt2", "granite", "granitehybrid", "granitemoe", "grok", "hunyuan-dense", "hunyuan-moe", "jamba",
    "lfm2", "lfm2moe", "llada", "llama", "llama4", "mamba", "mamba2", "minicpm", "minicpm3", "mpt",
    "nemotron_h", "olmo", "openelm", "phi3", "plamo2", "plm", "qwen2", "qwen2vl", "qwen3", "qwen35",
    "qwen35moe", "qwen3moe", "qwen3next", "qwen3vl", "qwen3vlmoe", "refact", "seed_oss", "smallthinker",
    "smollm3", "starcoder", "starcoder2", "t5",
))  # fmt: skip


def sniff(file: LocalFile) -> bool:
    """Tell whether the file begins as GGUF does."""
    return file.head.startswith(MAGIC)


def open(file: LocalFile) -> ParamTree:
    """Read the header, of every part if the file is split, and return the tree.

    Raises:
        CorruptFileError: the header breaks the specification, or does not fit the file or the other parts.
        SourceNotFoundError: a part of a split file is missing.
    """
    parts = _parts(file)
    meta = parts[0][1].meta
    notes: list[str] = []
    params: dict[str, Param] = {}
    for part, header in parts:
        for name, array in _arrays(part, header, notes).items():
            if name in params:
                raise CorruptFileError(
                    part.path, "an earlier part of the split file has it, too", member=name
                )
            params[name] = Param(name, array, _kind(name, array.dtype, meta))
    if len(parts) > 1 and (number := meta.get("split.tensors.count")) != len(params):
        raise CorruptFileError(
            file.path, f"split.tensors.count is {number!s:.40}, and the parts hold {len(params)} tensors"
        )
    params = {name: params[name] for name in _model_order(params)}
    if _is_tied(params, meta):
        params[_OUTPUT] = Param(_OUTPUT, params[_EMBEDDING].array)
        notes.append(f"{_OUTPUT} is not stored: a model of {meta[_ARCHITECTURE]} then uses {_EMBEDDING}")
    form = NAME if len(parts) == 1 else f"{NAME}, {len(parts)} parts"
    return ParamTree(params, Origin(file.path, form, meta, notes, [part.close for part, _ in parts]))


def holds_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell whether a group is the embedding and the output layer of a model whose file then has no latter."""
    without = {name: param for name, param in tree.items() if name != _OUTPUT}
    return set(group) == {_EMBEDDING, _OUTPUT} and _is_tied(without, tree.meta)


def save(tree: ParamTree, output: Output) -> Sequence[str]:
    """Write version 3, little-endian; metadata of a GGUF file as it is, quantised blocks as they are."""
    from paratree.formats._gguf_written import write

    return write(tree, output)


def _parts(file: LocalFile) -> list[tuple[LocalFile, Header]]:
    """Return the file, or all parts of the split file that it is one of, with their headers, in order."""
    header = Header(file)
    count, number = (header.meta.get(key, 0) for key in ("split.count", "split.no"))
    if type(count) is not int or type(number) is not int or not 0 <= number < max(count, 1):
        raise CorruptFileError(file.path, "split.no and split.count are not numbers of a part")
    if count <= 1:
        return [(file, header)]
    name, ending = file.path.rpartition("/")[2], _ENDING.format(number + 1, count)
    if not name.endswith(ending):
        raise CorruptFileError(
            file.path, f"part {number + 1} of {count} of a split file, whose name does not end in {ending}",
            advice="give the parts their names back, so that one finds the others",
        )  # fmt: skip
    parts = []
    for i in range(count):
        other = f"{name.removesuffix(ending)}{_ENDING.format(i + 1, count)}"
        part = file if i == number else beside(file, other, links=True)
        its = header if i == number else Header(part)
        if (its.meta.get("split.no"), its.meta.get("split.count")) != (i, count):
            raise CorruptFileError(
                part.path, f"its metadata does not say that it is part {i + 1} of {count}",
                advice="parts of different files are mixed: fetch all of them again",
            )  # fmt: skip
        parts.append((part, its))
    return parts


def _arrays(file: LocalFile, header: Header, notes: list[str]) -> dict[str, LazyArray]:
    """Describe every tensor of a file; they must follow one another, each at a multiple of the alignment."""
    alignment = header.meta.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise CorruptFileError(file.path, f"general.alignment is {alignment!s:.40}, which is no power of two")
    if not header.tensors:
        return {}
    data = header.end + -header.end % alignment
    sizes = [stored_bytes(file, tensor) for tensor in header.tensors]
    _check_whole(file, header, data, sizes)
    arrays: dict[str, LazyArray] = {}
    for tensor in header.tensors:
        if tensor.name in arrays:
            raise CorruptFileError(
                file.path, "the name stands twice", offset=tensor.place, member=tensor.name
            )
        arrays[tensor.name] = tensor_array(file, tensor, data, header.big_endian)
    end = 0
    for offset, size, name in sorted(
        (t.offset, n, t.name) for t, n in zip(header.tensors, sizes, strict=True)
    ):
        if offset != end:
            how = "overlaps the tensor before it" if offset < end else "does not follow the tensor before it"
            raise CorruptFileError(file.path, how, offset=data + offset, member=name)
        end = offset + size + -size % alignment
    if (left := file.size - data - end) > 0:
        notes.append(f"{left} bytes follow the last tensor; nothing says what they are")
    return arrays


def _check_whole(file: LocalFile, header: Header, data: int, sizes: list[int]) -> None:
    """Refuse a file that ends before its tensors do: the first piece of a file cut in pieces looks so."""
    ends = (data + tensor.offset + size for tensor, size in zip(header.tensors, sizes, strict=True))
    if (end := max(ends)) > file.size:
        raise CorruptFileError(
            file.path, f"the file ends here, and its tensors at byte {end}", offset=file.size,
            advice="fetch it again; if it is one of several pieces, join them, in order: cat A B > WHOLE",
        )  # fmt: skip


def _model_order(params: dict[str, Param]) -> list[str]:
    """Return the names in the file's order, unless its blocks are sorted as text: 10 before 2.

    Models are converted from files whose writers sort so.
    """
    blocks = {name: name.split(".", 2)[1] for name in params if _BLOCK.match(name)}
    written = list(dict.fromkeys(blocks.values()))
    if written != sorted(written):
        return list(params)
    in_order = iter(sorted(blocks, key=lambda name: int(blocks[name])))
    return [next(in_order) if name in blocks else name for name in params]


def _kind(name: str, dtype: str, meta: dict[str, Any]) -> str:
    if meta.get("general.type") == "imatrix":  # statistics for quantising
        return OTHER
    return BUFFER if name.startswith("rope_") else kind_of(name, dtype)


def _is_tied(params: Mapping[str, Param], meta: Mapping[str, Any]) -> bool:
    """Tell whether the output layer is the embedding because the model has none of its own.

    A model whose outputs are pooled embeds texts or ranks them: it has no output layer.
    """
    architecture, is_model = meta.get(_ARCHITECTURE), meta.get("general.type", "model") == "model"
    if not isinstance(architecture, str) or architecture not in _TIED or not is_model:
        return False
    return _EMBEDDING in params and _OUTPUT not in params and f"{architecture}.pooling_type" not in meta
