"""What a format module and a framework module offer: plain names and functions, no base class.

A module satisfies these protocols by having the names (PEP 544, "modules as implementations of protocols").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.results import Derivative, Group
    from paratree.core.tree import ParamTree

    class File(Protocol):
        """An open file: its path, its first bytes, its size."""

        path: str
        head: bytes
        size: int

    class Output(Protocol):
        """A file that is written: ``paratree.files.output.Output``."""


class Format(Protocol):
    """A file format: one module in ``paratree/formats/``.

    Attributes:
        NAME: name of the format, as shown.
        SUFFIXES: what its files end in; they order the candidates, the bytes decide.
        FOLDER: patterns of the file that stands for a folder, the most telling first; ``#`` is a number, of
            which the greatest is taken.
        LAZY: whether one tensor can be read without the others, in a few words.
        TIES: how the format records ties, in a few words.
        READS: what is read, in a few words.
        EXTRA: the extra of ``pip install 'paratree[…]'`` that reading values needs, or ``None``.
        WRITES: names of the dtypes that can be written; empty if the format is read only.
        MAKES: of a format that writes, what: ``"file"``; ``"copy"``, of another file with other values;
            ``"files"``, an index and what lies beside it under its name; or ``"folder"``.
        FILES: of a format that makes folders, a regular expression: the paths in it of the files of one. A
            folder that has any other is never replaced.
    """

    NAME: str
    SUFFIXES: tuple[str, ...]
    FOLDER: tuple[str, ...]
    LAZY: str
    TIES: str
    READS: str
    EXTRA: str | None
    WRITES: Collection[str]
    MAKES: str
    FILES: str

    def sniff(self, file: File, /) -> bool:
        """Tell from the bytes whether the file is of this format."""
        ...

    def open(self, file: File, /) -> ParamTree:
        """Read the header only, check it against the file, and return the tree."""
        ...

    def holds_tie(self, tree: ParamTree, group: Sequence[str], /) -> bool:
        """Tell whether a tied group can be written so that opening the file ties it again, if it writes."""
        ...

    def save(self, tree: ParamTree, output: Output, /) -> Sequence[str]:
        """Write a tree; only a format that makes files has this, and only one that writes ``holds_tie``.

        The verb has seen to it that every array can be read and is of one of the dtypes, and that nothing is
        tied but what the format can hold so.

        Returns:
            What could not be written, a sentence each.

        Raises:
            UnsupportedError: a name that the format cannot hold.
        """
        ...

    def save_copy(self, tree: ParamTree, output: Output, like: object, /) -> Sequence[str]:
        """Write a copy of ``like``, a path or a live model, with the values of a tree; else as ``save``.

        Raises:
            UnsupportedError: ``like`` is none of this format.
            MismatchError: the names, shapes or dtypes of the tree are not those of ``like``.
        """
        ...

    def save_folder(self, tree: ParamTree, folder: str, written: Callable[[int], None], /) -> Sequence[str]:
        """Write a tree into an empty folder, which takes its place when it is complete; else as ``save``.

        ``written`` is called with the number of bytes of values whenever some were written.
        """
        ...

    def check_folder(self, tree: ParamTree, /) -> Sequence[str]:
        """Refuse what ``save_folder`` refuses, and return what it returns, without writing anything."""
        ...


class Live(Protocol):
    """What only a parameter of a live model has; each of it is found out when it is asked for.

    Two attributes are optional. ``deferred``, a ``bool``: whether the parameter waits for its shape, and the
    framework's ``allocate`` can give it memory. ``unwritable``, a ``str`` or ``None``: why ``assign`` would
    refuse one that has memory, and what to do: ``"fact; advice"``.
    """

    @property
    def handle(self) -> Any:
        """The framework's own object: ``torch.nn.Parameter``, ``gluon.Parameter``, ``nnx.Param``."""

    @property
    def native(self) -> str:
        """The framework's own expression for the handle, from ``net`` (a model) or ``params`` (arrays)."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other full names that the framework's users know it by."""

    @property
    def trainable(self) -> bool | None:
        """Whether training changes it."""

    @property
    def layout(self) -> str | None:
        """Names of the axes, or ``None``."""

    @property
    def grad(self) -> np.ndarray[Any, Any] | None:
        """The gradient, of the shape of the value; ``None`` before backpropagation."""


class Framework(Protocol):
    """A framework: one module in ``paratree/frameworks/``, named as the root package of its classes.

    Every function but ``matches`` and ``open`` takes the source and the tree that ``open`` gave of it. The
    verbs have resolved selectors, so names are names of the tree; they have checked shapes and dtypes, and
    they name a tied group by its first name only unless said otherwise. A function that the framework cannot
    offer raises :class:`~paratree.core.errors.UnsupportedError` with the reason and what to do instead.

    One function is optional: ``allocate(parameter, shape) -> undo``. It gives a parameter whose ``Live`` is
    ``deferred``, by its handle, memory of a shape, so that ``assign`` can fill it, and returns the function
    without arguments that takes it away again; if it fails, nothing is changed.
    """

    def matches(self, source: object, /) -> bool:
        """Tell whether ``source`` is a model, a layer or a state of this framework."""

    def open(self, source: object, /, *, grads: object = None) -> ParamTree:
        """Return a tree over the live object; values stay where they are.

        Args:
            source: the live object.
            grads: gradients held outside the model, in the framework's own structure, for ``grad`` of
                each parameter. Another structure is a ``MismatchError`` naming the first path.
        """

    def assign(self, source: Any, tree: ParamTree, values: Mapping[str, np.ndarray[Any, Any]], /) -> object:
        """Give parameters new values, each an array of the parameter's own shape and dtype.

        Returns:
            ``source`` itself where it can be changed in place, else a new one; tied names change together.
        """

    def tie(self, source: Any, tree: ParamTree, first: str, others: Sequence[str], /) -> object:
        """Make ``others`` the parameter ``first``: in place (return ``source``), or as a ``Tied``."""

    def untie(self, source: Any, tree: ParamTree, names: Sequence[str], /) -> object:
        """Give each of ``names`` a parameter of its own, of equal value: in place, or as a new source."""

    def freeze(self, source: Any, tree: ParamTree, names: Collection[str], frozen: bool, /) -> object:
        """Stop (or resume) the training of ``names``: in place (return ``source``), or as a ``Partition``.

        ``names`` holds every name of a tied group.
        """

    def groups(self, source: Any, tree: ParamTree, groups: Sequence[Group], /) -> object:
        """Return groups, which hold every trained parameter once, as the framework's optimizers take them."""

    def gradients(
        self,
        source: Any,
        tree: ParamTree,
        loss: Callable[..., Any],
        batch: tuple[Any, ...],
        names: Sequence[str],
        per_use: bool,
        /,
    ) -> Derivative:
        """Differentiate ``loss(source, *batch)`` by ``names``; change nothing in ``source``."""
