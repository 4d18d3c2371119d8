"""Write a tree to a file or a folder: whole or not at all, bit for bit, ties kept."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paratree.core.cast import Cast
from paratree.core.dtypes import floating_dtype
from paratree.core.errors import MismatchError, UnreadableError, UnsupportedError, printable
from paratree.core.names import OTHER
from paratree.core.surgery import is_cast, untied
from paratree.core.tree import ParamTree
from paratree.engine import check_workers
from paratree.files.output import writing
from paratree.registry import format_to_write
from paratree.verbs._folders import write_folder
from paratree.verbs._sharded import bytes_of, check_index, parts_of_tree, write_shards
from paratree.verbs.fingerprint import fingerprint
from paratree.verbs.listing import reason_of
from paratree.verbs.reading import opened, selected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from paratree.core.param import Param
    from paratree.core.plugin import Format
    from paratree.core.select import Selector
    from paratree.engine import Progress

TIES = ("once", "twice")  # what may be done with tied names where a format has no ties


@dataclass(frozen=True, slots=True)
class Saved:
    """What :func:`save` wrote.

    Attributes:
        source: path, or the class of the live object.
        path: the file that was written, or the folder.
        format: name of its format.
        names: number of names that the file gives back.
        nbytes: size of the file, of all files together.
        ties: the tied groups that the file ties again.
        notes: what the file does not hold, and what one should know, a sentence each.
        verified: whether the file was read again and has the content of the source.
        files: of a checkpoint of several files, all, and the index last, which is the ``path``; of a folder,
            the files in it.
    """

    source: str
    path: str
    format: str
    names: int
    nbytes: int
    ties: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    verified: bool = False
    files: tuple[str, ...] = ()


def save(
    source: object,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    select: Selector | None = None,
    kind: str | Iterable[str] | None = None,
    dtype: str | None = None,
    ties: str | None = None,
    shard_size: int | str | None = None,
    like: object = None,
    force: bool = False,
    verify: bool = False,
    progress: Progress | None = None,
) -> Saved:
    """Write the parameters of a live model, a file or a tree to a file, atomically, bit for bit.

    The file takes its place when it is complete and on the disk; after an error, an interrupt or a power cut
    what was there before is still there. Values go through a buffer of a few megabytes, or are copied inside
    the kernel where they lie in a file as they will; the source may be the file that is replaced.

    Args:
        source: a path, a tree or a subtree of one, or a live model.
        path: the file, or the folder for a format of folders; a symbolic link stays, and what it points to is
            replaced.
        format: name of the format's module, as ``"safetensors"``; by default the suffix of the path decides;
            a format of folders, as ``"dcp"``, is named always.
        select: only parameters that fit, as in :meth:`paratree.ParamTree.select`.
        kind: only these kinds, as ``"parameter"``.
        dtype: cast floating values to this floating dtype, as ``"bf16"``, to nearest, ties to even; decode
            quantised ones; integers stay as they are. By default nothing is cast.
        ties: what becomes of tied names if the format has no ties: ``"once"`` writes the first name alone,
            ``"twice"`` every name with values of its own. Where it has ties, they are kept.
        shard_size: bytes, or a text as ``"5GB"``: what takes more is written as several files of at most so
            many bytes of values, and an index as Hugging Face has it; a larger parameter takes one by itself.
        like: for a format that writes into a copy of another file, that file, or a live model of its
            framework; by default the source, if it is of the format.
        force: whether a file that is there may be replaced; a folder, if it is a checkpoint of the format and
            every file in it is named as one of that, so that nothing else is lost.
        verify: read the file again, before it takes its place, and compare its fingerprint with that of the
            source; one of several files is read when it is complete.
        progress: called with the bytes that are done and the bytes of all.

    Returns:
        What was written.

    Raises:
        FileExistsError: there is a file, and ``force`` is false.
        UnsupportedError: the format cannot hold a dtype, a name or, without a choice, a tie; or none fits.
        UnreadableError: a parameter has no values.
        MismatchError: an argument has no meaning, or the file that was read again is not what was written.
        CorruptFileError: the source is damaged.
        OSError: the disk is full, or the path is no place for a file.

    Example:
        >>> pt.save(net, "model.safetensors")  # doctest: +SKIP
    """
    check_workers(None, None, progress)
    if ties is not None and ties not in TIES:
        raise MismatchError(f"ties is 'once', 'twice' or None, not {ties!r:.80}")
    target = os.fspath(path)
    writer = format_to_write(target, format)
    if writer.MAKES == "files" and not target.endswith(writer.SUFFIXES):
        target += writer.SUFFIXES[0]
    if dtype is not None:
        floating_dtype(dtype)
    most = None if shard_size is None else bytes_of(shard_size)
    if most is not None:
        check_index(target, writer)
    with opened(source) as tree:
        model = _like(tree, writer, like, source)
        chosen = selected(tree, select, kind)
        skipped = _skipped(chosen)
        held = _without(chosen, skipped) if skipped else chosen
        kept = _with_ties(held if dtype is None else held.cast(dtype), writer, ties)
        _check(kept, writer)
        told = _told(kept, progress)
        copies = writer.MAKES == "copy"
        check = (lambda path: _verify(kept, path, copies)) if verify and writer.MAKES != "files" else None
        parts = [] if most is None else parts_of_tree(kept, most)
        if len(parts) > 1:
            files, notes = write_shards(parts, target, writer, told, force=force)
            notes += _overflows(kept)
            if verify:
                _verify(kept, files[-1])
        elif writer.MAKES == "folder":
            files, notes = write_folder(kept, target, writer, told, force=force, check=check)
            notes += _overflows(kept)
        else:
            with writing(target, told, force=force, check=check) as output:
                made = writer.save(kept, output) if model is None else writer.save_copy(kept, output, model)
                notes = [*made, *_overflows(kept)]
            files = [*output.made, target]
            if verify and check is None:
                _verify(kept, target)
    if skipped:
        notes.append(f"no numbers, left out: {_some(skipped)}")
    size = sum(os.stat(file).st_size for file in files)  # noqa: PTH116
    in_folder = writer.MAKES == "folder"
    several = tuple(files) if in_folder or len(files) > 1 else ()
    final = target if in_folder else files[-1]
    return Saved(tree.source, final, writer.NAME, len(kept), size, kept.ties, tuple(notes), verify, several)


def _like(tree: ParamTree, writer: Format, like: object, source: object) -> object:
    """Return what a copy is made of; ``None`` for a format that makes files of its own."""
    if writer.MAKES != "copy":
        if like is not None:
            raise MismatchError(f"like is for formats that write into a copy, which {writer.NAME} does not")
        return None
    if like is None and not (tree.format.startswith(writer.NAME) and _is_there(source)):
        fact = f"{writer.NAME} is written into a copy of a file, or as a model has it"
        raise UnsupportedError(f"{printable(tree.source)}: {fact}; give one as like= (--like)")
    if like is None:
        return tree.source if isinstance(source, ParamTree | str | os.PathLike) else source
    return like


def _is_there(source: object) -> bool:
    """Tell whether what a tree was opened from can be had again: of a live model it knows the class only."""
    return not isinstance(source, ParamTree) or os.path.exists(source.source)  # noqa: PTH110


def _told(tree: ParamTree, progress: Progress | None) -> Callable[[int], None]:
    """Return what is called with the number of bytes whenever some were written."""
    total, done = sum(tree[name].nbytes or 0 for name in _firsts(tree)), 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return told


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:5])) + ", …" * (len(names) > 5)


def _firsts(tree: ParamTree) -> list[str]:
    return [name for name in tree if tree.tied_with(name)[0] == name]


def _without(tree: ParamTree, names: Iterable[str]) -> ParamTree:
    left = {name: param for name, param in tree.items() if name not in set(names)}
    return tree.with_params(left)


def _skipped(tree: ParamTree) -> list[str]:
    """Return the names of what belongs to no model and has no numbers, as texts."""
    return [name for name, param in tree.items() if param.kind == OTHER and param.array.problem is not None]


def _overflows(tree: ParamTree) -> list[str]:
    """Say how many finite values a cast has lost."""
    casts = {name: param.array for name, param in tree.items() if isinstance(param.array, Cast)}
    lost = {name: array.overflowed for name, array in casts.items() if array.overflowed}
    notes = []
    for dtype in dict.fromkeys(casts[name].dtype for name in lost):
        names = [name for name in lost if casts[name].dtype == dtype]
        number = sum(lost[name] for name in names)
        count = f"{number} finite value{'s' * (number != 1)}"
        notes.append(f"{count} beyond {dtype} became infinite or NaN: {_some(names)}")
    return notes


def _with_ties(tree: ParamTree, writer: Format, ties: str | None) -> ParamTree:
    """Return a tree that the format can hold: what it cannot tie is resolved as the user chose."""
    groups = [group for group in tree.ties if not writer.holds_tie(tree, group)]
    if not groups:
        return tree
    if ties is None:
        names = " and ".join(map(printable, groups[0][:2]))
        raise UnsupportedError(
            f"{printable(tree.source)}: {names} are tied, which {writer.NAME} cannot say; "
            "choose ties='once' (the first name) or ties='twice' (every name)"
        )
    others = {name for group in groups for name in group[1:]}
    if ties == "once":
        return _without(tree, others)
    return untied(tree, others)


def _check(tree: ParamTree, writer: Format) -> None:
    """Refuse what cannot be written before anything is."""
    for name, param in tree.items():
        if None in param.shape or param.array.problem is not None:
            reason = param.array.problem or "its shape is not known yet"
            raise UnreadableError(
                f"{printable(tree.source)}: {printable(name)} cannot be saved: {reason_of(reason)}"
            )
        if param.dtype not in writer.WRITES:
            fact = f"{printable(name)} is {printable(param.dtype)}, which {writer.NAME} cannot hold"
            raise UnsupportedError(f"{printable(tree.source)}: {fact}; {_advice(param, writer)}")


def _advice(param: Param, writer: Format) -> str:
    """Return what to do about a dtype that a format cannot hold."""
    floats = [dtype for dtype in writer.WRITES if "float" in dtype]
    if is_cast(param, "") and floats:
        return f"cast it: dtype= one of {', '.join(floats)}"
    return f"it holds {', '.join(writer.WRITES)}"


def _verify(tree: ParamTree, path: str, copies: bool = False) -> None:
    """Compare what was written, read again, with what it was made of.

    A copy may hold more, and be a file that does not say what a live model calls its parameters.
    """
    ours, theirs = fingerprint(tree), fingerprint(path)
    names = [name for name in ours.params if ours.params[name] != theirs.params.get(name)]
    if copies:
        renamed = Counter(ours.params[name] for name in names if name not in theirs.params)
        if renamed <= Counter(found for name, found in theirs.params.items() if name not in ours.params):
            names = [name for name in names if name in theirs.params]
    if ours == theirs or (copies and not names):
        return
    raise MismatchError(
        f"{printable(path)}: read again, it is not what was written: {_some(names)}; "
        "the disk or the memory of this machine is not to be trusted"
    )
