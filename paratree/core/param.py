"""A parameter: its name, its array, and what the source says about it."""

from __future__ import annotations

from math import prod

from paratree.core.dtypes import has_width, nbytes
from paratree.core.errors import UnreadableError, printable
from paratree.core.names import PARAMETER, role_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, LazyArray, Shape, Storage
    from paratree.core.plugin import Live


class Param:
    """One parameter or buffer: a name, its lazy array, and what the source says about it.

    Attributes:
        name: full dotted name in its source.
        array: shape and dtype now, values when asked.
        kind: ``"parameter"``, ``"buffer"``, ``"state"`` (of an optimizer) or ``"other"``.
        live: what only a live model has; ``None`` for a parameter of a file.
        is_saved: whether it is saved with its model, as all are but some buffers of torch.
    """

    __slots__ = ("_aliases", "_layout", "_trainable", "array", "is_saved", "kind", "live", "name")

    def __init__(
        self,
        name: str,
        array: LazyArray,
        kind: str = PARAMETER,
        *,
        trainable: bool | None = None,
        layout: str | None = None,
        live: Live | None = None,
        aliases: tuple[str, ...] = (),
        is_saved: bool = True,
    ) -> None:
        self.name, self.array, self.kind, self.live = name, array, kind, live
        self._trainable, self._layout, self._aliases = trainable, layout, aliases
        self.is_saved = is_saved

    @property
    def shape(self) -> Shape:
        """Length along each axis; ``None`` where it is not known yet."""
        return self.array.shape

    @property
    def dtype(self) -> str:
        """Name of the dtype, as ``"bfloat16"``."""
        return self.array.dtype

    @property
    def storage(self) -> Storage | None:
        """Where the values live; parameters of equal storage, shape and dtype are tied."""
        return self.array.storage

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.array.shape)

    @property
    def size(self) -> int | None:
        """Number of values; ``None`` while a dimension is unknown."""
        shape = self.array.shape
        return None if None in shape else prod(shape)  # type: ignore[arg-type]

    @property
    def nbytes(self) -> int | None:
        """Bytes of the values without gaps; ``None`` while the size or the dtype's width is unknown."""
        size = self.size
        return None if size is None or not has_width(self.dtype) else nbytes(size, self.dtype)

    @property
    def role(self) -> str | None:
        """Part it plays in its layer, from its name: ``"weight"`` also for a Keras or Flax ``kernel``."""
        return role_of(self.name)

    @property
    def trainable(self) -> bool | None:
        """Whether training changes it; ``None`` when the source does not say."""
        return self._trainable if self.live is None else self.live.trainable

    @property
    def layout(self) -> str | None:
        """Names of the axes, as ``"out in"``; ``None`` when the source does not say."""
        return self._layout if self.live is None else self.live.layout

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names that the framework has for it and that look-ups and selectors know."""
        return self._aliases if self.live is None else self.live.aliases

    @property
    def handle(self) -> Any:
        """The framework's own object, as ``torch.nn.Parameter``; ``None`` for a parameter of a file."""
        return None if self.live is None else self.live.handle

    @property
    def native(self) -> str | None:
        """The framework's own expression for it, as ``"net[2].bias"``; ``None`` for one of a file.

        ``net`` stands for the model that was opened, ``params`` for a tree of arrays.
        """
        return None if self.live is None else self.live.native

    @property
    def value(self) -> np.ndarray[Any, Any]:
        """The values, in the source's own layout: the live memory of a model, a copy from a file.

        Raises:
            UnreadableError: NumPy cannot hold the values, or there are none yet.
            CorruptFileError: the file has changed since it was opened.
        """
        return self.array.read()

    @property
    def grad(self) -> np.ndarray[Any, Any] | None:
        """The gradient of a live parameter, of the shape of its value; ``None`` before backpropagation."""
        return None if self.live is None else self.live.grad

    def __getitem__(self, index: Index) -> np.ndarray[Any, Any]:
        """Return the values at a basic NumPy index; from a file, little more than they is read."""
        return self.array.read(index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        value = self.array.read()
        if dtype is not None and value.dtype != dtype:
            if copy is False:
                raise ValueError(f"{printable(self.name)}: {self.dtype} as {dtype} needs a copy")
            return value.astype(dtype)
        return value.copy() if copy else value

    def __dlpack__(self, **options: Any) -> Any:
        return self._for_dlpack().__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._for_dlpack().__dlpack_device__()

    def _for_dlpack(self) -> np.ndarray[Any, Any]:
        value = self.array.read()
        if value.dtype.kind not in "biufc":
            raise UnreadableError(
                f"{printable(self.name)}: NumPy does not export {self.dtype} through DLPack; use .value"
            )
        return value if value.flags.writeable else value.copy()  # DLPack cannot say read-only everywhere

    def __repr__(self) -> str:
        shape = " × ".join("?" if n is None else str(n) for n in self.shape) or "scalar"
        words = [f"{shape} {printable(self.dtype)}"]
        if self.kind != PARAMETER:
            words.append(self.kind)
        if self.trainable is not None and self.kind == PARAMETER:
            words.append("trainable" if self.trainable else "frozen")
        if self.array.problem:
            words.append("not readable")
        return f"<Param {printable(self.name)}: {', '.join(words)}>"
