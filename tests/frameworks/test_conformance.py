"""Every framework adapter against the one suite of ``paratree.testing``, on models built natively."""

from importlib import import_module

import pytest

from paratree.testing import CHECKS, check

FRAMEWORKS = {  # module of cases -> what it needs
    "flax": ["flax"],
    "jax": ["jax", "equinox", "haiku", "optax"],
    "keras": ["keras 3", "its backend"],
    "mxnet": ["mxnet"],
    "tensorflow": ["tensorflow"],
    "tf_keras": ["tf_keras"],
    "torch": ["torch"],
}


def cases():
    for name, needs in FRAMEWORKS.items():
        try:
            module = import_module(f"tests.frameworks.cases.{name}")
        except ImportError:
            yield pytest.param(None, id=name, marks=pytest.mark.skip(reason=f"needs {', '.join(needs)}"))
            continue
        yield from (pytest.param(case, id=f"{name}: {case.name}") for case in module.CASES)


@pytest.mark.parametrize("one", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", list(cases()))
def test_conformance(case, one):
    one(case)


def test_the_whole_suite_is_one_call():
    first = next((param.values[0] for param in cases() if param.values[0] is not None), None)
    if first is None:
        pytest.skip("no framework is installed here")
    check(first)
