"""What changing or differentiating a live model gives, in the form that the frameworks return it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    Values = np.ndarray[Any, Any]


class Use(NamedTuple):
    """One place where the loss uses a parameter.

    Attributes:
        gradient: what this use adds to the gradient, of the shape of the parameter.
        by: the framework's word for the operation that uses it, as ``"linear"``.
    """

    gradient: Values
    by: str


class Derivative(NamedTuple):
    """What a framework found of a loss; the lists stand in the order of the names that were asked for.

    Attributes:
        loss: value of the loss.
        gradients: arrays of the parameters' shapes; ``None`` where the loss does not depend on it.
        uses: the uses of each, in the order in which the loss meets them; ``None`` if not asked for.
    """

    loss: float
    gradients: Sequence[Values | None]
    uses: Sequence[Sequence[Use]] | None


class Group(NamedTuple):
    """Parameters that an optimizer treats alike.

    Attributes:
        label: the selector's text, or ``"default"`` for what no selector chose.
        names: names in the tree, a tied group by its first name only.
        options: what the user gave for them; empty for the default group.
    """

    label: str
    names: tuple[str, ...]
    options: Mapping[str, Any]


class Tied(NamedTuple):
    """A tree of immutable arrays in which some leaves are another leaf.

    Attributes:
        variables: the tree without the leaves that are tied to another; train these.
        expand: returns the whole tree from such variables, as the model takes it; use it inside the loss,
            so that the gradients of all uses are added together.
    """

    variables: Any
    expand: Callable[[Any], Any]


class Partition(NamedTuple):
    """A tree of immutable arrays, parted into what is trained and what is frozen.

    Attributes:
        mask: the same structure with ``True`` where trained. ``optax.masked`` alone would hand the gradients
            of the others on; ``optax.multi_transform({True: tx, False: optax.set_to_zero()}, mask)`` keeps
            them still. For a model of Flax NNX, a filter, as ``wrt=`` of ``nnx.Optimizer`` takes it.
        trainable: the trained leaves, ``None`` in place of the others; differentiate by these.
        frozen: the frozen leaves, ``None`` in place of the others.
        merge: returns the whole tree of such a pair, ``merge(trainable, frozen)``.
    """

    mask: Any
    trainable: Any
    frozen: Any
    merge: Callable[[Any, Any], Any]


class Labels(NamedTuple):
    """Groups as a tree of labels.

    Attributes:
        labels: the same structure with the label of each leaf's group, as ``optax.multi_transform`` takes it.
        options: label -> what the user gave for it.
    """

    labels: Any
    options: Mapping[str, Mapping[str, Any]]
