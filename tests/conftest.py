"""What holds for every test: quiet frameworks, nobody's own settings, no silent skips."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}
for _name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "PYTHONWARNINGS"):
    os.environ.pop(_name, None)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the processes that tests start would ignore it

# A shared machine can be slow, so no deadline; what fails once in CI must fail for the next person too.
hypothesis.settings.register_profile("paratree", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("paratree")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failed run")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that is green only because a package was missing, where none should be."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and session.config.getoption("--no-skips") and (skipped := reporter.stats.get("skipped")):
        reporter.write_line(f"\n{len(skipped)} skipped, and here nothing may be", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def numbered_from_the_start() -> None:
    """Keras names layers and optimizers by counting (``adam_1``): in no test by how many ran before it."""
    if keras := sys.modules.get("keras"):
        keras.utils.clear_session(free_memory=False)
    if tf_keras := sys.modules.get("tf_keras"):
        tf_keras.backend.clear_session()


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that makes a package look uninstalled, modules of it that are imported already included."""

    def hide(package: str) -> None:
        for name in {package, *(name for name in sys.modules if name.startswith(f"{package}."))}:
            monkeypatch.setitem(sys.modules, name, None)

    return hide
