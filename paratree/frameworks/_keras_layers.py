"""The layers and variables of a Keras model, of Keras 3 and of Keras 2 alike (imports no Keras).

The two differ in where a layer keeps its variables and sublayers: a :class:`Dialect` says that.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from paratree.core.errors import UnreadableError, printable
from paratree.core.layout import KERAS, KERAS_PARTS, keras_layout
from paratree.frameworks._keras_labels import held_in, keys_of, path_to
from paratree.frameworks._keras_unbuilt import is_statistic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, LazyArray, Shape, Storage

    Values = np.ndarray[Any, Any]
    Top = tuple[str, Any, dict[int, int]]  # an expression, the layer, where its weights stand

ADVICE = "not initialised yet; call net(X) or net.build(input_shape)"
PACKAGES = ("keras", "tf_keras")


class Dialect(NamedTuple):
    """What a generation of Keras says about its layers and variables.

    Attributes:
        own: variables of a layer itself, in Keras's order: those made to be trained, then the others.
        kind: what one of the others is.
        uses: layers that a model uses, each as often as it does, if it says so.
        children: sublayers, in Keras's order; one may come several times.
        own_first: whether a layer's own variables come before those of its sublayers; ``None``: always.
        weights: what Keras lists as the ``weights`` of a layer; nothing if it refuses to before it is built.
        ordered: variables of a layer and its sublayers in Keras's order, where the walk has another.
        path: Keras's own name of a variable, its parts separated by slashes.
        array: array of a variable, given its name.
        trains: whether training changes a variable, given the layers around it, the outermost first.
        gradient: gradient that a variable itself holds, as an array.
        read: gradient given from outside, as an array.
    """

    own: Callable[[Any], tuple[Sequence[Any], Sequence[Any]]]
    kind: Callable[[Any], str]
    uses: Callable[[Any], Sequence[Any]]
    children: Callable[[Any], Sequence[Any]]
    own_first: Callable[[Any], bool] | None
    weights: Callable[[Any], Sequence[Any]]
    ordered: Callable[[Any], Sequence[Any] | None]
    path: Callable[[Any], str]
    array: Callable[[Any, str], LazyArray]
    trains: Callable[[Any, Sequence[Any]], bool]
    gradient: Callable[[Any], Values | None]
    read: Callable[[Any], Values]


class Place:
    """A layer in a model.

    Attributes:
        layer: the layer.
        dialect: of its generation of Keras.
        parent: place of the layer around it; ``None`` for the outermost.
        name: its name; empty for the outermost.
        prefix: what its variables' names begin with.
        top: expression of the layer whose ``weights`` hold them, that layer, and where each stands there,
            which is filled when it is asked for.
    """

    __slots__ = ("dialect", "layer", "name", "parent", "prefix", "top")

    def __init__(
        self, dialect: Dialect, layer: Any, parent: Place | None, name: str, prefix: str, top: Top
    ) -> None:
        self.dialect, self.layer, self.parent = dialect, layer, parent
        self.name, self.prefix, self.top = name, prefix, top

    @property
    def _way(self) -> list[Place]:
        way, place = [self], self.parent
        while place is not None:
            way.append(place)
            place = place.parent
        return way[::-1]

    @property
    def above(self) -> list[Any]:
        """The layers around it, the outermost first, and itself."""
        return [place.layer for place in self._way]

    @property
    def names(self) -> list[str]:
        """Their names, without that of the outermost."""
        return [place.name for place in self._way[1:]]

    def position(self, variable: Any) -> str:
        """Return the expression for a variable."""
        native, layer, positions = self.top
        if id(variable) not in positions:
            positions.clear()
            positions.update({id(weight): i for i, weight in enumerate(self.dialect.weights(layer))})
        if id(variable) in positions:
            return f"{native}.weights[{positions[id(variable)]}]"
        step = next((held.step for held in held_in(self.layer) if held.value is variable), "")
        return native + path_to(layer, self.above) + step


class Weight:
    """A variable in a layer: array and live part in one, as there may be many."""

    __slots__ = ("gradient", "handle", "key", "place")

    def __init__(self, handle: Any, place: Place, key: str) -> None:
        self.handle, self.place, self.key, self.gradient = handle, place, key, None

    @property
    def _array(self) -> LazyArray:
        return self.place.dialect.array(self.handle, self.place.prefix + self.key)

    @property
    def shape(self) -> Shape:
        """Length along each axis."""
        return self._array.shape

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self._array.dtype

    @property
    def storage(self) -> Storage | None:
        """The variable, or what it shares with another."""
        return self._array.storage

    @property
    def problem(self) -> str | None:
        """Why there is no value to read now."""
        return self._array.problem

    def read(self, index: Index = ...) -> Values:
        """Return the values at a basic index."""
        return self._array.read(index)

    @property
    def native(self) -> str:
        """The expression: ``net.layers[2].weights[1]``."""
        return self.place.position(self.handle)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Keras's own path of the variable, if that is another name."""
        path = self.place.dialect.path(self.handle)
        return () if path.replace("/", ".") == self.place.prefix + self.key else (path,)

    @property
    def trainable(self) -> bool:
        """Whether training changes it: the variable, and the layers around it, say so."""
        return self.place.dialect.trains(self.handle, self.place.above)

    @property
    def layout(self) -> str | None:
        """Names of the axes, by the class of the layer."""
        return layout_in(self.place, self.key, len(self.shape))

    @property
    def grad(self) -> Values | None:
        """The gradient given to ``open``, else the one that the variable holds."""
        if self.gradient is None:
            return self.place.dialect.gradient(self.handle)
        return self.place.dialect.read(self.gradient)


class Unbuilt:
    """A variable that a layer will have; as soon as it is there, that variable.

    Until then its ``handle`` is the layer that will make it.
    """

    __slots__ = ("_dtype", "_expected", "gradient", "key", "place")

    def __init__(self, place: Place, key: str, expected: Shape, dtype: str) -> None:
        self.place, self.key, self._expected, self._dtype = place, key, expected, dtype
        self.gradient: Any = None

    @property
    def _variable(self) -> Any:
        return keys_of(self.place).get(self.key)

    @property
    def live(self) -> Weight | None:
        """The variable in its layer, when it is there."""
        variable = self._variable
        return None if variable is None else Weight(variable, self.place, self.key)

    @property
    def shape(self) -> Shape:
        """What is known of the shape."""
        return self._expected if (live := self.live) is None else live.shape

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self._dtype if (live := self.live) is None else live.dtype

    @property
    def storage(self) -> Storage | None:
        """The variable, when it is there."""
        return None if (live := self.live) is None else live.storage

    @property
    def problem(self) -> str | None:
        """Which call makes the variable."""
        if (live := self.live) is not None:
            return live.problem
        return f"{printable(self.place.prefix + self.key)}: {ADVICE}"

    def read(self, index: Index = ...) -> Values:
        """Return the values, when they are there.

        Raises:
            UnreadableError: the layer is not built yet.
        """
        if (live := self.live) is None:
            raise UnreadableError(self.problem)
        return live.read(index)

    @property
    def handle(self) -> Any:
        """The variable, or the layer that will make it."""
        return self.place.layer if (variable := self._variable) is None else variable

    @property
    def native(self) -> str:
        """The expression for the handle."""
        if (live := self.live) is not None:
            return live.native
        native, layer, _ = self.place.top
        return native if layer is self.place.layer else native + path_to(layer, self.place.above)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Keras's own path, when there is one."""
        return () if (live := self.live) is None else live.aliases

    @property
    def trainable(self) -> bool:
        """Whether training will change it."""
        if (live := self.live) is not None:
            return live.trainable
        return not is_statistic(self.key) and all(layer.trainable for layer in self.place.above)

    @property
    def layout(self) -> str | None:
        """Names of the axes, by the class of the layer."""
        return layout_in(self.place, self.key, len(self.shape))

    @property
    def grad(self) -> Values | None:
        """None before it is there."""
        return None if (live := self.live) is None else live.grad


# Layouts


def layout_in(place: Place, key: str, ndim: int) -> str | None:
    """Return the layout of a variable by the class of its layer, or by the part that plays in another."""
    row = ""
    if place.parent is not None:
        row = KERAS_PARTS.get(row_of(place.parent.layer), {}).get(place.layer.name, "")
    if row not in KERAS:
        row = row_of(place.layer)
    if key == "depthwise_kernel" and row.startswith("Depthwise"):
        key = "kernel"  # what Keras 3 calls it
    return keras_layout(row, key, ndim)


def row_of(layer: Any) -> str:
    """Return the nearest of Keras's own classes that the tables know, or an empty text."""
    layer_class: type = type(layer)
    return _row_of(layer_class)


@lru_cache(maxsize=1024)
def _row_of(layer_class: type) -> str:
    for base in layer_class.__mro__:
        own = base.__module__.partition(".")[0] in PACKAGES
        if own and (base.__name__ in KERAS or base.__name__ in KERAS_PARTS):
            return base.__name__
    return ""
