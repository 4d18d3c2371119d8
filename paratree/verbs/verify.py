"""Whether a source still is what a manifest of it says, and if not, where."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paratree.core.array import RefusedArray
from paratree.core.errors import MismatchError, NoSuchParamError, printable
from paratree.core.names import OTHER
from paratree.core.param import Param
from paratree.core.select import tests_of
from paratree.engine import check_workers
from paratree.verbs._arguments import kinds_of, selector_of
from paratree.verbs._intact import TIES, UNEXPECTED, UNREADABLE, Failure, of_structure, of_values
from paratree.verbs._kept_ties import can_tie, parted, said, tied_anew
from paratree.verbs._places import Place
from paratree.verbs._salvaged import salvaged
from paratree.verbs.manifest import Manifest, manifest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from paratree.core.select import Selector
    from paratree.core.tree import ParamTree
    from paratree.engine import Progress
    from paratree.verbs._salvaged import Lost
    from paratree.verbs.fingerprint import ParamFingerprint

    Wanted = Mapping[str, ParamFingerprint]


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """What :func:`verify` found; it is true if the source is what the manifest says.

    Attributes:
        source: path, or the class of the live object.
        tensors: number of names in the manifest that fit the selection.
        intact: how many of them have the same dtype, shape and bytes.
        nbytes: bytes that were read and hashed.
        failures: where the source is not what the manifest says: files, then parameters in the order of the
            manifest, then what it does not list, then ties.
        notes: what is no failure and one should know, a sentence each.
    """

    source: str
    tensors: int
    intact: int
    nbytes: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether there is no failure."""
        return not self.failures

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        words = f"{self.intact} of {self.tensors} tensors intact"
        if self.failures:
            number = len(self.failures)
            places = "1 failure" if number == 1 else f"{number} failures, the first"
            words += f", {places}: {self.failures[0]}"
        return f"<Verification {printable(self.source)}: {words}>"


def verify(
    source: object,
    manifest: Manifest | str | os.PathLike[str],
    *,
    select: Selector | None = None,
    kind: str | Iterable[str] | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Read a source and say where it is not what a manifest says, whatever that was made of.

    What is damaged does not end it: of a checkpoint in shards with an index the other shards are read, and
    of a file the other parameters. That names are no longer tied is a failure, unless the format of the
    source cannot say that they are; that others are tied is not.

    Args:
        source: a path, a tree or a subtree of one, or a live model.
        manifest: what :func:`paratree.manifest` returned, or the path of a file that it was saved to.
        select: only parameters that fit, as in :meth:`paratree.ParamTree.select`, of the source and of the
            manifest.
        kind: only these kinds, likewise; every kind by default, optimizer state included.
        threads: number of threads; as many as the process may use by default.
        executor: where to run instead of on threads of our own.
        progress: called with the bytes that are done and the bytes of all.

    Returns:
        Whether all is as it was, and each place where it is not, with the range of bytes.

    Raises:
        SourceNotFoundError: there is no such source or manifest.
        UnknownSourceError: nothing recognises the source, a live object or a folder.
        CorruptFileError: the manifest is none, or damaged.
        NoSuchParamError: nothing fits the selection.
        MismatchError: an argument is not what it should be.

    Example:
        >>> pt.verify("model.safetensors", "model.manifest.json").passed  # doctest: +SKIP
        True
    """
    check_workers(threads, executor, progress)
    expected = _manifest(manifest)
    how = {"threads": threads, "executor": executor, "progress": progress}
    with salvaged(source) as (tree, lost):
        title = str(source) if tree is None else tree.source
        wanted, here = _scope(expected, tree, title, selector_of(select), kinds_of(kind))
        failures = [_of_file(one, wanted) for one in lost]
        if tree is None:
            return Verification(title, len(wanted), 0, 0, tuple(failures), ())
        gone = {name for one in lost for name in one.names} - here.keys()
        found = {
            name: [*of_structure(name, one, here.get(name))]
            for name, one in wanted.items()
            if name not in gone
        }
        same = {name: here[name] for name, some in found.items() if not some}
        changed, nbytes = of_values(tree.with_params(same), wanted, how)
        for name in found:
            failures += found[name] or changed.get(name, [])
        failures += _unexpected(wanted, here)
        broken, notes = _ties(tree, expected.ties, same)
    intact = len(same) - len(changed)
    return Verification(title, len(wanted), intact, nbytes, (*failures, *broken), tuple(notes))


def _manifest(given: object) -> Manifest:
    if isinstance(given, Manifest):
        return given
    if isinstance(given, str | os.PathLike):
        return manifest_of(given)
    kind = type(given).__name__
    raise MismatchError(f"manifest is a Manifest or the path of its file, not an object of type {kind}")


def _scope(
    expected: Manifest,
    tree: ParamTree | None,
    title: str,
    select: Selector | None,
    kinds: Iterable[str] | None,
) -> tuple[Wanted, Mapping[str, Param]]:
    """Return what fits the selection, of the manifest and of the source.

    A parameter that is in both fits if that of the source does: what is a buffer, a format may not say.
    """
    fits = tests_of(select, role=None, kind=kinds, dtype=None, ndim=None)
    held = {} if tree is None else dict(tree.items())
    listed = {name: _listed(name, expected) for name in expected.params}
    wanted = {
        name: expected.params[name] for name, param in listed.items() if fits(name, held.get(name, param))
    }
    here = {name: param for name, param in held.items() if fits(name, param)}
    if not wanted and not here:
        message = f"{printable(title)}: nothing fits the selection, and nothing in the manifest"
        raise NoSuchParamError(str(select or ""), (), title, message=message)
    return wanted, here


def _listed(name: str, expected: Manifest) -> Param:
    """Return a parameter of the manifest, for a selector to look at."""
    one = expected.params[name]
    return Param(name, RefusedArray(one.shape, one.dtype, "the manifest has no values"), expected.kinds[name])


def _of_file(lost: Lost, wanted: Wanted) -> Failure:
    names = tuple(name for name in lost.names if name in wanted)
    count = f"; its index says that it has {len(names)} of the parameters" if names else ""
    place = Place(lost.path, None, None)
    return Failure(UNREADABLE, None, f"unreadable: {lost.reason}{count}", places=(place,), names=names)


def _unexpected(wanted: Wanted, here: Mapping[str, Param]) -> Iterator[Failure]:
    for name, param in here.items():
        is_text = param.kind == OTHER and param.array.problem is not None
        if name not in wanted and not is_text:
            yield Failure(UNEXPECTED, name, "unexpected: the manifest does not list it")


def _ties(
    tree: ParamTree, ties: Sequence[tuple[str, ...]], same: Mapping[str, Param]
) -> tuple[list[Failure], list[str]]:
    """Return the ties that were lost, and what to say of those that the format cannot hold, and of others."""
    failures, notes, unsaid = [], [], []
    for group in parted(tree, ties, same):
        if can_tie(tree, group):
            others = " and ".join(group[1:])
            text = f"tied differently: with {others} it was one parameter"
            failures.append(Failure(TIES, group[0], text, names=group))
        else:
            unsaid.append(group)
    if unsaid:
        notes.append(said(unsaid, f"were tied, which {tree.format} cannot say"))
    if anew := tied_anew(tree, ties, same):
        notes.append(said(anew, "are tied, and were not where the manifest was made"))
    return failures, notes
