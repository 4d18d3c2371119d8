"""Open what can be opened of a source that may be damaged, and say what cannot."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from paratree.core.errors import (
    CorruptFileError,
    ParatreeError,
    SourceNotFoundError,
    UnknownSourceError,
    UnsafeFileError,
)
from paratree.core.tree import Origin, ParamTree
from paratree.files.folder import beside
from paratree.files.local import LocalFile
from paratree.files.shards import add_aliases, index_of, is_index, weight_map_of
from paratree.registry import entry_of, find_format
from paratree.registry import open as open_source
from paratree.verbs.listing import reason_of
from paratree.verbs.reading import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paratree.core.param import Param

_SHARDS = (".safetensors", ".bin")  # whose names are those of the whole


class Lost(NamedTuple):
    """A file that cannot be opened.

    Attributes:
        path: the file.
        reason: why it cannot.
        names: the parameters that an index says are in it.
    """

    path: str
    reason: str
    names: tuple[str, ...] = ()


@contextmanager
def salvaged(source: object) -> Iterator[tuple[ParamTree | None, list[Lost]]]:
    """Open a source; give the tree of what can be opened, ``None`` if nothing can, and what is lost.

    Raises:
        SourceNotFoundError: there is no such path.
        UnknownSourceError: nothing recognises a live object, or no file stands for a folder.
    """
    if not isinstance(source, str | os.PathLike):
        with opened(source) as whole:
            yield whole, []
        return
    tree, lost = _opened(os.fspath(source))
    try:
        yield tree, lost
    finally:
        if tree is not None:
            tree.close()


def _opened(path: str) -> tuple[ParamTree | None, list[Lost]]:
    try:
        return open_source(path), []
    except (CorruptFileError, UnsafeFileError) as error:
        fault = Lost(error.path, _reason(error))
    except SourceNotFoundError as error:
        if not Path(path).exists():
            raise
        fault = Lost(path, str(error))  # it names the file that is missing
    except UnknownSourceError as error:
        if not Path(path).is_file():
            raise
        fault = Lost(path, reason_of(str(error)))
    try:
        tree, lost = _rest(path)
    except ParatreeError:  # no index, or a damaged one
        return None, [fault]
    return tree, lost or [fault]


def _rest(path: str) -> tuple[ParamTree, list[Lost]]:
    """Open the shards of an index one by one."""
    file = LocalFile(entry_of(path) if Path(path).is_dir() else path)
    if not any(is_index(file, suffix) for suffix in _SHARDS):
        raise CorruptFileError(path, "no shard index")
    index = index_of(file)
    shards: dict[str, list[str]] = {}
    for name, shard in weight_map_of(file, index).items():
        shards.setdefault(shard, []).append(name)
    params: dict[str, Param] = {}
    lost, closers = [], [file.close]
    for shard, names in shards.items():
        try:
            held = beside(file, shard, links=True)
            tree = find_format(held).open(held)
        except (ParatreeError, OSError) as error:
            lost.append(Lost(str(Path(file.path).parent / shard), _reason(error), tuple(names)))
        else:
            params |= tree
            closers.append(tree.close)
    add_aliases(params, index)
    what = f"{len(shards) - len(lost)} of {len(shards)} shards"
    return ParamTree(params, Origin(file.path, what, closers=closers)), lost


def _reason(error: Exception) -> str:
    """Return what is wrong with a file, without its path."""
    if isinstance(error, CorruptFileError | UnsafeFileError):
        return error.reason if error.offset is None else f"at byte {error.offset}: {error.reason}"
    if isinstance(error, SourceNotFoundError):
        return "no such file"
    return reason_of(str(error))
