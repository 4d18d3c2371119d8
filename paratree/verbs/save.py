"""Write a tree to a file or a folder: whole or not at all, bit for bit, ties kept."""

from __future__ import annotations

import errno
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from paratree.core.cast import Cast
from paratree.core.dtypes import floating_dtype
from paratree.core.errors import MismatchError, UnreadableError, UnsupportedError, printable
from paratree.core.names import OTHER
from paratree.core.surgery import is_cast, untied
from paratree.core.tree import ParamTree
from paratree.engine import check_workers
from paratree.files.dry import counting
from paratree.files.local import LocalFile
from paratree.files.output import writing
from paratree.registry import find_format, format_to_write, known_formats
from paratree.registry import open as open_source
from paratree.verbs._folders import check_folder, write_folder
from paratree.verbs._sharded import INDEX, bytes_of, check_index, larger, parts_of_tree, rivals, write_shards
from paratree.verbs.listing import reason_of
from paratree.verbs.reading import opened, selected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from paratree.core.param import Param
    from paratree.core.plugin import Format
    from paratree.core.select import Selector
    from paratree.engine import Progress
    from paratree.files.dry import DryOutput
    from paratree.files.output import Output

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
        dry_run: whether nothing was written; of a folder, ``nbytes`` are then those of the values alone.
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
    dry_run: bool = False


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
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Saved:
    """Write the parameters of a live model, a file or a tree to a file, atomically, bit for bit.

    The file takes its place when it is complete and on the disk; after an error, an interrupt or a power cut
    what was there before is still there. Values go through a buffer of a few megabytes, or are copied inside
    the kernel where they lie in a file as they will; the source may be the file that is replaced.

    Args:
        source: a path, a tree or a subtree of one, or a live model.
        path: the file, or the folder for a format of folders; a symbolic link stays, and what it points to is
            replaced. With a shard size also the name of the index, which is then written in any case.
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
        verify: read the file, or all files, again before the old ones go, and compare their fingerprint with
            that of the source.
        dry_run: find what would be written, and what would be refused; no value is read, no file is made.
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
    if dtype is not None:
        floating_dtype(dtype)
    most = None if shard_size is None else bytes_of(shard_size)
    target, writer, is_index = _placed(os.fspath(path), format, in_shards=most is not None)
    if most is not None:
        check_index(target, writer)
    with opened(source) as tree:
        model = _like(tree, writer, like, source)
        chosen = selected(tree, select, kind)
        skipped = _skipped(chosen)
        unsaved = [name for name in chosen if not chosen[name].is_saved]
        held = _without(chosen, (*skipped, *unsaved)) if skipped or unsaved else chosen
        kept = _with_ties(held if dtype is None else held.cast(dtype), writer, ties)
        _check(kept, writer)
        parts = [] if most is None else parts_of_tree(kept, most)
        plan = _Plan(kept, target, writer, model, parts if len(parts) > 1 or is_index else [], force, verify)
        with _saying_where(target):
            made = _counted(plan) if dry_run else _written(plan, _told(kept, progress))
    left_out = [f"no numbers, left out: {_some(skipped)}"] * bool(skipped)
    left_out += [f"not saved with the model, left out: {_some(unsaved)}"] * bool(unsaved)
    left_out += rivals(target, writer, in_shards=bool(plan.parts))
    left_out += [] if most is None else larger(kept, most)
    in_folder = writer.MAKES == "folder"
    return Saved(
        tree.source,
        target if in_folder else made.files[-1],
        writer.NAME,
        len(kept),
        made.nbytes,
        kept.ties,
        (*made.notes, *left_out),
        verify and not dry_run,
        tuple(made.files) if in_folder or len(made.files) > 1 else (),
        dry_run,
    )


@contextmanager
def _saying_where(target: str) -> Iterator[None]:
    """Put the file in front of what a writer refuses by the name of a parameter alone."""
    try:
        yield
    except UnsupportedError as error:
        if not str(error).startswith("'"):
            raise
        raise UnsupportedError(f"{printable(target)}: {error}") from None


def _placed(path: str, format: str | None, *, in_shards: bool) -> tuple[str, Format, bool]:
    """Return where to write, the format that does, and whether an index is asked for by its name."""
    if path == "-":
        raise MismatchError(
            "'-' is no file, and stdout is none that could be replaced as a whole; give a path"
        )
    is_index = path.endswith(INDEX)
    if is_index:
        path, index = path.removesuffix(INDEX), path
        if not in_shards:
            fact = f"{printable(index)}: the name of an index of shards"
            raise MismatchError(f"{fact}; give shard_size= (--shard-size), or write {printable(path)}")
    if path.endswith(os.sep) or os.path.isdir(path):  # noqa: PTH112
        _check_is_of_folders(path, format)
    writer = format_to_write(path, format)
    if writer.MAKES == "files" and not path.endswith(writer.SUFFIXES):
        path += writer.SUFFIXES[0]
    return path, writer, is_index


def _check_is_of_folders(path: str, format: str | None) -> None:
    """Look that what is to become a folder is a format of folders."""
    suffix = ".safetensors"
    if format is not None:
        writer = format_to_write(path, format)
        if writer.MAKES == "folder":
            return
        suffix = writer.SUFFIXES[0]
    file = os.path.join(path, f"model{suffix}")  # noqa: PTH118
    folders = [key for key, each in known_formats().items() if each.WRITES and each.MAKES == "folder"]
    advice = (
        f"name a file in it, as {printable(file)}, or a format of folders: {', '.join(folders)} (--format)"
    )
    raise IsADirectoryError(errno.EISDIR, f"a folder; {advice}", path)


class _Plan(NamedTuple):
    """What is to be written, and where: all that could be refused beforehand was not."""

    tree: ParamTree
    target: str
    writer: Format
    like: object
    parts: Sequence[ParamTree]  # of several shards, else none
    force: bool
    verify: bool

    def save(self, output: Output) -> Sequence[str]:
        """Write one file, and return what it does not hold."""
        if self.like is None:
            return self.writer.save(self.tree, output)
        return self.writer.save_copy(self.tree, output, self.like)


class _Made(NamedTuple):
    """Files, the one that takes its place last being last, with their bytes and what they do not hold."""

    files: Sequence[str]
    nbytes: int
    notes: Sequence[str]


def _written(plan: _Plan, told: Callable[[int], None]) -> _Made:
    """Write, and read again if that is wanted: one file, or a folder, before it takes its place."""
    tree, target, writer = plan.tree, plan.target, plan.writer
    lost: list[str] = []

    def read_again(path: str, place: str = target) -> None:
        lost.extend(_lost_in_casts(tree))  # to read the values again counts again
        names_others = plan.parts or writer.MAKES == "files"
        with _opened_for(path, place) if names_others else open_source(path) as found:
            _verify(tree, found, place, writer.MAKES == "copy")

    def to_write(path: str) -> AbstractContextManager[Output]:
        check = partial(read_again, place=path) if plan.verify else None
        return writing(path, told, force=plan.force, check=check)

    if writer.MAKES == "folder":
        check = read_again if plan.verify else None
        files, notes = write_folder(tree, target, writer, told, force=plan.force, check=check)
    else:
        if plan.parts:
            files, notes = write_shards(plan.parts, target, writer, to_write)
        else:
            with to_write(target) as output:
                notes = [*plan.save(output)]
            files = [*output.made, target]
    size = sum(os.stat(file).st_size for file in files)  # noqa: PTH116
    return _Made(files, size, [*notes, *(lost if plan.verify else _lost_in_casts(tree))])


def _counted(plan: _Plan) -> _Made:
    """Find what would be written, and what would be refused; of a folder the bytes of the values alone."""
    tree, target, writer = plan.tree, plan.target, plan.writer
    if writer.MAKES == "folder":
        check_folder(target, writer, force=plan.force)
        return _Made([], sum(tree[name].nbytes or 0 for name in _firsts(tree)), writer.check_folder(tree))
    outputs: list[DryOutput] = []

    @contextmanager
    def to_count(path: str) -> Iterator[Output]:
        with counting(path, force=plan.force) as output:
            outputs.append(output)
            yield output

    if plan.parts:
        files, notes = write_shards(plan.parts, target, writer, to_count)
    else:
        with to_count(target) as output:
            notes = [*plan.save(output)]
        files = [*output.made, target]
    return _Made(files, outputs[0].nbytes, notes)


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
    left_out = set(names)
    return tree.with_params({name: param for name, param in tree.items() if name not in left_out})


def _skipped(tree: ParamTree) -> list[str]:
    """Return the names of what belongs to no model and has no numbers, as texts."""
    return [name for name, param in tree.items() if param.kind == OTHER and param.array.problem is not None]


def _lost_in_casts(tree: ParamTree) -> list[str]:
    """Say how many values casts could not keep, rounding aside."""
    casts = {name: param.array for name, param in tree.items() if isinstance(param.array, Cast)}
    notes = []
    for dtype, loss in dict.fromkeys((array.dtype, loss) for array in casts.values() for loss in array.lost):
        lost = {name: array.lost[loss] for name, array in casts.items() if array.dtype == dtype}
        names, number = [name for name, count in lost.items() if count], sum(lost.values())
        what, became = loss
        notes.append(f"{number} {what}{'s' * (number != 1)} beyond {dtype} became {became}: {_some(names)}")
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
            "choose ties= (--ties): 'once', the first name, or 'twice', every name"
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
        return f"cast it, dtype= (--dtype): one of {', '.join(floats)}"
    return f"it holds {', '.join(writer.WRITES)}"


def _opened_for(path: str, place: str) -> ParamTree:
    """Open the complete file that is about to take a place, by the name of which it finds its other files."""
    file = LocalFile(place, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    return find_format(file).open(file)


def _verify(tree: ParamTree, found: ParamTree, place: str, copies: bool) -> None:
    """Compare what was written, read again, with what it was made of.

    A copy may hold more, and be a file that does not say what a live model calls its parameters.
    """
    from paratree.verbs.fingerprint import fingerprint

    ours, theirs = fingerprint(tree), fingerprint(found)
    names = [name for name in ours.params if ours.params[name] != theirs.params.get(name)]
    if copies:
        renamed = Counter(ours.params[name] for name in names if name not in theirs.params)
        if renamed <= Counter(found for name, found in theirs.params.items() if name not in ours.params):
            names = [name for name in names if name in theirs.params]
    if ours == theirs or (copies and not names):
        return
    raise MismatchError(
        f"{printable(place)}: read again, it is not what was written: {_some(names)}; "
        "the disk or the memory of this machine is not to be trusted"
    )
