"""Where a parameter is not what a manifest says: its dtype, its shape, and which of its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paratree.core.errors import CorruptFileError, MissingPackageError, UnreadableError, printable
from paratree.verbs._places import places_of
from paratree.verbs.fingerprint import arrays_of, digests
from paratree.verbs.listing import reason_of
from paratree.verbs.reading import plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from paratree.core.param import Param
    from paratree.core.tree import ParamTree
    from paratree.verbs._places import Place
    from paratree.verbs.fingerprint import Chunk, ParamFingerprint

    Hashed = tuple[Chunk, bytes | str]

CHANGED, MISSING, UNEXPECTED, UNREADABLE = "changed", "missing", "unexpected", "unreadable"
DTYPE, SHAPE, TIES = "dtype", "shape", "ties"
_UNREAD = (UnreadableError, MissingPackageError, CorruptFileError, OSError)
_MOST_PLACES = 3  # that a text names


@dataclass(frozen=True, slots=True)
class Failure:
    """One place where a source is not what the manifest says.

    Attributes:
        what: ``"changed"``, ``"missing"``, ``"unexpected"``, ``"dtype"``, ``"shape"``, ``"ties"`` or
            ``"unreadable"``.
        name: the parameter, of a tied group the first; ``None`` for a file.
        text: what is so, in words.
        start: first byte of the parameter's values, row-major and little-endian, that may have changed.
        stop: the byte after the last of them.
        places: the ranges of files that they come from; of a file that cannot be opened, that file.
        names: of a tied group, its names; of a file, the parameters that its index says are in it.
    """

    what: str
    name: str | None
    text: str
    start: int | None = None
    stop: int | None = None
    places: tuple[Place, ...] = ()
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        subject = self.places[0].file if self.name is None else self.name or '""'
        return f"{printable(subject)}: {printable(self.text)}"


def of_structure(name: str, one: ParamFingerprint, param: Param | None) -> Iterator[Failure]:
    """Say whether a parameter is there, can be read, and has its dtype and shape."""
    if param is None:
        yield Failure(MISSING, name, f"missing: {one.dtype} {[*one.shape]} in the manifest")
    elif param.array.problem is not None:
        yield Failure(UNREADABLE, name, f"unreadable: {reason_of(param.array.problem)}")
    else:
        if param.dtype != one.dtype:
            yield Failure(DTYPE, name, f"other dtype: {param.dtype}, {one.dtype} in the manifest")
        if param.shape != one.shape:
            fact = f"other shape: {[*param.shape]}, {[*one.shape]} in the manifest"
            yield Failure(SHAPE, name, fact)


def of_values(
    tree: ParamTree, wanted: Mapping[str, ParamFingerprint], how: Mapping[str, Any]
) -> tuple[dict[str, list[Failure]], int]:
    """Read a tree of the dtypes and shapes that are wanted.

    Args:
        tree: parameters that can be read.
        wanted: what each name should be.
        how: threads, executor and progress.

    Returns:
        The failures of each name that has some, and the bytes that were read.
    """
    found = plan(tree)
    hashed: dict[str, list[Hashed]] = {name: [] for name in found.params}
    nbytes = 0
    for chunk, digest in digests(arrays_of(found.params, {}), caught=_UNREAD, **how):
        hashed[chunk.name].append((chunk, digest))
        nbytes += chunk.nbytes
    failures = {
        name: [*_of_chunks(name, hashed[first], wanted[name].chunks, tree.source)]
        for name, first in found.first.items()
    }
    return {name: some for name, some in failures.items() if some}, nbytes


def _of_chunks(name: str, hashed: Sequence[Hashed], wanted: Sequence[str], source: str) -> Iterator[Failure]:
    """Yield a failure for each range that is not what it was, or cannot be read for one reason."""
    bad = [
        (place, digest if isinstance(digest, str) else None, chunk)
        for place, ((chunk, digest), right) in enumerate(zip(hashed, wanted, strict=True))
        if digest != bytes.fromhex(right)
    ]
    for (_, reason), group in groupby(enumerate(bad), lambda item: (item[1][0] - item[0], item[1][1])):
        chunks = [chunk for _, (_, _, chunk) in group]
        first, last = chunks[0], chunks[-1]
        width = first.nbytes // (first.stop - first.start)
        start, stop = first.start * width, last.stop * width
        places = places_of(first.array, first.start, last.stop)
        what = CHANGED if reason is None else UNREADABLE
        fact = f"{what} between byte {start} and byte {stop} of its values{_where(places, source)}"
        text = fact if reason is None else f"{fact}: {reason}"
        yield Failure(what, name, text, start, stop, places)


def _where(places: Sequence[Place], source: str) -> str:
    """Return the ranges of files in brackets; that it is the source itself need not be said."""
    words = []
    for place in places[:_MOST_PLACES]:
        file = "the file" if place.file == source else Path(place.file).name
        if place.start is not None:
            words.append(f"byte {place.start} to {place.stop} of {file}")
        elif place.file != source:
            words.append(f"in {file}")
    more = [f"{len(places) - _MOST_PLACES} more"] if len(places) > _MOST_PLACES else []
    return f" ({', '.join([*words, *more])})" if words else ""
