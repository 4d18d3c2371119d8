"""What the command line imports: a cold start is mostly imports, and these are counted, not timed."""

import subprocess
import sys

import pytest

from tests.attacks.makers import entry, safetensors

HEAVY = {"numpy", "h5py", "ml_dtypes", "rich"}
SLOW = {
    "dataclasses",
    "inspect",
    "typing",
    "pathlib",
    "shutil",
    "zipfile",
    "tempfile",
    "subprocess",
    "importlib.metadata",
    "logging",
    "difflib",
    "unicodedata",
    "fnmatch",
    "traceback",
    "html",
    "asyncio",
    "contextlib",
}
RUN = (
    "import sys; from paratree.cli import main; code = main({!r}); "
    "print(*sys.modules, file=sys.stderr); sys.exit(code)"
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("cold") / "x.safetensors"
    shapes = {f"layers.{i}.weight": (2, 2) for i in range(3)} | {"head": (4,)}
    header = {
        name: entry(shape=shape, offsets=(i * 16, i * 16 + 16))
        for i, (name, shape) in enumerate(shapes.items())
    }
    path.write_bytes(safetensors(header, bytes(16 * len(header))))
    return str(path)


def loaded(code):
    """Return the modules that a fresh interpreter holds after ``code``, less those it holds anyway."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split()) - _anyway()


def _anyway():
    code = "import sys; print(*sys.modules, file=sys.stderr)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stderr.split()
    )


def test_importing_the_package_imports_nothing_else():
    found = loaded("import sys, paratree; print(*sys.modules, file=sys.stderr)")
    assert found == {"paratree", "__future__"}


@pytest.mark.parametrize("options", [[], ["--all"], ["--depth", "1"], ["--json"], ["--sort", "size"]])
def test_show_into_a_pipe_imports_nothing_heavy(options, file):
    found = loaded(RUN.format(["show", file, *options]))
    assert not (HEAVY | SLOW) & found
    assert {"paratree.formats.safetensors", "paratree.verbs.show"} <= found


def test_show_into_a_pipe_imports_one_format_and_one_renderer(file):
    found = loaded(RUN.format(["show", file]))
    assert {name for name in found if name.startswith("paratree.formats.")} == {
        "paratree.formats.safetensors"
    }
    renderers = {name for name in found if name.startswith("paratree.render.")}
    assert renderers == {"paratree.render.text", "paratree.render.units"}
    assert not {name for name in found if name.startswith("paratree.frameworks")}


def test_help_and_version_import_no_verb():
    for options in (["--help"], ["show", "--help"], ["--version"]):
        code = (
            f"import sys\nfrom paratree.cli import main\ntry: main({options!r})\n"
            "except SystemExit: print(*sys.modules, file=sys.stderr)"
        )
        found = loaded(code)
        assert not HEAVY & found
        assert not {name for name in found if name.startswith(("paratree.verbs.", "paratree.render."))}


def test_the_terminals_table_imports_no_numpy(file):
    found = loaded("import os; os.environ['FORCE_COLOR'] = '1'; " + RUN.format(["show", file]))
    assert "rich" in found
    assert not {"numpy", "h5py", "ml_dtypes", "rich.markdown", "rich.syntax"} & found
