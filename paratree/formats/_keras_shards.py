"""Weights of Keras 3 in shards: an index says which files hold variables of which layer.

Layout: ``ShardedH5IOStore`` in ``saving_lib.py`` of Keras 3.15: ``x.weights.json`` is
``{"metadata": {"total_size": N}, "weight_map": {"/layers/dense/vars": [shard, …]}}``, the shards
``x_00000.weights.h5`` lie beside it, and the variables of one layer may be spread over several.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.files.folder import beside
from paratree.files.hdf5 import Dataset, Group, read_tree
from paratree.files.shards import MIXED, shards_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from paratree.files.local import LocalFile

    Path = tuple[str, ...]

SHARD = ".weights.h5"
_VARIABLES = "vars"


def read_shards(file: LocalFile, wanted: Callable[[str], bool]) -> tuple[Group, list[LocalFile]]:
    """Walk the shards of an index and join them to the tree that one file of the same model would have.

    Args:
        file: the index.
        wanted: which attributes of groups to read, by their names.

    Returns:
        The root, and the open shards in the order in which they were written.

    Raises:
        CorruptFileError: the index and a shard disagree, or two shards hold one variable.
        SourceNotFoundError: a shard is missing.
        UnsafeFileError: the index names a file outside its folder.
    """
    held = _held(file)
    shards = {name: beside(file, name, links=True) for name in held}
    root, start = Group((), {}, True), 0
    for name, shard in shards.items():
        found = read_tree(shard, wanted)
        _check(file, name, found, held[name])
        _add(file, root, found, start)
        start += shard.size
    _finish(root)
    return root, list(shards.values())


def _held(file: LocalFile) -> dict[str, dict[Path, str]]:
    """Return, for each shard, the groups that it holds variables of, and what the index calls each."""
    held: dict[str, dict[Path, str]] = {}
    for key, shards in shards_of(file).items():
        path = tuple(part for part in key.split("/") if part)
        path = path if path[-1:] == (_VARIABLES,) else (*path, _VARIABLES)
        for shard in shards:
            if path in held.setdefault(shard, {}):
                raise CorruptFileError(file.path, f"the index names the shard {shard} twice", member=key)
            held[shard][path] = key
    return held


def _check(file: LocalFile, shard: str, root: Group, held: dict[Path, str]) -> None:
    """See that a shard holds variables of just the layers that the index says."""
    there = {dataset.path[:-1] for dataset in root.datasets()}
    for path, key in held.items():
        if path not in there:
            raise CorruptFileError(
                file.path, f"the shard {shard} has no such variables", member=key, advice=MIXED
            )
    for path in there:
        if path not in held:
            raise CorruptFileError(
                file.path,
                f"the shard {shard} holds it and the index does not say so",
                member="/".join(path),
                advice=MIXED,
            )


def _add(file: LocalFile, root: Group, found: Group, start: int) -> None:
    """Add the groups and arrays of a shard, which begins at ``start`` of all that was written."""
    waiting = [(root, found)]
    while waiting:
        into, group = waiting.pop()
        into.tracked = into.tracked and group.tracked
        for name, text in group.texts.items():
            if into.texts.setdefault(name, text) != text:
                raise CorruptFileError(
                    file.path, f"two shards differ in its {name}", member="/".join(group.path), advice=MIXED
                )
        for name, child in group.children.items():
            same = into.children.get(name)
            if isinstance(child, Group) and (same is None or isinstance(same, Group)):
                same = same or Group(child.path, {}, True)
                into.children[name] = same
                waiting.append((same, child))
            elif isinstance(child, Dataset) and same is None:
                into.children[name] = Dataset(child.path, child.array, start + child.end)
            else:
                raise CorruptFileError(
                    file.path, "two shards hold it", member="/".join(child.path), advice=MIXED
                )


def _finish(root: Group) -> None:
    """Sort what is in each group as one file would list it, and find where each ends."""
    for group in reversed(list(_groups(root))):
        if not group.tracked:
            group.children = dict(sorted(group.children.items()))
        group.end = max((child.end for child in group.children.values()), default=-1)


def _groups(root: Group) -> Iterator[Group]:
    """Yield every group, each before those in it."""
    waiting = [root]
    while waiting:
        yield (group := waiting.pop())
        waiting += [child for child in group.children.values() if isinstance(child, Group)]
