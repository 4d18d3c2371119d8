"""Fill a live model from any source: everything is read and checked before anything is written."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, cast

import numpy as np

from paratree.core.errors import printable
from paratree.core.tree import ParamTree
from paratree.engine import check_workers
from paratree.registry import find_framework
from paratree.verbs._arguments import prefixes_of, renaming_of, selector_of
from paratree.verbs._axes import are_turned, other_order
from paratree.verbs._load_causes import groups_of
from paratree.verbs._load_plan import Wanted, plan
from paratree.verbs._load_report import Loaded, LoadError, ParamLoad
from paratree.verbs._load_shared import without_clashes
from paratree.verbs._load_values import How, is_deferred, taken
from paratree.verbs.reading import opened, selected, unsaved_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from paratree.core.param import Param
    from paratree.core.plugin import Framework
    from paratree.core.renames import Rename
    from paratree.core.select import Selector
    from paratree.engine import Progress
    from paratree.verbs._load_plan import Plan

    Values = np.ndarray[Any, Any]

_MOST_NAMES = 6  # in a note
__all__ = ["LoadError", "Loaded", "ParamLoad", "load"]


def load(
    model: Any,
    source: object,
    *,
    select: Selector | None = None,
    prefix: str = "",
    rename: Rename | None = None,
    strip: str | Iterable[str] = (),
    strict: bool = True,
    progress: Progress | None = None,
) -> Loaded:
    """Give a live model the parameters and buffers of a file or of another model, all of them or none.

    Names match as in :func:`paratree.diff`; layers of Keras that differ in nothing but the numbers that it
    counts up (``dense``, ``dense_3``), in their order, as Keras itself loads them. Everything is read, cast
    and checked first, so that all values are in memory once; if the framework then fails half way, the old
    ones are put back.

    A floating value is rounded once to the dtype of the model, a quantised one decoded, and an integer stays
    exactly what it is. A ``kernel`` takes a ``weight`` with its axes turned, where frameworks have them so;
    what else frameworks do each in its own way, as the order of gates, or of what is flattened before a dense
    layer, is not turned. A tied parameter takes the value of any of its names, and of several if they are
    equal. Parameters of Gluon that wait for their shape get that of what they take, as ``load_parameters``
    gives it to them.

    Args:
        model: a live model of any framework, or a tree of arrays.
        source: a path, a tree or a part of one, or a live model.
        select: which parameters of the source to take, as in :meth:`paratree.ParamTree.select`. Then only
            those of the model have to be filled whose names in the source it would have chosen, too.
        prefix: what stands before their names in the model, as ``"backbone."``, or the name of that layer;
            nothing else is to be filled.
        rename: names of the source -> names of the model (without the prefix), as in :func:`paratree.diff`.
        strip: prefixes to take from the names of both, as ``"module."``.
        strict: whether to change nothing unless everything fits. If not, what fits is loaded, and the report
            says what did not.
        progress: called with the bytes that are read and the bytes of all.

    Returns:
        A report with a row for each parameter, and the model: ``found.model`` is ``model`` itself, changed in
        place, where the framework can do that, and a new tree of arrays where it cannot (Flax linen, JAX).
        Optimizer state is loaded if the model has it; what a framework does not save, and counters, need not
        be in the source.

    Raises:
        LoadError: with ``strict``, something is missing, unexpected or does not fit, or there is nothing to
            load. It is a ``MismatchError``, and its ``report`` is what this function returns otherwise.
        NoSuchParamError: nothing fits ``select`` or ``prefix``, or a name to rename is not there.
        MismatchError: two names become the same, or an option has no meaning.
        CorruptFileError: the file is damaged.

    Example:
        >>> pt.load(net, "model.safetensors")  # doctest: +SKIP
        >>> params = pt.load(params, "model.msgpack").model  # doctest: +SKIP
        >>> pt.load(net, "bert.bin", select="encoder.**", prefix="backbone.")  # doctest: +SKIP
    """
    check_workers(None, None, progress)
    wanted = Wanted(selector_of(select), prefix, renaming_of(rename), prefixes_of(strip))
    framework = find_framework(model)
    tree = framework.open(model)
    if prefix and isinstance(tree.get(prefix), ParamTree):  # the name of a layer
        wanted = wanted._replace(prefix=f"{prefix}.")
    with opened(source) as whole:
        chosen = selected(whole, wanted.select)
        found = plan(tree, whole, chosen, wanted, unsaved_names(tree))
        turned = are_turned(_paired(tree, found), (tree, whole), tree)
        how = How(bool(turned), not isinstance(source, str | PathLike))
        read, values = without_clashes(*_read(tree, found, how, progress), tree)
        rows = _in_order([*read, *found.rest], tree)
        groups = groups_of(rows, found, wanted)
        report = Loaded(
            model, whole.source, tree.source, rows, groups, found.ties, found.hidden, applied=False,
            notes=_guessed(rows, tree, found),
        )  # fmt: skip
    if strict and not report.complete:
        raise LoadError(report)
    filled = _assigned(framework, model, tree, values) if values else model
    return replace(report, model=filled, applied=True)


def _read(
    tree: ParamTree, found: Plan, how: How, progress: Progress | None
) -> tuple[list[ParamLoad], dict[str, Values]]:
    """Return a row for each parameter that something is there for, and what those that can are to hold."""
    sizes = {name: sum(found.chosen[other].nbytes or 0 for other in found.jobs[name]) for name in found.jobs}
    total, done = sum(sizes.values()), 0
    rows: list[ParamLoad] = []
    values: dict[str, Values] = {}
    for name, others in found.jobs.items():
        param, (_, *tied) = tree[name], tree.tied_with(name)
        sources = [found.chosen[other] for other in others]
        got = taken(param, sources, tied, how)
        shape, size = (param.shape, param.size) if got.values is None else (got.values.shape, got.values.size)
        shapes, dtypes = (shape, sources[0].shape), (param.dtype, sources[0].dtype)
        rows.append(
            ParamLoad(
                name, others[0], got.status, shapes, dtypes, tuple(tied), size, got.changed, got.axes,
                got.problem, got.fix,
            )
        )  # fmt: skip
        if got.values is not None:
            values[name] = got.values
        done += sizes[name]
        if progress is not None:
            progress(done, total)
    return rows, values


def _paired(tree: ParamTree, found: Plan) -> list[tuple[Param, Param]]:
    return [(tree[name], found.chosen[other]) for name, others in found.jobs.items() for other in others]


def _guessed(rows: Iterable[ParamLoad], tree: ParamTree, found: Plan) -> tuple[str, ...]:
    """Say which kernels were taken for those of convolutions that are not transposed, as most are not."""
    pairs = [(tree[row.name], found.chosen[row.other]) for row in rows if row.other and row.axes is not None]
    names = [
        printable(a.name)
        for a, b in pairs
        if a.layout is None and b.layout is None and other_order(a, b) is not None
    ]
    if not names:
        return ()
    some = ", ".join(names[:_MOST_NAMES]) + ", …" * (len(names) > _MOST_NAMES)
    return (f"as wide in as out, and turned as of convolutions that are not transposed ones of Flax: {some}",)


def _in_order(rows: Iterable[ParamLoad], tree: ParamTree) -> tuple[ParamLoad, ...]:
    places = {name: place for place, name in enumerate(tree)}
    last = len(places)
    return tuple(sorted(rows, key=lambda row: last if row.dtypes[0] is None else places[row.name]))


# Writing


def _assigned(framework: Framework, model: Any, tree: ParamTree, values: dict[str, Values]) -> Any:
    """Give the model its values; if the framework fails, or is interrupted, put the old ones back.

    The old ones are kept one by one as the new ones are given up: together they take the memory of either.
    What had no memory yet gets it with the shape of its values, and after a failure has none again.
    """
    if tree.immutable:  # a new tree, or none
        return framework.assign(model, tree, values)
    old: dict[str, Values] = {}
    undo: list[Callable[[], None]] = []
    filled = model
    try:
        for name in [*values]:
            if is_deferred(tree[name]):
                undo.append(cast("Any", framework).allocate(tree[name].handle, values[name].shape))
            else:
                old[name] = np.array(tree[name].value)
            filled = framework.assign(filled, tree, {name: values.pop(name)})
    except BaseException as error:
        framework.assign(model, tree, dict(reversed(old.items())))  # as memory may be shared
        for part in undo:
            part()
        error.add_note("paratree: nothing is changed; the old values were put back")
        raise
    return filled
