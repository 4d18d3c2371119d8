"""The conformance suite catches a broken adapter: each check fails on the fault that it is there for."""

import numpy as np
import pytest

from paratree import testing
from paratree.core.param import Param
from paratree.core.results import Derivative
from paratree.core.tree import ParamTree

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")

from paratree.frameworks import torch as adapter  # noqa: E402
from tests.frameworks.cases.torch import CASES  # noqa: E402

CASE = {case.name: case for case in CASES}
OPEN = adapter.open


def altered(change):
    """Return an ``open`` that changes every parameter, or leaves it out."""

    def broken(source, *, grads=None):
        tree = OPEN(source, grads=grads)
        params = [new for param in tree.values() if (new := change(param)) is not None]
        return ParamTree(params, tree._origin)

    return broken


class Live:
    """What a live parameter says, with some of it changed."""

    def __init__(self, live, **changed):
        self._live, self._changed = live, changed

    def __getattr__(self, name):
        return self._changed[name] if name in self._changed else getattr(self._live, name)


class Values:
    """An array whose values are off in the last bit, or which has no identity."""

    def __init__(self, array, *, storage=True, bits=0):
        self._array, self._bits = array, bits
        self.storage = array.storage if storage else None

    def __getattr__(self, name):
        return getattr(self._array, name)

    def read(self, index=...):
        values = np.array(self._array.read(index))
        if self._bits and values.size:
            values.view(np.uint8).reshape(-1)[0] ^= 1
        return values


def with_array(**changed):
    return lambda p: Param(p.name, Values(p.array, **changed), p.kind, live=p.live)


def with_live(**changed):
    return lambda p: Param(p.name, p.array, p.kind, live=Live(p.live, **changed))


def no_gradients(source, tree, loss, batch, names, per_use):
    found = adapter_gradients(source, tree, loss, batch, names, per_use)
    zeros = [None if g is None else g * 0 for g in found.gradients]
    uses = (
        None
        if found.uses is None
        else [[use._replace(gradient=use.gradient * 0) for use in u] for u in found.uses]
    )
    return Derivative(found.loss, zeros, uses)


adapter_gradients = adapter.gradients

FAULTS = [
    ("plain", "check_listing", "open", altered(lambda p: p if p.name != "2.bias" else None)),
    ("plain", "check_listing", "open", altered(lambda p: Param(p.name, p.array, "buffer", live=p.live))),
    ("plain", "check_values", "open", altered(with_array(bits=1))),
    ("lazy", "check_values", "open", altered(lambda p: Param(p.name, Values(p.array), p.kind, live=p.live))),
    ("tied layer", "check_counts", "open", altered(with_array(storage=False))),
    ("tied layer", "check_ties", "open", altered(with_array(storage=False))),
    ("plain", "check_native", "open", altered(with_live(native="net[0].weight"))),
    ("plain", "check_update", "assign", lambda source, tree, values: source),
    ("tied layer", "check_ties", "assign", lambda source, tree, values: source),
    ("plain", "check_training", "freeze", lambda source, tree, names, frozen: source),
    ("plain", "check_training", "groups", lambda source, tree, groups: []),
    ("plain", "check_gradients", "gradients", no_gradients),
    ("plain", "check_tying", "tie", lambda source, tree, first, others: source),
    ("plain", "check_tying", "untie", lambda source, tree, names: source),
]


@pytest.mark.parametrize(("case", "check", "function", "broken"), FAULTS)
def test_a_broken_adapter_fails_its_check(case, check, function, broken, monkeypatch):
    run = getattr(testing, check)
    if case != "lazy":
        run(CASE[case])
    monkeypatch.setattr(adapter, function, broken)
    if case == "lazy":  # what has no values must say so, and what to do
        monkeypatch.setattr(Values, "read", lambda self, index=...: np.zeros(1))
    with pytest.raises(AssertionError, match=f"^{case}: "):
        run(CASE[case])


def test_every_check_has_a_fault_that_it_catches():
    assert {check for _, check, _, _ in FAULTS} == {check.__name__ for check in testing.CHECKS}
