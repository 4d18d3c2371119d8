"""Content hashes: of every parameter, and of all of them, whatever file or model they are in."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, cast

import numpy as np

from paratree import engine
from paratree.core.array import parts_between, size_of
from paratree.core.dtypes import BITS, BLOCKS, nbytes, numpy_dtype
from paratree.core.errors import CorruptFileError, MissingPackageError, UnreadableError, printable
from paratree.core.names import OTHER
from paratree.verbs.listing import reason_of
from paratree.verbs.reading import flat, opened, plan, selected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Executor

    from paratree.core.array import LazyArray, QuantisedLazyArray
    from paratree.core.param import Param
    from paratree.core.select import Selector
    from paratree.engine import Progress
    from paratree.verbs.reading import Values

CHUNK = 1 << 24  # bytes
_PARAM = "paratree fingerprint 1: parameter"
_SOURCE = "paratree fingerprint 1: source"
_UNREAD = (UnreadableError, MissingPackageError)
_COMPLEX = {"complex64": 32, "complex128": 64}  # bits of one of its two numbers


@dataclass(frozen=True, slots=True)
class ParamFingerprint:
    """The content hash of one parameter.

    Attributes:
        shape: length along each axis.
        dtype: name of the dtype.
        nbytes: number of the bytes that are hashed.
        hash: 64 hexadecimal digits.
        chunks: the BLAKE3 hash of every 16 MiB of the bytes, in order, the last of what is left.
    """

    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    hash: str
    chunks: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """The content hashes of a source; equal if the names are the same, and the content of each.

    Attributes:
        source: path, or the class of the live object.
        format: name of the format or framework.
        hash: 64 hexadecimal digits for all parameters; ``None`` if one cannot be read.
        params: name -> its content hash, in the order of the source.
        problems: names that cannot be read -> the reason.
        skipped: names of what belongs to no model and has no numbers, as texts; they do not count.
    """

    source: str
    format: str
    hash: str | None
    params: Mapping[str, ParamFingerprint]
    problems: Mapping[str, str]
    skipped: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and self.hash is not None and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        words = [self.hash or "no hash of all", f"{len(self.params)} read"]
        words += [f"{len(self.problems)} not"] if self.problems else []
        return f"<Fingerprint {printable(self.source)}: {', '.join(words)}>"


def fingerprint(
    source: object,
    *,
    select: Selector | None = None,
    kind: str | Iterable[str] | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Fingerprint:
    r"""Hash the content of every parameter: the same for a live model and for any file of it.

    Neither the container counts, nor the order of the names, nor which of them are tied, nor what stands
    beside the parameters as plain values. The state of an optimizer in a file does count, which a live model
    has not: with ``kind=("parameter", "buffer")`` on both sides it does not. What is hashed, so that others
    can compute it:

    1. The bytes of a parameter are its values in row-major order, little-endian; a complex value is its real
       part and its imaginary part; a value narrower than a byte is the low bits of a byte whose others are
       zero. Of a quantised dtype they are its blocks as ggml lays them out, little-endian.
    2. The bytes are cut into chunks of 2^24, the last of what is left; each is hashed with plain BLAKE3.
    3. The hash of a parameter is BLAKE3 in its key derivation mode, with the context
       ``"paratree fingerprint 1: parameter"``, over the name of the dtype, the lengths of the axes, each
       after a space, a newline (``b"float32 30522 384\n"``), and the hashes of the chunks, 32 bytes each.
    4. The hash of the source is BLAKE3 with the context ``"paratree fingerprint 1: source"`` over every
       name, tied ones each, sorted by their UTF-8: its length in 8 bytes, little-endian, the UTF-8, and the
       hash of the parameter, 32 bytes.

    Args:
        source: a path, a tree or a subtree of one, or a live model.
        select: only parameters that fit, as in :meth:`paratree.ParamTree.select`.
        kind: only these kinds, as ``"parameter"``; every kind by default, optimizer state included.
        threads: number of threads; as many as the process may use by default.
        executor: where to run instead of threads of our own.
        progress: called with the bytes that are done and the bytes of all.

    Returns:
        The hashes; a parameter that cannot be read is listed with the reason.

    Raises:
        NoSuchParamError: nothing fits the selection.
        CorruptFileError: the file is damaged.
        MismatchError: an argument is not what it should be.

    Example:
        >>> pt.fingerprint(net) == pt.fingerprint("model.safetensors")  # doctest: +SKIP
        True
    """
    engine.check_workers(threads, executor, progress)
    with opened(source) as tree:
        chosen = selected(tree, select, kind)
        found = plan(chosen)
        unread = dict(found.problems)
        hashes = _hashes(found.params, unread, threads=threads, executor=executor, progress=progress)
    params = {name: hashes[first] for name, first in found.first.items() if first in hashes}
    reasons = {name: unread[first] for name, first in found.first.items() if first in unread}
    skipped = tuple(name for name in reasons if chosen[name].kind == OTHER)
    problems = {name: reason for name, reason in reasons.items() if name not in skipped}
    whole = None if problems else hash_of_source(params)
    return Fingerprint(tree.source, tree.format, whole, params, problems, skipped)


class Chunk:
    """A range of the values of an array."""

    __slots__ = ("array", "name", "start", "stop")

    def __init__(self, name: str, array: LazyArray, start: int, stop: int) -> None:
        self.name, self.array, self.start, self.stop = name, array, start, stop

    @property
    def nbytes(self) -> int:
        """Bytes that are hashed."""
        return _width(self.array) * (self.stop - self.start)


def _hashes(
    params: Mapping[str, Param],
    problems: dict[str, str],
    *,
    threads: int | None,
    executor: Executor | None,
    progress: Progress | None,
) -> dict[str, ParamFingerprint]:
    """Hash parameters, their chunks on several threads; add to ``problems`` those that cannot be read."""
    stored = arrays_of(params, problems)
    chunks: dict[str, list[bytes]] = {name: [] for name in stored}
    for chunk, digest in digests(stored, threads=threads, executor=executor, progress=progress):
        if isinstance(digest, str):
            problems.setdefault(chunk.name, digest)
        else:
            chunks[chunk.name].append(digest)
    return {
        name: _of_param(params[name], size_of(stored[name]) * _width(stored[name]), found)
        for name, found in chunks.items()
        if name not in problems
    }


def arrays_of(params: Mapping[str, Param], problems: dict[str, str]) -> dict[str, LazyArray]:
    """Return the arrays whose bytes are hashed; add to ``problems`` what has no canonical bytes."""
    stored = {name: _stored(param) for name, param in params.items()}
    for name in [name for name, array in stored.items() if array.dtype not in BITS]:
        problems[name] = f"no canonical bytes are defined for {stored.pop(name).dtype}"
    return stored


def digests(
    arrays: Mapping[str, LazyArray],
    *,
    caught: tuple[type[Exception], ...] = _UNREAD,
    threads: int | None,
    executor: Executor | None,
    progress: Progress | None,
) -> Iterator[tuple[Chunk, bytes | str]]:
    """Yield each chunk with its hash, or with why its values cannot be had, if that is caught."""
    total, done = sum(size_of(array) * _width(array) for array in arrays.values()), 0
    work = partial(_digest, caught)
    for chunk, digest in engine.run(work, _chunks(arrays), threads=threads, executor=executor):
        done += chunk.nbytes
        if progress is not None:
            progress(done, total)
        yield chunk, digest


def _stored(param: Param) -> LazyArray:
    """Return the array whose bytes are hashed."""
    return cast("QuantisedLazyArray", param.array).blocks if param.dtype in BLOCKS else param.array


def _shape(array: LazyArray) -> tuple[int, ...]:
    return cast("tuple[int, ...]", array.shape)  # of an array that can be read, every length is known


def _width(array: LazyArray) -> int:
    """Return the bytes of a value in the canonical form."""
    return nbytes(1, array.dtype)


def _chunks(arrays: Mapping[str, LazyArray]) -> Iterator[Chunk]:
    for name, array in arrays.items():
        size, step = size_of(array), CHUNK // _width(array)
        for start in range(0, size, step):
            yield Chunk(name, array, start, min(start + step, size))


def _digest(caught: tuple[type[Exception], ...], chunk: Chunk) -> tuple[Chunk, bytes | str]:
    """Return the hash of a chunk, or why its values cannot be had."""
    from blake3 import blake3

    hasher = blake3()
    try:
        for index in parts_between(_shape(chunk.array), chunk.start, chunk.stop):
            hasher.update(_canonical(chunk.array.read(index), chunk.array.dtype).data)
    except caught as error:
        return chunk, error.reason if isinstance(error, CorruptFileError) else reason_of(str(error))
    return chunk, hasher.digest()


def _canonical(values: Values, dtype: str) -> Values:
    """Return the bytes of values, as :func:`fingerprint` defines them."""
    raw = flat(values.astype(numpy_dtype(dtype), copy=False)).view(np.uint8)
    if BITS[dtype] < 8:
        return raw & np.uint8((1 << BITS[dtype]) - 1)
    if sys.byteorder == "big" and BITS[dtype] > 8:
        return raw.view(f"u{_COMPLEX.get(dtype, BITS[dtype]) // 8}").byteswap().view(np.uint8)
    return raw


def _of_param(param: Param, size: int, chunks: list[bytes]) -> ParamFingerprint:
    shape = cast("tuple[int, ...]", param.shape)
    found = hash_of_param(param.dtype, shape, chunks)
    return ParamFingerprint(shape, param.dtype, size, found, tuple(chunk.hex() for chunk in chunks))


def hash_of_param(dtype: str, shape: tuple[int, ...], chunks: Iterable[bytes]) -> str:
    """Return the hash of a parameter from those of its chunks."""
    from blake3 import blake3

    hasher = blake3(derive_key_context=_PARAM)
    hasher.update(" ".join([dtype, *map(str, shape)]).encode() + b"\n")
    hasher.update(b"".join(chunks))
    return hasher.hexdigest()


def canonical_size(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the number of bytes that are hashed of a parameter."""
    size = prod(shape)
    return nbytes(size, dtype) if dtype in BLOCKS else nbytes(1, dtype) * size


def hash_of_source(params: Mapping[str, ParamFingerprint]) -> str:
    """Return the hash of a source from those of its parameters."""
    from blake3 import blake3

    hasher = blake3(derive_key_context=_SOURCE)
    names = {name.encode("utf-8", "surrogatepass"): found for name, found in params.items()}
    for name in sorted(names):
        hasher.update(len(name).to_bytes(8, "little") + name + bytes.fromhex(names[name].hash))
    return hasher.hexdigest()
