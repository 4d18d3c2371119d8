"""Write a tree as several files and an index of them, so that at any moment one whole checkpoint is there.

The index is written last. Where a file has the name that a shard would have, the shards get names of their
own; those of the checkpoint that is replaced go when the new index is on the disk, and those of a writer that
was killed before its index was there with the next save in the folder.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from paratree.core.errors import MismatchError, ParatreeError, UnsupportedError, printable
from paratree.core.tree import Origin, ParamTree
from paratree.files.local import LocalFile
from paratree.files.shards import shards_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from paratree.core.plugin import Format
    from paratree.files.output import Output

INDEX = ".index.json"
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([KMGT]?i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "B": 1} | {
    f"{letter}{middle}B": base**power
    for power, letter in enumerate("KMGT", 1)
    for middle, base in (("", 1000), ("I", 1024))
}


def bytes_of(size: int | str) -> int:
    """Return a size in bytes, from a number or a text as ``"5GB"`` (10**9) or ``"2GiB"`` (2**30).

    Raises:
        MismatchError: it is no size.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    found = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if found is None or not float(found[1]):
        raise MismatchError(f"a shard size is a number of bytes, or as '5GB', not {size!r:.80}")
    return int(float(found[1]) * _UNITS[(found[2] or "").upper()])


def check_index(path: str, writer: Format) -> None:
    """Look that files of that name and format may have an index.

    Raises:
        UnsupportedError: they may not.
    """
    if not any(path.endswith(suffix) and suffix + INDEX in writer.SUFFIXES for suffix in writer.SUFFIXES):
        raise UnsupportedError(f"{printable(path)}: shards are those of .safetensors and .bin files")


def parts_of_tree(tree: ParamTree, most: int) -> list[ParamTree]:
    """Cut a tree, in its order, into parts of at most ``most`` bytes, or of one parameter that is larger.

    Names that are tied stay together.
    """
    parts: list[dict[str, None]] = [{}]
    room = most
    for name in tree:
        group = tree.tied_with(name)
        if group[0] != name:
            continue
        size = tree[name].nbytes or 0
        if size > room and parts[-1]:
            parts.append({})
            room = most
        parts[-1] |= dict.fromkeys(group)
        room -= size
    origin = Origin(tree.source, tree.format, tree.meta)
    return [ParamTree({name: tree[name] for name in tree if name in part}, origin) for part in parts]


def larger(tree: ParamTree, most: int) -> list[str]:
    """Say which parameters are larger than a shard was to be."""
    sizes = {name: tree[name].nbytes or 0 for name in tree if tree.tied_with(name)[0] == name}
    count = sum(size > most for size in sizes.values())
    if not count:
        return []
    name = max(sizes, key=lambda each: sizes[each])
    fact = f"{count} tensor{'s' * (count != 1)} larger than {most} bytes, as which a shard was asked for"
    return [f"{fact}: the largest, {printable(name)}, is {sizes[name]} bytes"]


def write_shards(
    parts: Sequence[ParamTree],
    path: str,
    writer: Format,
    give: Callable[[str], AbstractContextManager[Output]],
) -> tuple[list[str], list[str]]:
    """Write each part to a file, then the index; return the paths of all, the index last, and the notes.

    Args:
        parts: what the shards hold.
        path: the file that it would be if it were one; the names are made from it.
        writer: the format of the shards.
        give: what gives an output for a path, as :func:`paratree.files.output.writing`.
    """
    suffix = next(s for s in writer.SUFFIXES if path.endswith(s))
    path = str(Path(path))
    stem, index = path.removesuffix(suffix), path + INDEX
    old = _named(index, stem, suffix)
    others = _others(index, old)
    notes: dict[str, None] = {}
    with give(index) as output:
        names = _names(stem, suffix, len(parts), replacing=bool(old))  # when what is left of others is gone
        for part, name in zip(parts, names, strict=True):
            with output.beside(name) as shard:
                notes |= dict.fromkeys(writer.save(part, shard))
        output.write(_index(parts, names, writer))
        output.replaced += old.difference(*others.values())
    return [*names, index], [*notes, *_kept(others)]


def _names(stem: str, suffix: str, count: int, *, replacing: bool) -> list[str]:
    """Return names of files that do not exist: the usual ones, or with a word between.

    What replaces shards never has a name that shards had before: the old index, open in a reader or back
    after a power cut, names none of it, nor is it removed with what the old index names.
    """
    word = f"-{os.urandom(4).hex()}"
    for between in (word,) if replacing else ("", word):
        names = [f"{stem}{between}-{number + 1:05}-of-{count:05}{suffix}" for number in range(count)]
        if not any(map(os.path.lexists, names)):
            break
    return names


def _named(index: str, stem: str, suffix: str) -> set[str]:
    """Return the shards that an index names, if it is there; only such as ``_names`` makes: it may lie."""
    if not Path(index).is_file():
        return set()
    try:
        found = _shards_in(index)
    except ParatreeError:
        return set()
    folder, name = Path(stem).parent, re.escape(Path(stem).name)
    ours = re.compile(rf"{name}(-[0-9a-f]{{8}})?-[0-9]{{5}}-of-[0-9]{{5}}{re.escape(suffix)}")
    return {str(folder / shard) for shard in found if ours.fullmatch(shard)}


def _shards_in(index: str) -> set[str]:
    file = LocalFile(index)
    try:
        return {name for shards in shards_of(file).values() for name in shards}
    finally:
        file.close()


def _others(index: str, shards: set[str]) -> dict[str, set[str]]:
    """Return which of some shards other indexes in the folder name, too: all, if one cannot be read."""
    found = {}
    for path in sorted(Path(index).parent.glob("*.json")) if shards else ():
        if path.name == Path(index).name or not path.is_file():
            continue
        try:
            own = {str(path.parent / name) for name in _shards_in(str(path))}
        except (ParatreeError, OSError):
            own = shards if ".index." in path.name else set()
        if own := own & shards:
            found[path.name] = own
    return found


def _kept(others: Mapping[str, set[str]]) -> list[str]:
    """Say which files of the old checkpoint stay."""
    notes = []
    for index, shards in others.items():
        names = sorted(printable(Path(shard).name) for shard in shards)
        listed = ", ".join(names[:5]) + ", …" * (len(names) > 5)
        notes.append(f"not removed, as {printable(index)} names them, too: {listed}")
    return notes


def rivals(path: str, writer: Format, *, in_shards: bool) -> list[str]:
    """Say that another checkpoint of that name is there, which some tools would read instead."""
    suffix = next((s for s in writer.SUFFIXES if path.endswith(s) and s + INDEX in writer.SUFFIXES), None)
    other = path if in_shards else path + INDEX
    if suffix is None or not os.path.exists(other):  # noqa: PTH110
        return []
    name = printable(os.path.basename(other))  # noqa: PTH119
    with_it = "" if in_shards else ", and its shards"
    return [f"beside it lies {name}, which some tools read instead; remove it{with_it}"]


_HAVE_EVERY_NAME = ("PyTorch",)  # formats whose files list a tied parameter under each of its names


def _index(parts: Sequence[ParamTree], names: Sequence[str], writer: Format) -> bytes:
    """Return an index of the names that the shards list: transformers finds no other."""
    weight_map = {
        name: Path(file).name
        for part, file in zip(parts, names, strict=True)
        for name in part
        if part.tied_with(name)[0] == name or writer.NAME in _HAVE_EVERY_NAME
    }
    size = sum(part[name].nbytes or 0 for part in parts for name in part if part.tied_with(name)[0] == name)
    document = {"metadata": {"total_size": size}, "weight_map": weight_map}
    return (json.dumps(document, indent=2) + "\n").encode()
