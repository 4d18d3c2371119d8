"""Python pickles of arrays: NumPy, JAX, MXNet and plainly pickled torch tensors, nested; dumps of joblib.

Nothing is unpickled: files.pickle reads the opcodes; formats._numpy_pickled and formats._torch_tensors say
what arrays look like in them. Several pickles in a row, as ``pickle.dump`` writes them, are one tree.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.core.names import STATE
from paratree.files.compressed import Inflated, advice, compression, suffix_of
from paratree.files.local import LocalFile, Memory, Window, read
from paratree.files.pickle import load
from paratree.formats._mxnet_pickled import optimizer_of
from paratree.formats._numpy_pickled import values_between
from paratree.formats._pickled_tree import PickledTree
from paratree.formats._torch_storages import MAGIC, load_legacy, no_persistent
from paratree.formats._torch_tensors import StorageRecord, interpret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.core.tree import ParamTree
    from paratree.files.local import Source
    from paratree.files.pickled import Global

NAME = "Python pickle"
SUFFIXES = (".pkl", ".pickle", ".p", ".joblib", ".ckpt", ".states")
FOLDER: tuple[str, ...] = ()
LAZY = "yes, but for protocols below 3 of Python 3; what is compressed is inflated up to what is asked for"
TIES = "one array object in several places"
READS = (
    "NumPy, JAX and MXNet arrays, torch tensors, dumps of joblib, every protocol, compressed as a whole "
    "(zlib, gzip, bzip2, xz, lzma) or not; nothing is executed"
)
EXTRA = None
WRITES = ()

_DCP = b"torch.distributed.checkpoint.metadata"  # its .metadata is a pickle of another format
_FIRST_OF_2 = b"}](cNKMJGX)\x88\x89\x8aTU"  # opcodes that a pickle of protocol 2 or 3 begins with
_FIRST_OF_4 = _FIRST_OF_2 + b"\x95\x8cBC\x8e\x8d\x8f\x96"
_AFTER_MARK = b"dlitcIKNSVXUFLpq("
_HEAD = 256  # bytes that tell a pickle
_MOST_PICKLES = 1000
_MOST_VALUES = 50_000_000


def sniff(file: LocalFile) -> bool:
    """Tell whether the file begins as a pickle does; protocols 0 and 1 have no mark, so the suffix counts."""
    if (name := compression(file.head)) is not None:
        return file.path.lower().removesuffix(suffix_of(name)).endswith(SUFFIXES)
    if file.head[:1] == b"\x80":
        return _begins_with_mark(file.head)
    named = file.path.lower().endswith(SUFFIXES)
    return named and _begins_without_mark(file.head) and _last(file) == b"."


def _begins_with_mark(head: bytes) -> bool:
    """Tell whether these can be the first bytes of protocols 2 to 5."""
    if len(head) < 3 or not 2 <= head[1] <= 5:
        return False
    first = _FIRST_OF_4 if head[1] >= 4 else _FIRST_OF_2
    return head[0] == 0x80 and head[2] in first and MAGIC not in head[:32] and _DCP not in head[:64]


def _begins_without_mark(head: bytes) -> bool:
    """Tell whether these can be the first bytes of protocol 0 or 1."""
    if head[:1] == b"(":
        return head[1:2] in [bytes([code]) for code in _AFTER_MARK]
    if head[:1] in (b"]", b"}"):
        return head[1:2] in (b"q", b"r", b"p", b"(", b".")
    module, _, rest = head[1:].partition(b"\n")
    name, newline, _ = rest.partition(b"\n")
    words = [*module.split(b"."), name]
    return head[:1] == b"c" and newline == b"\n" and all(w.decode("latin-1").isidentifier() for w in words)


def _last(source: Source) -> bytes:
    return read(source, source.size - 1, 1)


def open(file: LocalFile) -> ParamTree:
    """Read the opcodes and return the tree; the values of arrays stay in the file until they are asked for.

    Raises:
        CorruptFileError: it is no pickle, is cut short, or holds an array that its bytes do not fill.
        UnsafeFileError: the pickle would call code of the standard library.
    """
    source = _source(file)
    found = PickledTree(
        file, NAME if source is file else f"{NAME}, {compression(file.head)}-compressed", in_unbuilt=None
    )
    storages = _Storages(source)
    values: list[Any] = []
    place = 0
    while place < source.size:
        if len(values) == _MOST_PICKLES:
            raise CorruptFileError(source.path, f"over {_MOST_PICKLES} pickles in a row", offset=place)
        value, place = load(
            source, place, storages.interpret, no_persistent, lazy=True,
            inline=lambda value, position: values_between(value, source, position),
        )  # fmt: skip
        values.append(value)
    for i, value in enumerate(values):
        path = (str(i),) if len(values) > 1 else ()
        optimizer = optimizer_of(value)
        budget, kind = min(source.size, _MOST_VALUES), None if optimizer is None else STATE
        meta = found.add(value, storages.find, budget, source, path=path, kind=kind)
        meta = meta if optimizer is None else optimizer
        found.meta.update({path[0]: meta} if path and meta else meta)
    if len(values) > 1:
        found.notes.append(f"the file is {len(values)} pickles in a row; names begin with their number")
    return found.tree()


def _source(file: LocalFile) -> Source:
    """Return the bytes of the pickles: the file, or what it inflates to."""
    name = compression(file.head)
    if name is None:
        return file
    source = Inflated(file, name)
    head = read(source, 0, min(source.size, _HEAD))
    if not _begins_with_mark(head) and not (_begins_without_mark(head) and _last(source) == b"."):
        raise CorruptFileError(
            file.path, f"it is compressed with {name}, and what is inside begins as no pickle does",
            advice=advice(file.path, name),
        )  # fmt: skip
    return source


class _Storages:
    """The storages of plainly pickled tensors: each is a whole file of ``torch.save``, as a byte string."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.sources: dict[str, Source | None] = {}

    def find(self, key: str) -> Source | None:
        """Return the bytes of the storage of a key."""
        return self.sources[key]

    def interpret(self, target: Global, args: tuple[Any, ...]) -> Any:
        """Return the record that stands for what a function of torch would return, or ``NotImplemented``."""
        if (target.module, target.name) != ("torch.storage", "_load_from_bytes"):
            return interpret(target, args)
        (raw,) = args
        if not isinstance(raw, bytes | Window):
            raise TypeError("a storage is no byte string")
        key = f"storage {len(self.sources)}"
        held: Source = (
            Window(raw.source, raw.start, raw.size, key)
            if isinstance(raw, Window)
            else Memory(raw, self.source.path, key)
        )
        value, find, _ = load_legacy(held)
        if not isinstance(value, StorageRecord):
            raise TypeError("a byte string holds no storage")
        self.sources[key] = find(value.key)
        return StorageRecord(key, value.dtype, value.size, value.first)
