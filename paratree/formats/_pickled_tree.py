"""The tree of what pickles hold: torch tensors, NumPy, JAX and MXNet arrays, plain values, and notes."""

from __future__ import annotations

from itertools import count

from paratree.core.errors import CorruptFileError
from paratree.core.layout import TORCH, layout_of
from paratree.core.names import OTHER, PARAMETER, join, kind_of
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.pickled import Global, Opaque
from paratree.formats._mxnet_pickled import is_mxnet_array, mxnet_array
from paratree.formats._nested import SCRIPT_OBJECT, Entry, Nested
from paratree.formats._numpy_pickled import is_numpy_array, numpy_array, plain_value
from paratree.formats._torch_tensors import StorageRecord, TensorRecord, array_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.local import LocalFile, Source

_CLASSES_SHOWN = 3


class PickledTree:
    """Collects the parameters, plain values and notes of the pickles of one file.

    Args:
        file: the file.
        format: name of its format, as shown.
        big_endian: storages of tensors have the most significant byte first.
        in_unbuilt: kind of the arrays inside objects of unknown classes; by name and dtype if ``None``.
    """

    def __init__(
        self, file: LocalFile, format: str, *, big_endian: bool = False, in_unbuilt: str | None = OTHER
    ) -> None:
        self.file, self.format, self.big_endian, self.in_unbuilt = file, format, big_endian, in_unbuilt
        self.params: dict[str, Param] = {}
        self.meta: dict[str, Any] = {}
        self.notes: list[str] = []
        self.closers = [file.close]
        self.unbuilt: dict[str, int] = {}
        self.declared: dict[str, dict[str, str]] = {}
        self.doubles = 0

    def add(
        self,
        root: Any,
        find: Callable[[str], Source | None],
        budget: int,
        source: Source,
        *,
        path: tuple[str, ...] = (),
        kind: str | None = None,
    ) -> dict[str, Any]:
        """Add the arrays that a pickle holds.

        Args:
            root: the value of the pickle.
            find: returns the bytes of the storage of a key.
            budget: how many values there may be: bytes of the pickle.
            source: where the pickle lies, for messages.
            path: what the names begin with.
            kind: kind of all arrays in it, if it is known.

        Returns:
            The plain values of the pickle.
        """
        nested = Nested(
            source, _is_array, _identity, _attached, _plain, budget, self.declared, self.in_unbuilt
        )
        meta = nested.walk(root)
        for name, times in nested.unbuilt.items():
            self.unbuilt[name] = self.unbuilt.get(name, 0) + times
        for entry in nested.entries:
            name = self.new_name((*path, *entry.path))
            self.params[name] = self._param(name, entry, find, kind)
        return meta

    def new_name(self, path: tuple[str, ...]) -> str:
        """Return the dotted name of a path, and NAME~2 where two paths (``1`` and ``"1"``) make one name."""
        name = join(path) if path else _stem(self.file.path)
        if name not in self.params:
            return name
        self.doubles += 1
        return next(other for n in count(2) if (other := f"{name}~{n}") not in self.params)

    def _param(
        self, name: str, entry: Entry, find: Callable[[str], Source | None], kind: str | None
    ) -> Param:
        array, found = self._array(name, entry.found, find), entry.found
        kind = kind or entry.kind
        trainable = None
        if isinstance(found, Opaque) and array.problem:
            kind = kind or OTHER
        if isinstance(found, TensorRecord):
            trainable = found.trainable
            if found.parameter and kind is None:
                kind = PARAMETER
        layout = None if entry.owner is None else _layout(entry.owner, entry.path[-1], len(array.shape))
        return Param(name, array, kind or kind_of(name, array.dtype), trainable=trainable, layout=layout)

    def _array(self, name: str, found: Any, find: Callable[[str], Source | None]) -> LazyArray:
        if isinstance(found, Opaque):
            describe = mxnet_array if is_mxnet_array(found) else numpy_array
            return describe(found, self.file, name)
        if isinstance(found, StorageRecord):
            found = TensorRecord(found, 0, (found.size,), (1,))
        storage = found.storage
        source = None if storage is None else find(storage.key)
        if source is not None and storage is not None:
            claimed = (storage.first + storage.size) * storage.itemsize
            if claimed > source.size:
                raise CorruptFileError(
                    self.file.path,
                    f"the storage claims {claimed} bytes and has {source.size}",
                    member=source.member,
                )
        return array_of(found, source, self.file, name, self.big_endian)

    def tree(self) -> ParamTree:
        """Return the tree of what was added, with the notes on it."""
        notes = [*self.notes]
        if self.doubles:
            notes.append(
                f"tensors whose joined keys are the name of another are listed as NAME~2: {self.doubles}"
            )
        if self.unbuilt:
            classes = list(self.unbuilt)
            more = f" and {len(classes) - _CLASSES_SHOWN} more" if len(classes) > _CLASSES_SHOWN else ""
            shown = ", ".join(classes[:_CLASSES_SHOWN])
            notes.append(f"classes named by the file were not built, only their values read: {shown}{more}")
        origin = Origin(self.file.path, self.format, self.meta, notes, self.closers)
        return ParamTree(self.params, origin)


def _layout(owner: Global, name: str, ndim: int) -> str | None:
    """Return the layout of a parameter of a pickled layer of ``torch.nn``, whose bases are not known."""
    if not owner.module.removeprefix("__torch__.").startswith("torch.nn."):
        return None
    norms = ("_NormBase",) if owner.name.startswith(("BatchNorm", "InstanceNorm", "SyncBatchNorm")) else ()
    return layout_of(TORCH, (owner.name, *norms), name, ndim)


def _is_array(value: Any) -> bool:
    return isinstance(value, TensorRecord | StorageRecord) or is_numpy_array(value) or is_mxnet_array(value)


def _identity(value: Any) -> Hashable:
    """Return what is equal for one array: the values of a storage in one order, or the very object."""
    if isinstance(value, TensorRecord) and value.storage is not None:
        numbers = (value.storage.first, value.offset, *value.shape, *value.strides)
        if all(type(number) is int for number in numbers):
            return (value.storage.key, value.dtype, len(value.shape), numbers)
    return id(value)


def _attached(value: Any) -> Any:
    return value.attributes if isinstance(value, TensorRecord) else None


def _plain(value: Opaque) -> Any:
    """Return what an opaque object holds if that is all there is to it, or the object itself."""
    if (value.target.module, value.target.name) == SCRIPT_OBJECT:
        match value.state:
            case (held, str()):  # and the name of its class
                return held
    return plain_value(value)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]
