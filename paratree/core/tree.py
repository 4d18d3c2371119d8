"""A parameter, and the tree of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from operator import index as whole_number

from paratree.core.dtypes import has_width, nbytes
from paratree.core.errors import NoSuchParamError, UnreadableError, printable
from paratree.core.names import PARAMETER, role_of, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, ItemsView, Iterable, Iterator, ValuesView
    from types import TracebackType
    from typing import Any, Self

    import numpy as np

    from paratree.core.array import Index, LazyArray, Shape, Storage
    from paratree.core.plugin import Live
    from paratree.core.select import Selector
    from paratree.core.totals import Total


class Param:
    """One parameter or buffer: a name, its lazy array, and what the source says about it.

    Attributes:
        name: full dotted name in its source.
        array: shape and dtype now, values when asked.
        kind: ``"parameter"``, ``"buffer"``, ``"state"`` (of an optimizer) or ``"other"``.
        live: what only a live model has; ``None`` for a parameter of a file.
    """

    __slots__ = ("_aliases", "_layout", "_trainable", "array", "kind", "live", "name")

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
    ) -> None:
        self.name, self.array, self.kind, self.live = name, array, kind, live
        self._trainable, self._layout, self._aliases = trainable, layout, aliases

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


class Origin:
    """What a tree was opened from; subtrees and selections share it.

    Attributes:
        source: path, or the class of the live object.
        format: name of the format or framework.
        meta: plain values that stand beside the parameters: epoch, learning rate, configuration.
        notes: what one should know, a sentence each: what was not understood, what was skipped.
        immutable: whether the arrays cannot be changed, so that tied names part when they are trained.
    """

    __slots__ = ("_closers", "format", "immutable", "meta", "notes", "source")

    def __init__(
        self,
        source: str,
        format: str,
        meta: Mapping[str, Any] | None = None,
        notes: Iterable[str] = (),
        closers: Iterable[Callable[[], None]] = (),
        *,
        immutable: bool = False,
    ) -> None:
        self.source, self.format, self.immutable = source, format, immutable
        self.meta: Mapping[str, Any] = {} if meta is None else meta
        self.notes, self._closers = tuple(notes), tuple(closers)

    def close(self) -> None:
        """Close every file that the tree reads from."""
        for close in self._closers:
            close()


class _Layers(tuple["ParamTree", ...]):
    """Layers, in order; asked for one that is not there, it says how many there are."""

    __slots__ = ()

    def __getitem__(self, place: Any) -> Any:
        try:
            return super().__getitem__(place)
        except IndexError:
            raise IndexError(f"no layer {place}: there are {len(self)} layers") from None


class ParamTree(Mapping[str, Param]):
    """An ordered, read-only mapping from dotted names to parameters.

    ``tree["encoder.0.weight"]`` is one parameter, ``tree["encoder.0"]`` the subtree below that name,
    ``tree[2]`` the third child, ``tree.layers[1].bias`` a parameter by its role in a layer.
    A subtree maps names relative to itself; its parameters keep their full names.
    """

    __slots__ = ("_children", "_layers", "_lookup", "_origin", "_params", "_prefix", "_tied_with", "_ties")

    def __init__(
        self, params: Iterable[Param] | Mapping[str, Param], origin: Origin, prefix: str = ""
    ) -> None:
        if not isinstance(params, Mapping):
            params = {param.name: param for param in params}
        self._params: Mapping[str, Param] = params
        self._origin, self._prefix = origin, prefix
        self._children: dict[str, Param | ParamTree] | None = None
        self._lookup: dict[str, str] | None = None
        self._layers: tuple[ParamTree, ...] | None = None
        self._ties: tuple[tuple[str, ...], ...] | None = None
        self._tied_with: dict[str, tuple[str, ...]] | None = None

    # What it was opened from

    @property
    def source(self) -> str:
        """Path, or the class of the live object; messages show it, and it can be set, for subtrees too."""
        return self._origin.source

    @source.setter
    def source(self, name: str) -> None:
        self._origin.source = name

    @property
    def format(self) -> str:
        """Name of the format or framework, as ``"safetensors"``."""
        return self._origin.format

    @property
    def prefix(self) -> str:
        """Name of this subtree in the whole tree; empty for the whole."""
        return self._prefix

    @property
    def notes(self) -> tuple[str, ...]:
        """What one should know about the source, a sentence each."""
        return self._origin.notes

    @property
    def immutable(self) -> bool:
        """Whether the arrays cannot be changed (JAX): tied names part when they are trained."""
        return self._origin.immutable

    @property
    def meta(self) -> Any:
        """Plain values of the source at this place: ``tree.meta["epoch"]``, ``tree["optimizer"].meta``."""
        value: Any = self._origin.meta
        for part in split(self._prefix) if self._prefix else ():
            value = value.get(part, {}) if isinstance(value, Mapping) else {}
        return value

    def close(self) -> None:
        """Close the files behind the tree; parameters already read stay readable."""
        self._origin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The mapping

    def __len__(self) -> int:
        return len(self._params)

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def values(self) -> ValuesView[Param]:
        """The parameters, in order."""
        return self._params.values()

    def items(self) -> ItemsView[str, Param]:
        """The names with their parameters, in order."""
        return self._params.items()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __getitem__(self, name: str | int) -> Any:  # Param | ParamTree: which one, the name tells
        """Return a parameter, a subtree, or the child at a position.

        Raises:
            NoSuchParamError: there is neither; the message names the nearest parameters.
            IndexError: there are fewer children.
        """
        if not isinstance(name, str):
            return self._child(name)
        if (found := self._find(name)) is None:
            raise NoSuchParamError(name, self._params, self.source)
        return found

    def _child(self, position: Any) -> Param | ParamTree:
        try:
            place = whole_number(position)
        except TypeError:
            kind = type(position).__name__
            raise TypeError(f"look up a name or a position, not an object of type {kind}") from None
        children = tuple(self.children.values())
        if not -len(children) <= place < len(children):
            raise IndexError(f"there is no child {place}; the tree has {len(children)}")
        return children[place]

    def _find(self, name: str) -> Param | ParamTree | None:
        if (param := self._params.get(name)) is not None:
            return param
        if self._lookup is None:
            self._lookup = {a.replace("/", "."): n for n, p in self._params.items() for a in p.aliases}
            self._lookup |= {n.replace("/", "."): n for n in reversed(list(self._params)) if "/" in n}
        dotted = name.replace("/", ".")
        if dotted in self._params:
            return self._params[dotted]
        if dotted in self._lookup:
            return self._params[self._lookup[dotted]]
        return self._subtree(dotted)

    def _subtree(self, dotted: str) -> ParamTree | None:
        start, cut = dotted + ".", len(dotted) + 1
        below = {n[cut:]: p for n, p in self._params.items() if n.replace("/", ".").startswith(start)}
        return self._at(dotted, below) if below else None

    def _at(self, name: str, params: Mapping[str, Param]) -> ParamTree:
        return ParamTree(params, self._origin, f"{self._prefix}.{name}" if self._prefix else name)

    @property
    def children(self) -> Mapping[str, Param | ParamTree]:
        """The parameters and subtrees one segment down, in order; a parameter hides a subtree of its name."""
        if self._children is None:
            below: dict[str, dict[str, Param] | Param] = {}
            for name, param in self._params.items():
                head, dot, _ = name.replace("/", ".").partition(".")
                if not dot:
                    below[head] = param
                elif isinstance(group := below.setdefault(head, {}), dict):
                    group[name[len(head) + 1 :]] = param
            self._children = {
                head: self._at(head, group) if isinstance(group, dict) else group
                for head, group in below.items()
            }
        return self._children

    @property
    def layers(self) -> tuple[ParamTree, ...]:
        """The subtrees that own parameters directly, in order: the same expression for every framework."""
        if self._layers is None:
            owners: dict[str, dict[str, Param]] = {}
            for name in self._params:
                owners[name.replace("/", ".").rpartition(".")[0]] = {}
            for name, param in self._params.items():
                dotted = name.replace("/", ".")
                cut = dotted.rfind(".")
                while cut >= 0:
                    if (owner := owners.get(dotted[:cut])) is not None:
                        owner[name[cut + 1 :]] = param
                    cut = dotted.rfind(".", 0, cut)
            self._layers = _Layers(
                self._at(owner, params) if owner else self for owner, params in owners.items()
            )
        return self._layers

    def __getattr__(self, name: str) -> Param:
        """Return the parameter of this layer that has the name, or else the role: ``layer.weight``."""
        if name.startswith("_"):
            raise AttributeError(name)
        own = {n: p for n, p in self._params.items() if "." not in n and "/" not in n}
        if name in own:
            return own[name]
        of_role = [p for p in own.values() if p.role == name]
        if len(of_role) == 1:
            return of_role[0]
        where = f"the layer '{printable(self._prefix)}'" if self._prefix else "the tree"
        names = ", ".join(printable(n) for n in list(own)[:8]) or "none of its own"
        count = f"{len(of_role)} parameters of role" if of_role else "no parameter or role"
        raise AttributeError(f"{where} has {count} '{name}'; its parameters: {names}")

    def select(
        self,
        pattern: Selector | None = None,
        *,
        role: str | Iterable[str] | None = None,
        kind: str | Iterable[str] | None = None,
        dtype: str | Iterable[str] | None = None,
        ndim: int | Iterable[int] | None = None,
    ) -> ParamTree:
        """Return the tree of the parameters that fit everything given.

        Args:
            pattern: a glob (``*`` inside a segment, ``**`` across, ``{a,b}``, ``{0..11}``), an ``re.Pattern``
                (searched), a function of a ``Param``, or an iterable of these, any of which may fit.
            role: one or several of the roles, as ``"weight"``.
            kind: one or several of ``"parameter"``, ``"buffer"``, ``"state"``, ``"other"``.
            dtype: one or several names of dtypes.
            ndim: one or several numbers of axes.

        Returns:
            A tree with the same names, in the same order; empty if nothing fits.

        Example:
            >>> tree.select("**.attention.**", role="weight")  # doctest: +SKIP
        """
        from paratree.core.select import tests_of

        fits = tests_of(pattern, role=role, kind=kind, dtype=dtype, ndim=ndim)
        chosen = {name: param for name, param in self._params.items() if fits(name, param)}
        return ParamTree(chosen, self._origin, self._prefix)

    # Ties and totals

    @property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        """Groups of two or more names that are one parameter: by their storage, never by equal values."""
        if self._ties is None:
            from paratree.core.totals import tied_groups

            self._ties = tied_groups(self._params)
        return self._ties

    def tied_with(self, name: str) -> tuple[str, ...]:
        """Return every name in this tree of the parameter of that name, itself included, in order."""
        if self._tied_with is None:
            self._tied_with = {tied: group for group in self.ties for tied in group}
        return self._tied_with.get(name, (name,))

    def handles(self, names: Iterable[str]) -> list[Any]:
        """Return the framework's own objects behind parameters, each once."""
        found = [self._params[name].handle for name in names]
        return list({id(handle): handle for handle in found}.values())

    @property
    def totals(self) -> Mapping[str, Total]:
        """Per kind: names, parameters, values and bytes, a tied group counted once and expanded."""
        from paratree.core.totals import totals_by_kind

        return totals_by_kind(self._params, self.ties)

    @property
    def size(self) -> int:
        """Number of values of the parameters (not buffers, not state), a tied group counted once."""
        return self.totals[PARAMETER].size

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters (not buffers, not state), a tied group counted once."""
        return self.totals[PARAMETER].nbytes

    @property
    def expanded_size(self) -> int:
        """Number of values of the parameters, a tied group counted under each of its names."""
        return self.totals[PARAMETER].expanded_size

    @property
    def expanded_nbytes(self) -> int:
        """Bytes of the parameters, a tied group counted under each of its names."""
        return self.totals[PARAMETER].expanded_nbytes

    # How it looks

    def __repr__(self) -> str:
        from paratree.render.text import one_line

        return one_line(self)

    def __rich__(self) -> Any:
        from paratree.render.terminal import table
        from paratree.verbs.show import show

        return table(show(self))

    def _repr_html_(self) -> str:
        from paratree.render.html import foldable

        return foldable(self)
