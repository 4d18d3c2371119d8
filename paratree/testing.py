"""The conformance suite of frameworks: what must hold of every adapter, checked on models built natively.

For authors of a framework module: describe small models as :class:`Case`, with the framework's own answers,
and run ``check(case)`` for each in a test. Nothing here needs a test runner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from paratree.core.errors import MismatchError, NoSuchParamError, UnreadableError, UnsupportedError
from paratree.core.names import PARAMETER
from paratree.core.param import Param
from paratree.core.results import Labels, Partition, Tied
from paratree.registry import find_framework
from paratree.registry import open as open_tree
from paratree.verbs.gradients import gradients
from paratree.verbs.training import freeze, groups, unfreeze
from paratree.verbs.tying import tie, untie
from paratree.verbs.update import update

if TYPE_CHECKING:
    from paratree.core.array import Shape
    from paratree.core.tree import ParamTree

    Values = np.ndarray[Any, Any]

_ZERO = 1e-4  # of the largest gradient: below, a gradient is what rounding leaves of zero
_RELATIVE = 1e-6  # between a tied gradient and the sum of its uses, in float32


class Fact(NamedTuple):
    """What the framework itself says of one name.

    Attributes:
        name: name as the framework's users know it.
        shape: length along each axis; ``None`` where it is not known yet.
        dtype: name of the dtype.
        value: the values by the framework's own call; ``None`` if there are none yet.
        kind: ``"parameter"``, ``"buffer"``, ``"state"`` or ``"other"``.
    """

    name: str
    shape: Shape
    dtype: str
    value: Values | None
    kind: str = PARAMETER


class Loss(NamedTuple):
    """A loss, and the framework's own gradients of it.

    Attributes:
        function: ``function(source, *batch)``.
        batch: what else it takes.
        gradients: ``gradients(source)`` by the framework's own call, under the tree's names; a tied parameter
            has the sum under its first name, the other names may be left out.
        uses: name -> how often the loss uses it, where that is known.
    """

    function: Callable[..., Any]
    batch: tuple[Any, ...]
    gradients: Callable[[Any], Mapping[str, Values | None]]
    uses: Mapping[str, int] = {}


@dataclass(frozen=True)
class Case:
    """A model, and what its framework says of it.

    Attributes:
        name: what it is, as ``"tied"``.
        build: makes it anew, the same each time.
        facts: what the framework says of each name, in model order.
        size: number of values of its parameters by the framework's own count, tied ones once.
        ties: the tied groups.
        loss: a loss of it, if it can be run.
        tie: names of two parameters of equal shape to tie, if it has such.
        in_place: whether the framework changes models in place.
        can_freeze: whether the framework can freeze single parameters.
        advice: part of the message on reading what has no values yet: the call to make.
    """

    name: str
    build: Callable[[], Any]
    facts: Callable[[Any], Sequence[Fact]]
    size: Callable[[Any], int]
    ties: tuple[tuple[str, ...], ...] = ()
    loss: Loss | None = None
    tie: tuple[str, str] | None = None
    in_place: bool = True
    can_freeze: bool = True
    advice: str | None = None


def check(case: Case) -> None:
    """Run every check on a case.

    Raises:
        AssertionError: one of them does not hold; its message begins with the name of the case.
    """
    for one in CHECKS:
        one(case)


def check_listing(case: Case) -> None:
    """Names, order, shapes, dtypes and kinds are the framework's."""
    source = case.build()
    tree = open_tree(source)
    ours = [(name, p.shape, p.dtype, p.kind) for name, p in tree.items()]
    theirs = [(fact.name, tuple(fact.shape), fact.dtype, fact.kind) for fact in case.facts(source)]
    _equal(case, "the listing", ours, theirs)
    assert all(p.name == name for name, p in tree.items()), f"{case.name}: a parameter is called by its name"


def check_values(case: Case) -> None:
    """Values are the framework's to the last bit; what has none is refused with the next step."""
    source = case.build()
    tree = open_tree(source)
    for name, _, dtype, value, _ in case.facts(source):
        param = tree[name]
        if value is None:
            _refused(case, param)
            continue
        assert param.value.dtype.name == dtype, (
            f"{case.name}: {name} reads as {param.value.dtype}, not {dtype}"
        )
        assert param.value.shape == value.shape, (
            f"{case.name}: {name}: {param.value.shape}, not {value.shape}"
        )
        assert param.value.tobytes() == value.tobytes(), f"{case.name}: {name} has other values"
        if value.ndim and value.size:
            assert param[-1].tobytes() == value[-1].tobytes(), f"{case.name}: {name}[-1] has other values"


def check_counts(case: Case) -> None:
    """A tied parameter is counted once, in values and in bytes."""
    source = case.build()
    tree = open_tree(source)
    facts = [fact for fact in case.facts(source) if fact.kind == PARAMETER]
    _equal(case, "the number of values", tree.size, case.size(source))
    repeats = sum(len(group) - 1 for group in case.ties)
    _equal(case, "the number of parameters", tree.totals[PARAMETER].count, len(facts) - repeats)


def check_ties(case: Case) -> None:
    """Ties are the expected ones; a change through one name is seen through the others."""
    source = case.build()
    tree = open_tree(source)
    _equal(case, "the ties", tree.ties, case.ties)
    for group in case.ties:
        if tree[group[0]].array.problem is not None:
            continue
        new = np.asarray(tree[group[0]].value + 1)
        changed = open_tree(update(source, {group[-1]: new}))
        assert all((changed[name].value == new).all() for name in group), (
            f"{case.name}: {group} change together"
        )
        _equal(case, "the ties after a change", changed.ties, case.ties)
        return


def check_native(case: Case) -> None:
    """The framework's own expression of every parameter gives the parameter."""
    source = case.build()
    for name, param in open_tree(source).items():
        if param.array.problem is not None and param.native is None:
            continue  # nothing stands for it yet, as before the init of a Flax module
        assert _evaluated(param, source) is param.handle, f"{case.name}: {param.native} is not {name}"


def check_update(case: Case) -> None:
    """New values arrive, bit for bit, in the framework's own reading; a refused update changes nothing."""
    source = case.build()
    tree = open_tree(source)
    chosen = {
        name: p for name, p in tree.items() if p.array.problem is None and _is_first(tree, name) and p.size
    }
    new = {name: _other_values(param) for name, param in chosen.items()}
    wrong = np.zeros((7, 7, 7, 7, 7, 7))
    before = {name: p.value.tobytes() for name, p in chosen.items()}
    for name in list(chosen)[-1:]:
        _raises(case, MismatchError, lambda: update(source, {**new, name: wrong}))  # noqa: B023 -- called at once
        _equal(case, "the values after a refusal", _bytes(open_tree(source), chosen), before)
    _raises(case, NoSuchParamError, lambda: update(source, {"no.such.name": 0}))
    if not chosen:
        return
    if len(chosen) > 1:
        _raises(case, MismatchError, lambda: update(source, {"**": 0, next(iter(chosen)): 0}))
    result = update(source, new)
    assert (result is source) == case.in_place, f"{case.name}: update returns {'the source' * case.in_place}"
    assert type(result) is type(source), f"{case.name}: update returns a {type(result).__name__}"
    facts = {fact.name: fact.value for fact in case.facts(result)}
    for name, values in new.items():
        assert facts[name].tobytes() == values.tobytes(), f"{case.name}: {name} did not get its values"  # type: ignore[union-attr]


def check_training(case: Case) -> None:
    """Freezing and groups: frozen is frozen under every tied name, groups hold every other parameter once."""
    source = case.build()
    tree = open_tree(source)
    names = [name for name, p in tree.items() if p.kind == PARAMETER and _is_first(tree, name)]
    if not names:
        return
    last = names[-1]
    _raises(case, NoSuchParamError, lambda: freeze(source, "no.such.name"))
    _raises(case, NoSuchParamError, lambda: groups(source, {"no.such.name": {}}))
    if all(
        p.native is None for p in tree.values()
    ):  # nothing to mark yet, as before the init of a Flax module
        _raises(case, UnsupportedError, lambda: groups(source, {last: {}}))
        _raises(case, UnsupportedError, lambda: freeze(source, last))
        return
    found = groups(source, {last: {"lr_mult": 0.5}})
    assert found, f"{case.name}: there are groups"
    if isinstance(found, Labels):
        labels = {name: _evaluated(tree[name], found.labels) for name in names}
        _equal(case, "the label", labels[last], last)
        assert set(labels.values()) <= set(found.options), f"{case.name}: every label has options"
    if not case.can_freeze:
        return
    frozen = freeze(source, last)
    if isinstance(frozen, Partition):
        _check_partition(case, frozen, last, names)
        return
    assert frozen is source, f"{case.name}: freeze returns the source"
    now = open_tree(source)
    assert not any(now[name].trainable for name in tree.tied_with(last)), f"{case.name}: {last} is frozen"
    others = [name for name in names if name != last and tree[name].trainable]
    assert all(now[name].trainable for name in others), f"{case.name}: nothing else is frozen"
    unfreeze(source, last)
    assert open_tree(source)[last].trainable, f"{case.name}: {last} is trained again"


def _check_partition(case: Case, frozen: Partition, last: str, names: Sequence[str]) -> None:
    """Check that the parts make up the whole, and that more can be frozen and thawed."""
    whole, source = frozen.merge(frozen.trainable, frozen.frozen), case.build()
    _equal(case, "the merged values", _all_bytes(open_tree(whole)), _all_bytes(open_tree(source)))
    twins, trained = _twins(source, last), _trained(frozen)
    assert not twins & trained, f"{case.name}: {last} is not in the trained part"
    thawed = _trained(unfreeze(frozen, last))
    assert thawed & twins, f"{case.name}: {last} is trained again"
    _equal(case, "the rest that is trained", thawed - twins, trained)
    left = _trained(freeze(frozen, names[0]))
    _equal(case, f"what is trained without {names[0]}", left, trained - _twins(source, names[0]))


def _trained(parted: Partition) -> set[str]:
    whole = parted.merge(parted.trainable, parted.frozen)
    return set(find_framework(whole).open(parted.trainable))


def _twins(source: Any, name: str) -> set[str]:
    return set(open_tree(source).tied_with(name))


def check_gradients(case: Case) -> None:
    """Gradients are the framework's own, the uses of each add up to it, and the model is left as it was."""
    if case.loss is None:
        return
    source = case.build()
    before = _all_bytes(open_tree(source))
    found = gradients(source, case.loss.function, *case.loss.batch, per_use=True)
    plain = gradients(source, case.loss.function, *case.loss.batch)
    assert _all_bytes(open_tree(source)) == before, f"{case.name}: taking gradients changed the model"
    _equal(case, "the losses", plain.loss, found.loss)
    tree = open_tree(source)
    own = case.loss.gradients(case.build())
    largest = max((_size(gradient) for gradient in own.values() if gradient is not None), default=0.0)
    for name, theirs in own.items():
        ours = found[name]
        for name_of_it in tree.tied_with(name):
            assert found[name_of_it] is ours, f"{case.name}: {name} and {name_of_it} have one gradient"
        assert (ours is None or not ours.any()) if theirs is None else ours is not None, (
            f"{case.name}: {name}"
        )
        if theirs is None or ours is None:
            continue
        _close(case, name, ours, theirs, largest)
        _close(case, name, plain[name], theirs, largest)  # type: ignore[arg-type]
        added = sum((use.gradient for use in found.uses[name]), np.zeros_like(theirs))
        _close(case, f"the uses of {name}", added, theirs, largest)
    for name, number in case.loss.uses.items():
        _equal(case, f"the number of uses of {name}", len(found.uses[name]), number)


def check_tying(case: Case) -> None:
    """Two parameters become one and are parted again; their gradients add up while they are one."""
    if case.tie is None:
        return
    first, other = case.tie
    source = case.build()
    size = open_tree(source)[first].size
    assert size, f"{case.name}: {first} has values"
    _raises(case, NoSuchParamError, lambda: tie(source, first, "no.such.name"))
    _raises(case, MismatchError, lambda: untie(source, first))
    alone = open_tree(source).size
    apart = None if case.loss is None else gradients(source, case.loss.function, *case.loss.batch)
    kept = open_tree(source)[first].value.copy()
    result = tie(source, first, other)
    whole = result.expand(result.variables) if isinstance(result, Tied) else result
    if isinstance(result, Tied):
        assert other not in open_tree(result.variables), (
            f"{case.name}: {other} is not in the reduced variables"
        )
    tree = open_tree(whole)
    assert any({first, other} <= set(group) for group in tree.ties), (
        f"{case.name}: {first} and {other} are tied"
    )
    _equal(case, "the number of values", tree.size, alone - size)
    assert (tree[other].value == kept).all(), f"{case.name}: {other} has the values of {first}"
    if case.loss is not None and apart is not None:
        together = gradients(whole, case.loss.function, *case.loss.batch, per_use=True)
        _equal(case, "the number of uses", len(together.uses[first]), len(together.uses[other]))
        assert len(together.uses[first]) > 1, f"{case.name}: {first} is used more than once"
    parted = open_tree(untie(whole, other))
    assert not any({first, other} <= set(group) for group in parted.ties), (
        f"{case.name}: the names are parted"
    )
    assert (parted[other].value == kept).all(), f"{case.name}: parting changes no value"


CHECKS = (
    check_listing,
    check_values,
    check_counts,
    check_ties,
    check_native,
    check_update,
    check_training,
    check_gradients,
    check_tying,
)


def _equal(case: Case, what: str, ours: object, theirs: object) -> None:
    assert ours == theirs, f"{case.name}: {what}: {ours!r} here, {theirs!r} by the framework"


def _size(values: Values) -> float:
    wide = np.complex128 if values.dtype.kind == "c" else np.float64
    return float(np.abs(values.astype(wide)).max(initial=0.0))


def _close(case: Case, what: str, ours: Values, theirs: Values, largest: float) -> None:
    wide = np.complex128 if theirs.dtype.kind == "c" else np.float64
    size = _size(theirs) if _size(theirs) > _ZERO * largest else largest
    tolerance = _RELATIVE if theirs.dtype.name in ("float32", "float64") else 2e-2
    assert ours.shape == theirs.shape, (
        f"{case.name}: {what}: {ours.shape} here, {theirs.shape} by the framework"
    )
    assert np.allclose(ours.astype(wide), theirs.astype(wide), rtol=0, atol=tolerance * size), (
        f"{case.name}: {what} differ from the framework's gradient"
    )


def _evaluated(param: Param, source: Any) -> Any:
    assert param.native, f"{param.name} has an expression"
    return eval(param.native, {"net": source, "params": source})  # noqa: S307 -- an expression of the adapter's own


def _refused(case: Case, param: Param) -> None:
    error = _raises(case, UnreadableError, lambda: param.value)
    assert param.name in str(error), f"{case.name}: the message names {param.name}: {error}"
    assert case.advice is not None, f"{case.name}: {param.name} has no values, and the case expects them"
    assert case.advice in str(error), f"{case.name}: the message says what to do: {error}"


def _raises(case: Case, kind: type[Exception], call: Callable[[], object]) -> Exception:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{case.name}: no {kind.__name__} was raised")


def _is_first(tree: ParamTree, name: str) -> bool:
    return not any(name in group[1:] for group in tree.ties)


def _bytes(tree: ParamTree, names: Any) -> dict[str, bytes]:
    return {name: tree[name].value.tobytes() for name in names}


def _all_bytes(tree: ParamTree) -> dict[str, bytes]:
    return {name: p.value.tobytes() for name, p in tree.items() if p.array.problem is None}


def _other_values(param: Param) -> Values:
    values = np.array(param.value)
    if values.dtype.kind == "b":
        return ~values
    return np.asarray(values + np.ones((), values.dtype)).astype(values.dtype)
