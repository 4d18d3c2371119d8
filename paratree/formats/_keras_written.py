"""Write a copy of a Keras or HDF5 file with other values: arrays are replaced where they lie, byte for byte.

That needs no HDF5 library: an array that is contiguous is a range of the file, of which no checksum is kept.
Attributes, groups, the optimizer's state and all else of the file stay as they are. Of a live model Keras
itself writes the file that is copied.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from paratree.core.array import size_of
from paratree.core.dtypes import nbytes
from paratree.core.errors import MismatchError, UnsupportedError, printable
from paratree.core.names import BUFFER, PARAMETER, STATE, split
from paratree.core.numbered import renumbered
from paratree.files.archive import Archive
from paratree.files.array import FileArray, file_array
from paratree.files.output import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.core.tree import ParamTree
    from paratree.files.local import Source
    from paratree.files.output import Output
    from paratree.files.zip import Member

    Members = Mapping[str, Member]

ARCHIVE, WEIGHTS = ".keras", ".weights.h5"
_HDF5 = (".h5", ".hdf5")
_OF_KERAS_3 = ("Keras", "Keras weights")  # the formats of trees; older files are "Keras HDF5"
_MEMBER = "model.weights.h5"
_LIVE = "Keras on "  # how the format of a live model begins
_MOST_NAMED = 5


@contextmanager
def as_file(like: object, path: str) -> Iterator[str]:
    """Give the path of the file that is copied: ``like``, or where Keras saves a live model for this.

    Args:
        like: what is copied.
        path: what is written.

    Raises:
        UnsupportedError: ``like`` is neither, or Keras cannot save it.
    """
    if isinstance(like, str | os.PathLike):
        yield os.fspath(like)
        return
    kinds = tuple(sys.modules[name].Model for name in ("keras", "tf_keras") if name in sys.modules)
    said = type(like).__name__
    if not isinstance(like, kinds):
        raise UnsupportedError(f"{said}: no model of Keras, of which its file is known; give a path")
    model: Any = like
    if not model.built:
        raise UnsupportedError(f"{said}: not built yet, so it has no weights; call it on data once")
    with TemporaryDirectory(prefix="paratree-") as folder:
        yield _saved(model, folder, path.endswith(ARCHIVE))


def _saved(model: Any, folder: str, whole: bool) -> str:
    """Have Keras save a model, with its configuration if it has one, as that tells names; return the path."""
    path = f"{folder}/model{ARCHIVE}"
    try:
        model.save(path)
    except (TypeError, ValueError, NotImplementedError) as error:
        if whole:
            said = f"{type(model).__name__}: Keras cannot save it: {printable(str(error))}"
            raise UnsupportedError(f"{said}; write {WEIGHTS}") from error
        path = f"{folder}/model{WEIGHTS}"
        model.save_weights(path)
    return path


def write(
    tree: ParamTree, output: Output, layout: ParamTree, source: Source, members: Members, said: str
) -> list[str]:
    """Write a copy of a file with the values of a tree.

    Args:
        tree: the values.
        output: where to.
        layout: the tree of the file that is copied.
        source: the HDF5 file: itself, or what is in the archive.
        members: of an archive, its members.
        said: what the messages call what is copied.

    Raises:
        MismatchError: names, shapes or dtypes of the tree are not those of the file.
        UnsupportedError: an array of the file has no place of its own there, or no such file can be made.
    """
    whole = _is_archive(output.path, layout, members, said)
    names = _names(tree, layout)
    _check_names(tree, layout, names, said)
    places: dict[int, LazyArray] = {}
    for name, ours in names.items():
        _check(tree, ours, layout, name, said)
        if tree[ours].size:
            where = f"{said}: {printable(name)}"
            _add(places, _place(layout[name].array, source, where), tree[ours].array, where)
    if not whole:
        _emit(source, places, output.file.write, output.values)
    else:
        with Archive(output) as archive:
            for member in members.values():
                with archive.member(member.name, member.size) as file:
                    if member.name == _MEMBER:
                        _emit(source, places, file.write, partial(output.stream, write=file.write))
                    else:
                        _copy(member.verified(), 0, member.size, file.write)
    return _notes(tree, layout, names, said)


def _is_archive(path: str, layout: ParamTree, members: Members, said: str) -> bool:
    """Tell whether an archive is written: as the suffix says, or, if it says nothing, as the copied file."""
    if path.endswith(ARCHIVE) and not members:
        fact = f"{said}: weights without the configuration that {ARCHIVE} files have"
        raise UnsupportedError(f"{fact}; give a {ARCHIVE} file, or write {WEIGHTS}")
    if path.endswith(WEIGHTS) and not members and layout.format != "Keras weights":
        raise UnsupportedError(f"{said}: not the layout of {WEIGHTS} files; name the copy as it is named")
    if path.endswith(_HDF5):
        if layout.format in _OF_KERAS_3 and not path.endswith(WEIGHTS):
            other = printable(os.path.splitext(os.path.basename(path))[0]) + WEIGHTS  # noqa: PTH119, PTH122
            fact = f"{said}: a layout that Keras loads from {WEIGHTS} files only"
            raise UnsupportedError(f"{fact}; name it {other}, or give an older .h5 as like= (--like)")
        return False
    return bool(members)


# Names


def _names(tree: ParamTree, layout: ParamTree) -> dict[str, str]:
    """Return name in the file -> name in the tree, of what both have.

    A file numbers variables of layers whose class it does not say. In a live model a layer has them in the
    same order. Layers that differ in nothing but the numbers that Keras counts up are taken in their order.
    """
    names = {name: name for name in layout if name in tree}
    if layout.format.startswith("Keras") and len(names) < min(len(tree), len(layout)):
        numbers = renumbered(tree, layout) or {}
        if numbers and all(tree[ours].shape == layout[name].shape for ours, name in numbers.items()):
            state = {name: name for name in names if layout[name].kind == STATE}
            return state | {name: ours for ours, name in numbers.items()}
    if not tree.format.startswith(_LIVE):
        return names
    ours, theirs = _by_layer(tree), _by_layer(layout)
    for layer, numbered in theirs.items():
        named = ours.get(layer, [])
        if len(named) == len(numbered) and all(map(_may_be_called, numbered, named)):
            names |= dict(zip(numbered, named, strict=True))
    return names


def _by_layer(tree: ParamTree) -> dict[str, list[str]]:
    layers: dict[str, list[str]] = {}
    for name, param in tree.items():
        if param.kind != STATE:
            layers.setdefault(name.rpartition(".")[0], []).append(name)
    return layers


def _may_be_called(numbered: str, name: str) -> bool:
    return numbered == name or numbered.rpartition(".")[2].isdecimal()


def _check_names(tree: ParamTree, layout: ParamTree, names: Mapping[str, str], said: str) -> None:
    """Look that the tree has the parameters and buffers of the file, no other name, and all state or none."""
    held = set(names.values())
    strange = [name for name in tree if name not in held]
    missing = [name for name, param in layout.items() if name not in names and param.array.problem is None]
    needed = [name for name in missing if layout[name].kind in (PARAMETER, BUFFER)]
    facts = [f"it has no {_some(strange)}"] * bool(strange)
    facts += [f"nothing is given for its {_some(needed)}"] * bool(needed)
    if facts:
        raise MismatchError(f"{said}: {', and '.join(facts)}; rename, or select what it has")
    state = [name for name in missing if layout[name].kind == STATE]
    if state and any(layout[name].kind == STATE for name in names):
        fact = f"{said}: a part of the optimizer's state is given, and not {_some(state)}"
        raise MismatchError(f"{fact}; give all of it or none (kind=)")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(map(printable, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


# Places


def _check(tree: ParamTree, ours: str, layout: ParamTree, name: str, said: str) -> None:
    param, there = tree[ours], layout[name]
    if (param.shape, param.dtype) != (there.shape, there.dtype):
        one, other = (f"{each.dtype} {list(each.shape)}" for each in (param, there))
        cast = f"cast it (dtype='{there.dtype}'), or give a file of {param.dtype}"
        advice = cast if param.shape == there.shape else "it is of another model"
        raise MismatchError(f"{said}: {printable(name)} is {other} there, not {one}; {advice}")


def _place(array: LazyArray, source: Source, where: str) -> int:
    """Return where the values lie in the file, as they will."""
    if isinstance(array, FileArray) and array.is_plain and array.source is source:
        return array.offset
    fact = f"{where} is compressed, in pieces, in its header, or big-endian there"
    raise UnsupportedError(f"{fact}; rewrite it (h5repack -l CONTI), or have Keras save it")


def _add(places: dict[int, LazyArray], offset: int, array: LazyArray, where: str) -> None:
    """Add what is written at an offset; two names of one array there must have the same values."""
    other = places.setdefault(offset, array)
    if other is not array and any(a != b for a, b in zip(blocks(other), blocks(array), strict=True)):
        raise MismatchError(
            f"{where} is one array with another there, and their values differ; give both alike"
        )


# Bytes


def _emit(
    source: Source,
    places: Mapping[int, LazyArray],
    write: Callable[[memoryview], object],
    values: Callable[[LazyArray], None],
) -> None:
    """Write the HDF5 file from its start to its end, with other values in their places."""
    done = 0
    for offset, array in sorted(places.items(), key=lambda place: place[0]):
        _copy(source, done, offset, write)
        values(array)
        done = offset + nbytes(size_of(array), array.dtype)
    _copy(source, done, source.size, write)


def _copy(source: Source, start: int, end: int, write: Callable[[memoryview], object]) -> None:
    for block in blocks(file_array(source, start, (end - start,), "uint8")):
        write(block)


def _notes(tree: ParamTree, layout: ParamTree, names: Mapping[str, str], said: str) -> list[str]:
    kept = [name for name in layout if name not in names]
    notes = [f"as in {said}: {_some(kept)}"] if kept else []
    layers = [(split(ours)[:-1], split(name)[:-1]) for name, ours in names.items()]
    other = dict.fromkeys(f"{'.'.join(a)} as {'.'.join(b)}" for a, b in layers if a != b)
    notes += [f"layers taken in their order, by other numbers: {_some([*other])}"] if other else []
    if not tree.format.startswith("Keras") and (left := _some(list(tree.meta))):
        notes.append(f"the copy keeps the metadata of {said}, left out: {left}")
    return notes
