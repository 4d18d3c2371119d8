"""The file of a manifest: JSON, a line for each parameter, each hash of which can be computed from others.

So a manifest that was damaged contradicts itself, and is refused: it says nothing about the checkpoint.
"""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring_ascii as quoted
from math import prod
from typing import TYPE_CHECKING

from paratree import __version__
from paratree.core.dtypes import is_known
from paratree.core.errors import CorruptFileError, printable
from paratree.core.names import KINDS
from paratree.files.json import parse_object
from paratree.files.local import LocalFile, read
from paratree.verbs import fingerprint as hashing
from paratree.verbs.fingerprint import ParamFingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    Params = Mapping[str, ParamFingerprint]
    Ties = tuple[tuple[str, ...], ...]

SCHEMA = 1
_LARGEST = 100_000_000  # bytes; a parameter takes about 250
_MOST_AXES = 64
_LARGEST_SIZE = (1 << 63) - 1
_HASH = re.compile("[0-9a-f]{64}")
_AGAIN = "make it again with 'paratree manifest'"
_NEWER = "a newer paratree may know it"


def lines(params: Params, kinds: Mapping[str, str], ties: Ties, total: str) -> Iterator[str]:
    """Yield the lines of the file."""
    head = {
        "schema": SCHEMA,
        "paratree": __version__,
        "hash": "blake3",
        "chunk": hashing.CHUNK,
        "total": total,
    }
    yield "{"
    for key, value in head.items():
        yield f" {quoted(key)}: {json.dumps(value)},"
    yield f' "ties": {json.dumps(ties)},'
    yield ' "params": {'
    last = len(params) - 1
    for place, (name, one) in enumerate(params.items()):
        entry = {"dtype": one.dtype, "shape": one.shape, "kind": kinds[name], "hash": one.hash}
        row = json.dumps({**entry, "chunks": one.chunks})
        yield f"  {quoted(name)}: {row}{',' * (place < last)}"
    yield " }"
    yield "}"


def parse(path: str) -> tuple[dict[str, ParamFingerprint], dict[str, str], Ties, str]:
    """Return the parameters of a manifest, their kinds, the tied groups and the hash of all.

    Raises:
        SourceNotFoundError: there is no such file.
        CorruptFileError: it is no manifest, or a damaged one.
    """
    file = LocalFile(path)
    try:
        if file.size > _LARGEST:
            raise _fault(path, f"{file.size} bytes are too many")
        found = parse_object(file, read(file, 0, file.size))
    except CorruptFileError as error:
        fact = f"it is no manifest: {error.reason}"
        raise CorruptFileError(path, fact, offset=error.offset, advice=_AGAIN) from None
    finally:
        file.close()
    _check_head(path, found)
    entries = found.get("params")
    if not isinstance(entries, dict) or not entries:
        raise _fault(path, "it lists no parameters")
    params = {name: _param(path, name, entry) for name, entry in entries.items()}
    total = found.get("total")
    if total != hashing.hash_of_source(params):
        raise _fault(path, "its total is not the hash of its parameters")
    kinds = {name: entry["kind"] for name, entry in entries.items()}
    return params, kinds, _ties(path, found.get("ties"), params), total


def _check_head(path: str, found: dict[str, Any]) -> None:
    if "schema" not in found or "chunk" not in found:
        raise _fault(path, "it is no manifest")
    for key, known in (("schema", SCHEMA), ("hash", "blake3"), ("chunk", hashing.CHUNK)):
        if type(found.get(key)) is not type(known) or found[key] != known:
            raise _fault(path, f"its {key} is {found.get(key)!r:.40}, not {known!r}", advice=_NEWER)


def _param(path: str, name: str, entry: object) -> ParamFingerprint:
    """Return an entry whose hash is that of its chunks."""
    if not isinstance(entry, dict):
        raise _fault(path, "its entry is no object", name)
    dtype, shape, kind = (entry.get(key) for key in ("dtype", "shape", "kind"))
    chunks, found = entry.get("chunks"), entry.get("hash")
    if not isinstance(dtype, str) or not is_known(dtype):
        raise _fault(path, f"{dtype!r:.40} is no dtype", name, _NEWER)
    if not isinstance(shape, list) or not _is_shape(shape):
        raise _fault(path, f"{shape!r:.60} is no shape", name)
    if kind not in KINDS:
        raise _fault(path, f"{kind!r:.40} is no kind", name)
    if not isinstance(chunks, list) or not all(_is_hash(chunk) for chunk in chunks):
        raise _fault(path, "its chunks are no hashes", name)
    lengths = tuple(shape)
    size = hashing.canonical_size(dtype, lengths)
    if len(chunks) != -(-size // hashing.CHUNK):
        raise _fault(path, f"it has {len(chunks)} chunks for {size} bytes", name)
    if found != hashing.hash_of_param(dtype, lengths, map(bytes.fromhex, chunks)):
        raise _fault(path, "its hash is not that of its dtype, shape and chunks", name)
    return ParamFingerprint(lengths, dtype, size, found, tuple(chunks))


def _is_shape(shape: list[object]) -> bool:
    lengths = [n for n in shape if type(n) is int and 0 <= n <= _LARGEST_SIZE]
    return len(lengths) == len(shape) <= _MOST_AXES and prod(lengths) <= _LARGEST_SIZE


def _is_hash(found: object) -> bool:
    return isinstance(found, str) and _HASH.fullmatch(found) is not None


def _ties(path: str, found: object, params: Params) -> Ties:
    """Return groups of names, none of which is in two of them."""
    if not isinstance(found, list) or not all(isinstance(group, list) and len(group) > 1 for group in found):
        raise _fault(path, "its ties are no groups of names")
    names = [name for group in found for name in group]
    if not all(isinstance(name, str) and name in params for name in names) or len(set(names)) != len(names):
        raise _fault(path, "its ties are not of its parameters, each in one group")
    for first, *others in found:
        if any(params[other].hash != params[first].hash for other in others):
            raise _fault(path, "names of one group have other hashes", first)
    return tuple(tuple(group) for group in found)


def _fault(path: str, reason: str, name: str | None = None, advice: str = _AGAIN) -> CorruptFileError:
    return CorruptFileError(path, printable(reason), member=name, advice=advice)
