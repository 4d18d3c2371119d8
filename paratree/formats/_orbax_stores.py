"""Where Orbax keeps the chunks of arrays: files of their own, or an OCDBT database of few files.

The database is read by tensorstore, which is given exactly the files that were found in the folder: what a
damaged or hostile database names beside them, inside the folder or out of it, does not exist for it.
"""

from __future__ import annotations

import os
from stat import S_ISREG

from paratree.core.errors import CorruptFileError, UnsafeFileError
from paratree.files.folder import beside
from paratree.files.local import Memory
from paratree.formats._zstd import first_line, import_tensorstore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from paratree.files.local import LocalFile, Source

MANIFEST = "manifest.ocdbt"
_DEEPEST = 24
_MOST_FILES = 1_000_000
_HEADERS = ("/.zarray", "/zarr.json")
_DATA = ("d/", "ocdbt.process_", MANIFEST)  # where a database has its files


def files_of(file: LocalFile) -> dict[str, int]:
    """Return path and size of every file in the folder of ``file`` and below, without following a link.

    Raises:
        UnsafeFileError: there is a link, or something that is neither file nor folder.
        CorruptFileError: there are too many, or too deep.
    """
    root = os.path.dirname(file.path)  # noqa: PTH120
    found: dict[str, int] = {}
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        for entry in sorted(os.scandir(os.path.join(root, folder)), key=lambda entry: entry.name):  # noqa: PTH118
            path = folder + entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path + "/")
                continue
            facts = entry.stat(follow_symlinks=False)
            if not S_ISREG(facts.st_mode):
                what = "a symbolic link" if entry.is_symlink() else "neither a file nor a folder"
                raise UnsafeFileError(
                    file.path, f"{what} is in the checkpoint", member=path,
                    advice="if you trust where it leads, open a copy with links followed (cp -rL)",
                )  # fmt: skip
            found[path] = facts.st_size
        if len(found) + len(waiting) > _MOST_FILES or folder.count("/") > _DEEPEST:
            raise CorruptFileError(file.path, "the folder has more files, or deeper, than a checkpoint")
    return found


class FolderStore:
    """Chunks in files of their own.

    Args:
        file: the file beside which they are.
        files: path and size of every one.
    """

    def __init__(self, file: LocalFile, files: dict[str, int]) -> None:
        self.path, self._file, self._files = file.path, file, files
        self.size = sum(files.values())

    def __contains__(self, key: object) -> bool:
        return key in self._files

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def size_of(self, key: str) -> int:
        """Return how many bytes a file had when the folder was looked at."""
        return self._files[key]

    def source(self, key: str) -> Source:
        """Open a file; it is closed when it is no longer needed."""
        return beside(self._file, key)


class DatabaseStore:
    """Chunks in an OCDBT database.

    Args:
        file: a file beside which the manifest is.
        files: path and size of every file there.

    Raises:
        MissingPackageError: tensorstore is not installed.
        CorruptFileError: tensorstore cannot read the database.
    """

    def __init__(self, file: LocalFile, files: dict[str, int]) -> None:
        root = os.path.realpath(os.path.dirname(file.path) or ".")  # noqa: PTH120
        parts = [path for path in files if path.startswith(_DATA)]
        layers = [
            {"exact": path, "base": {"driver": "file", "path": os.path.join(root, path)}}  # noqa: PTH118
            for path in parts
        ]
        self.path = file.path
        self.size = sum(files[path] for path in parts)
        tensorstore = import_tensorstore(file.path)
        spec = {"driver": "ocdbt", "base": {"driver": "kvstack", "layers": layers}}
        self._store = self._asked(lambda: tensorstore.KvStore.open(spec).result(), MANIFEST)
        keys = self._asked(lambda: self._store.list().result(), MANIFEST)
        try:
            self._keys = dict.fromkeys(key.decode() for key in keys)
        except UnicodeDecodeError:
            raise CorruptFileError(file.path, "a key that is not UTF-8", member=MANIFEST) from None
        headers = [key for key in self._keys if key.endswith(_HEADERS)]
        with tensorstore.Batch() as batch:  # each alone would wait for its own reading of the file
            self._asked_for = {key: self._store.read(key, batch=batch) for key in headers}

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def size_of(self, key: str) -> int:
        """Return the bytes of the whole database: how many are of a key is not told without reading it."""
        return self.size

    def source(self, key: str) -> Source:
        """Read the value of a key."""
        answer = self._asked_for.pop(key, None) or self._store.read(key)
        found = self._asked(lambda: answer.result(), key)
        if found.state != "value":
            raise CorruptFileError(self.path, "the database has lost it since it was opened", member=key)
        return Memory(bytes(found.value), self.path, key)

    def _asked(self, ask: Any, member: str) -> Any:
        try:
            return ask()
        except (ValueError, RuntimeError, OSError) as error:
            reason = f"tensorstore cannot read the database: {first_line(error)}"
            raise CorruptFileError(self.path, reason, member=member) from None
