"""The tree of parameters, and what it was opened from."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index as whole_number

from paratree.core.errors import NoSuchParamError, printable
from paratree.core.names import PARAMETER, split
from paratree.core.param import Param

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, ItemsView, Iterable, Iterator, ValuesView
    from types import TracebackType
    from typing import Any, Self

    from paratree.core.renames import Rename
    from paratree.core.select import Selector
    from paratree.core.totals import Total


class Origin:
    """What a tree was opened from; subtrees and selections share it.

    Attributes:
        source: path, or the class of the live object.
        format: name of the format or framework.
        meta: plain values that stand beside the parameters: epoch, learning rate, configuration.
        notes: what one should know, a sentence each: what was not understood, what was skipped.
        immutable: whether the arrays cannot be changed, so that tied names part when they are trained.
        files: paths of the files that were opened so far; it grows if others are opened when values are read.
    """

    __slots__ = ("_closers", "files", "format", "immutable", "meta", "notes", "source")

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
        self.files: Collection[str] = ()

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
    def files(self) -> Collection[str]:
        """Paths of the files that were opened so far, of a checkpoint that has others read when asked."""
        return self._origin.files

    @files.setter
    def files(self, paths: Collection[str]) -> None:
        self._origin.files = paths

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
        return self.with_params({name: param for name, param in self._params.items() if fits(name, param)})

    # Trees made of it: no value is read until it is asked for

    def with_params(self, params: Mapping[str, Param]) -> ParamTree:
        """Return a tree of other parameters, opened from the same."""
        return ParamTree(params, self._origin, self._prefix)

    def rename(self, rename: Rename) -> ParamTree:
        """Return a tree with other names, in the same order; arrays, ties and live objects are the same.

        Args:
            rename: names -> new names, of which the first that fits counts: ``*`` and ``**`` stand on both
                sides for what they match, in and across segments; an ``re.Pattern`` (searched) for what
                :func:`re.sub` makes of it. Or a function of a name.

        Raises:
            NoSuchParamError: a rule fits no name.
            MismatchError: two names become the same, or a rule has not as many wildcards on both sides.

        Example:
            >>> tree.rename({"encoder.**": "model.encoder.**"})  # doctest: +SKIP
        """
        from paratree.core.surgery import renamed

        return renamed(self, rename)

    def drop(self, pattern: Selector) -> ParamTree:
        """Return a tree without what fits a selector, as in :meth:`select`.

        Raises:
            NoSuchParamError: nothing fits.
            MismatchError: everything does.
        """
        from paratree.core.surgery import dropped

        return dropped(self, pattern)

    def cast(self, dtype: str, select: Selector | None = None) -> ParamTree:
        """Return a tree whose floating values are cast when they are read; integers stay as they are.

        Rounded once, to nearest, ties to even; quantised values are decoded. Tied names stay tied.

        Args:
            dtype: name of a floating dtype, as ``"bf16"`` or ``"bfloat16"``.
            select: only what fits, as in :meth:`select`.

        Raises:
            MismatchError: it is no name of a floating dtype.
            NoSuchParamError: nothing fits.
        """
        from paratree.core.surgery import cast

        return cast(self, dtype, select)

    def untie(self) -> ParamTree:
        """Return a tree in which every name has values of its own; what is saved of it is not tied."""
        from paratree.core.surgery import untied

        return untied(self, [name for group in self.ties for name in group[1:]])

    def __or__(self, other: object) -> ParamTree:
        """Return the parameters of both; of a name that both have, those of the other, as with dicts."""
        if not isinstance(other, ParamTree):
            return NotImplemented
        from paratree.core.surgery import joined

        return joined(self, other)

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
