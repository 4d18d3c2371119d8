"""Make several names one parameter, or give names a parameter of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratree.core.errors import MismatchError, NoSuchParamError, UnreadableError, printable
from paratree.core.param import Param
from paratree.registry import find_framework

if TYPE_CHECKING:
    from typing import Any

    from paratree.core.tree import ParamTree


def tie(source: Any, first: str, *others: str) -> Any:
    """Make every one of ``others`` the parameter ``first``: they change together, and count once.

    An optimizer that was made before still holds the parameters given up: make it anew.

    Args:
        source: a live model, or a tree of arrays.
        first: name of the parameter that stays.
        others: names, at least one, of parameters of the same shape and dtype; their values are given up.

    Returns:
        ``source`` itself, changed in place, where the framework can do that (PyTorch, Gluon, Keras, NNX).
        For a tree of immutable arrays (Flax linen, JAX), a ``Tied``: the ``variables`` without the others, to
        be trained, and ``expand``, which puts them back: ``net.apply(tied.expand(variables), X)``.

    Raises:
        NoSuchParamError: there is no parameter of a name.
        MismatchError: shapes or dtypes differ, or the names are one parameter already (in a tree of immutable
            arrays, two names of one array would part at the first step of training, and can be tied).
        UnreadableError: a parameter has no values yet.
        UnsupportedError: the framework cannot express it.

    Example:
        >>> pt.tie(net, "embed.weight", "head.weight")  # doctest: +SKIP
    """
    framework = find_framework(source)
    tree = framework.open(source)
    kept, *given_up = (_param(tree, name) for name in (first, *others))
    if not given_up:
        raise MismatchError(f"{printable(first)}: name a second parameter to tie it with")
    for param in given_up:
        pair = f"{printable(kept.name)} and {printable(param.name)}"
        one = param.name in tree.tied_with(kept.name) and param.handle is kept.handle
        if param is kept or (one and not tree.immutable):
            raise MismatchError(
                f"{printable(kept.name)} and {printable(param.name)} are one parameter already"
            )
        for what in ("shape", "dtype", "kind"):
            if (ours := getattr(param, what)) != (theirs := getattr(kept, what)):
                raise MismatchError(f"{pair} cannot be one parameter: their {what}s are {theirs} and {ours}")
    return framework.tie(source, tree, kept.name, [param.name for param in given_up])


def untie(source: Any, *names: str) -> Any:
    """Give each name a parameter of its own, of the value that it has now.

    An optimizer that was made before does not know the new parameters: make it anew.

    Args:
        source: a live model, or a tree of arrays.
        names: names, at least one, of tied parameters. The first of a tied group keeps the parameter if every
            name of the group is given.

    Returns:
        ``source`` itself, changed in place, where the framework can do that, else a new tree of arrays.

    Raises:
        NoSuchParamError: there is no parameter of a name.
        MismatchError: a parameter is not tied.
        UnsupportedError: the framework cannot express it.

    Example:
        >>> pt.untie(net, "head.weight")  # doctest: +SKIP
    """
    framework = find_framework(source)
    tree = framework.open(source)
    if not names:
        raise MismatchError("name at least one parameter to untie")
    chosen = dict.fromkeys(_param(tree, name).name for name in names)
    for name in chosen:
        if len(tree.tied_with(name)) == 1:
            groups = "; ".join(", ".join(map(printable, group)) for group in tree.ties[:3]) or "nothing"
            raise MismatchError(f"{printable(name)} is not tied; tied here: {groups}")
    leaving = [
        name
        for name in chosen
        if (group := tree.tied_with(name))[0] != name or not chosen.keys() >= set(group)
    ]
    return framework.untie(source, tree, leaving)


def _param(tree: ParamTree, name: str) -> Param:
    param = tree[name]
    if not isinstance(param, Param):
        raise NoSuchParamError(name, tree, tree.source)
    if param.array.problem is not None:
        raise UnreadableError(param.array.problem)
    return param
