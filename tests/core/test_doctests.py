"""The examples in the documentation of the core are true."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import paratree.core

MODULES = [f"paratree.core.{module.name}" for module in pkgutil.iter_modules(paratree.core.__path__)]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module(module):
    assert doctest.testmod(import_module(module)).failed == 0
