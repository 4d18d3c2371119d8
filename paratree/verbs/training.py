"""What is trained, and how: freeze, unfreeze, groups for an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from paratree.core.errors import MismatchError
from paratree.core.names import PARAMETER
from paratree.core.results import Group, Partition
from paratree.registry import find_framework
from paratree.verbs.choose import Choice, is_real, options_of, text_of, trained

if TYPE_CHECKING:
    from typing import Any

    from paratree.core.select import Selector

DEFAULT = "default"


def freeze(source: Any, selector: Selector) -> Any:
    """Stop the training of the parameters that a selector chooses; a tied group as a whole.

    Args:
        source: a live model, a tree of arrays, or what ``freeze`` returned for one.
        selector: as in :meth:`ParamTree.select`; buffers, which no optimizer trains, are passed over.

    Returns:
        ``source`` itself, changed in place, where parameters are marked: PyTorch (``requires_grad``), Gluon
        (``grad_req="null"``), Keras 3 (``trainable``). For JAX, whose arrays have none, a ``Partition``: an
        Optax mask, the trained and the frozen leaves, and ``merge``. For NNX a ``Partition``, too, of which
        ``mask`` is a filter (``nnx.Optimizer(..., wrt=mask)``, ``nnx.DiffState(0, mask)``) and the parts
        states.

    Raises:
        NoSuchParamError: the selector chooses no parameter.
        UnsupportedError: the framework cannot freeze it; the message says what it can.

    Example:
        >>> pt.freeze(net, "encoder.**")  # doctest: +SKIP
    """
    return _set(source, selector, frozen=True)


def unfreeze(source: Any, selector: Selector) -> Any:
    """Resume the training of the parameters that a selector chooses: the reverse of :func:`freeze`.

    Args:
        source: a live model, or the ``Partition`` that ``freeze`` returned.
        selector: as in :meth:`ParamTree.select`.

    Returns:
        As :func:`freeze`.

    Raises:
        NoSuchParamError: the selector chooses no parameter.
        UnsupportedError: the framework cannot.

    Example:
        >>> pt.unfreeze(net, "encoder.layer.11.**")  # doctest: +SKIP
    """
    return _set(source, selector, frozen=False)


def _set(source: Any, selector: Selector, *, frozen: bool) -> Any:
    whole = _whole(source)
    framework = find_framework(whole)
    tree = framework.open(whole)
    choice = Choice(tree)
    names = [name for first in choice.names(selector, kind=PARAMETER) for name in choice.group(first)]
    if not frozen:
        names = [name for name in names if is_real(tree[name])]
    if not isinstance(source, Partition):
        return framework.freeze(source, tree, names, frozen)
    trained = set(framework.open(source.trainable))
    left = {
        name
        for name, param in tree.items()
        if param.kind == PARAMETER and trained.isdisjoint(choice.group(name))
    }
    return framework.freeze(whole, tree, left.union(names) if frozen else left.difference(names), True)


def groups(source: Any, options: Mapping[Any, Any]) -> Any:
    """Sort the trained parameters into groups with options of their own for an optimizer.

    What no selector chooses comes last, in a group ``"default"`` without options: nothing is left untrained
    because a selector forgot it. Frozen parameters and buffers are in no group; a tied one is in one, once.

    Args:
        source: a live model, a tree of arrays, or what ``freeze`` returned for one.
        options: selector -> options, as ``{"**.bias": {"weight_decay": 0.0}}``.

    Returns:
        What the framework's optimizers take: PyTorch, a list of parameter groups; JAX, ``Labels`` (a tree of
        labels for ``optax.multi_transform``, and label -> options); Gluon and Keras, which have multipliers
        by parameter at best, option -> the framework's own name of the parameter -> value.

    Raises:
        NoSuchParamError: a selector chooses no parameter.
        MismatchError: two selectors choose one parameter.

    Example:
        >>> torch.optim.AdamW(pt.groups(net, {"**.bias": {"weight_decay": 0.0}}), lr=1e-3)  # doctest: +SKIP
    """
    whole = _whole(source)
    framework = find_framework(whole)
    tree = framework.open(whole)
    choice = Choice(tree)
    chosen = choice.each(options_of(options, "options"), kind=PARAMETER)
    for selector, given in options.items():
        if not isinstance(given, Mapping):
            raise MismatchError(
                f"the options of {text_of(selector)} are a {type(given).__name__}; give a dict"
            )
    names = trained(tree, choice)
    if isinstance(source, Partition):
        names = [name for name in names if name in framework.open(source.trainable)]
    found = [
        Group(text_of(selector), tuple(n for n in names if n in chosen and chosen[n][0] is selector), given)
        for selector, given in options.items()
    ]
    if rest := tuple(name for name in names if name not in chosen):
        found.append(Group(DEFAULT, rest, {}))
    return framework.groups(whole, tree, found)


def _whole(source: Any) -> Any:
    return source.merge(source.trainable, source.frozen) if isinstance(source, Partition) else source
