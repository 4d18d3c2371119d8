"""Sessions of ``scripts/test``: what is tested with which Python and which packages.

``scripts/nox`` runs this file with the nox and uv of an environment of its own; ``scripts/nox -l`` lists the
sessions, ``scripts/nox -s core -- -k safetensors`` runs a part of one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["check", "core", "oldest", "newest", "tests"]

MEASURED = ",".join(f"paratree/{room}" for room in ("core/*", "files/*", "formats/*", "registry.py"))
LEAST_COVERAGE = 95
REPORTS = Path(".cache/coverage.json")

# The versions of the frameworks are pinned where a reading is compared with theirs. torch stands there by its
# full version because any range, or any Python but 3.11, would bring several GB of CUDA packages with it.
FRAMEWORKS = [
    "torch==2.13.0",
    "tensorflow==2.21.0",
    "keras==3.15.1",
    "tf-keras==2.21.0",
    "jax==0.10.2",
    "flax==0.12.8",
    "optax==0.2.8",
    "polars==2.1.0",
    "dm-haiku==0.0.17",
    "equinox==0.13.8",
    "gguf==0.19.0",
    "mlx[cpu]==0.32.4",
    "numba==0.68.1",
    "onnx==1.23.2",
    "orbax-checkpoint==0.12.8",
    "tensorstore==0.1.86",
    "mxnet==1.9.1",  # its numpy<2 is taken back in pyproject.toml; tests/mxnet_numpy.py lets it import
    "transformers==4.57.6",  # the last with Flax and TensorFlow classes
]
PEERS = [  # as benchmarks/peers_tools.py names them; none of them hinders another
    "checkpoint-lens==0.1.2",
    "ckptkit[cli]==0.3.0",
    "diffai-python==0.5.2",
    "hf-mem==0.5.6",
    "modeldelta==0.4.4",
    "modelinfo-cli==1.4.4",
    "safetensors==0.8.0",
    "safetensors-print==0.1.0",
    "torchinfo==1.8.0",
    "torchsummary==1.5.1",
    "weightbridge==0.0.4",
    "weightlens==0.3.0",
    "weightscope==0.4.3",
]
BRIEF = ("-m", "not once")  # without what is long and the same with every version of a package
OLDEST = ["blake3==1.0.0", "h5py==3.8.0", "ml_dtypes==0.5.0", "numpy==1.23.5", "rich==13.7.0", "shtab==1.7.0"]


def _find_interpreters() -> None:
    """Let uv and nox see every Python that pyenv has, and the wheels that pip was told of."""
    os.environ["UV_PYTHON_DOWNLOADS"] = "never"
    os.environ.setdefault("UV_FIND_LINKS", os.environ.get("PIP_FIND_LINKS", ""))
    if shutil.which("pyenv"):
        listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True, check=True)
        current = ".".join(map(str, sys.version_info[:3]))
        versions = sorted(listed.stdout.split(), key=lambda version: version != current)
        os.environ["PYENV_VERSION"] = ":".join(versions)


_find_interpreters()


def _extras() -> str:
    """Return every extra that paratree offers, with commas between."""
    return ",".join(nox.project.load_toml("pyproject.toml")["project"].get("optional-dependencies", {}))


def _test(session: nox.Session, *packages: str, options: tuple[str, ...] = ()) -> None:
    """Install paratree, the test tools and ``packages``; fetch the real weights; run pytest."""
    session.install("-e", ".", "--group", "pyproject.toml:test", *packages)
    session.run(sys.executable, "-m", "tests.weights", external=True, silent=True)
    session.run("pytest", "-p", "no:cacheprovider", "-n", "2", *options, *session.posargs)


@nox.session(python="3.11")
def tests(session: nox.Session) -> None:
    """Everything: each reading against the framework's own, and the coverage of the reading half."""
    part = bool(session.posargs)
    measure = () if part else ("--cov", "--cov-report=")
    _test(session, *FRAMEWORKS, options=("--no-skips", *measure))
    if part:
        return
    session.run(
        "coverage", "report", f"--include={MEASURED}", "--skip-covered", f"--fail-under={LEAST_COVERAGE}"
    )
    session.run("coverage", "json", "--quiet", f"--include={MEASURED}", "-o", str(REPORTS))
    totals = json.loads(REPORTS.read_text(encoding="utf-8"))["totals"]
    lines, branches = totals["percent_statements_covered"], totals["percent_branches_covered"]
    session.log(f"core, files, formats, registry: {lines:.1f} % of lines, {branches:.1f} % of branches")
    if min(lines, branches) < LEAST_COVERAGE:
        session.error(f"below {LEAST_COVERAGE} %")


@nox.session(python="3.12")
def core(session: nox.Session) -> None:
    """No framework at all: every real file opens without one."""
    _test(session, options=BRIEF)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """The oldest dependencies that pyproject.toml promises, with MXNet as it was published."""
    _test(session, *OLDEST, "mxnet==1.9.1", options=BRIEF)


@nox.session(python="3.13")
def newest(session: nox.Session) -> None:
    """The newest Python and the newest of everything, with Keras on JAX."""
    session.env["KERAS_BACKEND"] = "jax"
    packages = ("jax", "flax", "optax", "dm-haiku", "equinox", "keras", "safetensors")
    _test(session, "--upgrade", *packages, options=BRIEF)


@nox.session(python="3.11")
def check(session: nox.Session) -> None:
    """Lint, format, types and who imports whom."""
    session.install("-e", ".", "--group", "pyproject.toml:check")
    session.run("ruff", "check", "--output-format=concise")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports")


@nox.session(python="3.11")
def bench(session: nox.Session) -> None:
    """Measure against peers, frameworks and bars, installed with bytecode, as pip does (no test)."""
    session.install(
        "--compile-bytecode",
        "--reinstall-package",
        "paratree",
        f".[{_extras()}]",
        "safetensors==0.8.0",
        "pytest",  # tests/mxnet_numpy.py
        *FRAMEWORKS,
    )
    session.run("python", "benchmarks/listing.py", *session.posargs)
    session.run("python", "-m", "benchmarks.formats", *session.posargs)
    session.run("python", "-m", "benchmarks.live", *session.posargs)
    session.run("python", "-m", "benchmarks.scan", *session.posargs)
    session.run("python", "-m", "benchmarks.compare", *session.posargs)
    session.run("python", "-m", "benchmarks.convert", *session.posargs)


@nox.session(python="3.11")
def peers(session: nox.Session) -> None:
    """Ask the released peers and paratree the same questions: ``-- --write docs/peers.md`` (no test)."""
    session.install("--compile-bytecode", "--reinstall-package", "paratree", ".", "torch==2.13.0", *PEERS)
    session.run("python", "-m", "benchmarks.peers", *session.posargs)


@nox.session(python="3.11")
def fuzz(session: nox.Session) -> None:
    """Feed changed files to the reader of a format: ``-- FORMAT SECONDS`` (no test)."""
    session.install("-e", f".[{_extras()}]", "atheris==3.0.0")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session(python="3.11")
def crash(session: nox.Session) -> None:
    """Let every call of every writer fail, cut the power, read meanwhile: docs/durability.md (no test)."""
    session.install("-e", f".[{_extras()}]", "h5py>=3.8")
    session.run("python", "-m", "tests.crash", *session.posargs)
