"""A manifest: what is in a source, to tell later whether a file or a model still holds it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paratree.core.errors import UnreadableError, printable
from paratree.files.atomic import replacing
from paratree.verbs import _manifest_file
from paratree.verbs._source_files import NO_FILES, SourceFiles, files_of
from paratree.verbs.fingerprint import fingerprint
from paratree.verbs.reading import opened, selected

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Executor

    from paratree.core.select import Selector
    from paratree.engine import Progress
    from paratree.verbs.fingerprint import ParamFingerprint


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """The parameters of a source, by content; equal if the names are the same, and the content of each.

    Attributes:
        params: name -> dtype, shape and content hashes, in the order of the source.
        kinds: name -> ``"parameter"``, ``"buffer"``, ``"state"`` or ``"other"``, as the source told.
        ties: the tied groups of the source; empty where its format records none.
        hash: that of all, which :func:`paratree.fingerprint` gives, too.
        files: those of the source, none of which a manifest may take the place of.
    """

    params: Mapping[str, ParamFingerprint]
    kinds: Mapping[str, str]
    ties: tuple[tuple[str, ...], ...]
    hash: str
    files: SourceFiles = NO_FILES

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return f"<Manifest {self.hash}: {len(self.params)} parameters>"

    @property
    def text(self) -> str:
        """The manifest as a JSON document, which :func:`paratree.verify` reads from a file."""
        rows = _manifest_file.lines(self.params, self.kinds, self.ties, self.hash)
        return "".join(f"{row}\n" for row in rows)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the JSON document to a file, whole or not at all.

        Args:
            path: the file.
            force: whether a file that is there may be replaced.

        Raises:
            FileExistsError: there is a file, and ``force`` is false.
            MismatchError: the file is one of the source itself.
            OSError: the path is no place for a file, or the disk is full.

        Example:
            >>> pt.manifest("model.pt").save("model.manifest.json")  # doctest: +SKIP
        """
        self.files.check_is_none(path)
        with replacing(path, force=force) as file:
            file.write(self.text.encode("ascii"))


def manifest(
    source: object,
    *,
    select: Selector | None = None,
    kind: str | Iterable[str] | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Hash the content of every parameter, for :func:`paratree.verify`: of this file, another, or a model.

    The hashes are those of :func:`paratree.fingerprint`: neither the container counts nor the order of the
    names. Left out is what belongs to no model and has no numbers, as texts.

    Args:
        source: a path, a tree or a subtree of one, or a live model.
        select: only parameters that fit, as in :meth:`paratree.ParamTree.select`.
        kind: only these kinds, as ``"parameter"``; every kind by default, optimizer state included.
        threads: number of threads; as many as the process may use by default.
        executor: where to run instead of on threads of our own.
        progress: called with the bytes that are done and the bytes of all.

    Returns:
        The manifest; its ``save`` writes it to a file.

    Raises:
        UnreadableError: a parameter cannot be read, or there is none.
        NoSuchParamError: nothing fits the selection.
        CorruptFileError: the source is damaged.

    Example:
        >>> pt.manifest(net).save("net.manifest.json")  # doctest: +SKIP
    """
    with opened(source) as tree:
        chosen = selected(tree, select, kind)
        found = fingerprint(chosen, threads=threads, executor=executor, progress=progress)
        if found.problems:
            name, problem = next(iter(found.problems.items()))
            others = f", and {len(found.problems) - 1} others" if len(found.problems) > 1 else ""
            raise UnreadableError(
                f"{printable(tree.source)}: {printable(name)}{others} cannot be read: {printable(problem)}; "
                "select what can be"
            )
        if not found.params or found.hash is None:
            raise UnreadableError(
                f"{printable(tree.source)}: there is no parameter that a manifest could list"
            )
        kinds = {name: chosen[name].kind for name in found.params}
        ties = tuple(
            names for group in chosen.ties if len(names := tuple(n for n in group if n in found.params)) > 1
        )
        files = files_of(tree)
    return Manifest(found.params, kinds, ties, found.hash, files)


def manifest_of(path: str | os.PathLike[str]) -> Manifest:
    """Return the manifest that a file holds.

    Raises:
        SourceNotFoundError: there is no such file.
        CorruptFileError: it is no manifest, or a damaged one.
    """
    return Manifest(*_manifest_file.parse(os.fspath(path)))
