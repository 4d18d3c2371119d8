"""Rules of the whole package: what an import costs, what is documented, what a plug-in must have."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import paratree
from paratree import formats, frameworks, registry
from paratree.core import plugin
from paratree.files.local import LocalFile

FRAMEWORKS = {"torch", "tensorflow", "keras", "tf_keras", "jax", "flax", "mxnet", "transformers"}
HEAVY = {"numpy", "h5py", "ml_dtypes", "rich", "safetensors"} | FRAMEWORKS
SLOW = {"dataclasses", "typing", "inspect", "pathlib", "zipfile", "importlib.metadata"}


def modules_of(room):
    return sorted(m.name for m in pkgutil.iter_modules(room.__path__) if not m.name.startswith("_"))


def all_modules():
    found = pkgutil.walk_packages(paratree.__path__, "paratree.")
    return ["paratree", *sorted(module.name for module in found)]


def loaded_by(code):
    listing = f"{code}; import sys; print(*sys.modules)"
    output = subprocess.check_output([sys.executable, "-c", listing], text=True)
    return set(output.splitlines()[-1].split())


def test_import_brings_nothing():
    assert not (HEAVY | SLOW) & (loaded_by("import paratree") - loaded_by("pass"))


def test_opening_a_safetensors_file_brings_nothing_heavy(tmp_path):
    file = tmp_path / "empty.safetensors"
    file.write_bytes((2).to_bytes(8, "little") + b"{}")
    loaded = loaded_by(f"import paratree; paratree.open({str(file)!r})") - loaded_by("pass")
    assert not (HEAVY | SLOW) & loaded
    assert "paratree.formats.safetensors" in loaded


def test_every_public_name_is_there_and_dir_lists_it():
    assert all(getattr(paratree, name) for name in paratree.__all__)
    assert set(paratree.__all__) <= set(dir(paratree))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = paratree.Nothing


@pytest.mark.parametrize("name", paratree.__all__)
def test_every_public_name_is_documented(name):
    public = getattr(paratree, name)
    assert public.__doc__
    if inspect.isclass(public):
        members = {n: m for n, m in vars(public).items() if not n.startswith("_")}
        documented = (inspect.isfunction(m) or isinstance(m, property) for m in members.values())
        assert all(m.__doc__ for m, due in zip(members.values(), documented, strict=True) if due)


@pytest.mark.parametrize("name", all_modules())
def test_every_module_says_what_it_is_in_one_line(name):
    source = Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")
    assert source.startswith('"""')
    first = source.split("\n", 1)[0]
    assert first.rstrip('"').endswith("."), first


@pytest.mark.parametrize("name", modules_of(formats))
def test_a_format_has_what_a_format_offers(name):
    module = registry.known_formats()[name]
    assert all(hasattr(module, fact) for fact in plugin.Format.__annotations__.keys() - {"MAKES", "FILES"})
    assert all(
        isinstance(text, str) and text for text in (module.NAME, module.LAZY, module.TIES, module.READS)
    )
    assert isinstance(module.SUFFIXES, tuple)
    assert all(suffix.startswith(".") for suffix in module.SUFFIXES)
    assert isinstance(module.FOLDER, tuple)
    assert callable(module.sniff)
    assert callable(module.open)
    if module.WRITES:
        made_by = {"file": "save", "files": "save", "copy": "save_copy", "folder": "save_folder"}
        assert callable(getattr(module, made_by[module.MAKES]))
        assert callable(module.holds_tie)
        assert hasattr(module, "FILES") == (module.MAKES == "folder")


def test_every_suffix_of_its_own_asks_its_format_first():
    owners = {}
    for name in modules_of(formats):
        for suffix in registry.known_formats()[name].SUFFIXES:
            owners.setdefault(suffix.rpartition(".")[2], set()).add(name)
    alone = {suffix: next(iter(names)) for suffix, names in owners.items() if len(names) == 1}
    assert alone.items() <= registry._OF_SUFFIX.items()
    assert all(name in owners[suffix] for suffix, name in registry._OF_SUFFIX.items())


@pytest.mark.parametrize("junk", [b"", b"\x00" * 64, b"\xff" * 5000, b"hello\n" * 9])
@pytest.mark.parametrize("name", modules_of(formats))
def test_a_format_says_no_to_junk(name, junk, tmp_path):
    module = registry.known_formats()[name]
    for suffix in ("", *module.SUFFIXES):
        path = tmp_path / f"junk{suffix}"
        path.write_bytes(junk)
        assert not module.sniff(LocalFile(path))


@pytest.mark.parametrize("room", [formats, frameworks])
def test_every_plug_in_is_in_the_contracts_that_keep_them_apart(room):
    settings = tomllib.loads(
        (Path(paratree.__path__[0]).parent / "pyproject.toml").read_text(encoding="utf-8")
    )
    listed = set()
    for contract in settings["tool"]["importlinter"]["contracts"]:
        listed |= {*contract.get("modules", []), *contract.get("source_modules", [])}
    assert {f"{room.__name__}.{name}" for name in modules_of(room)} <= listed


@pytest.mark.parametrize("name", modules_of(frameworks))
def test_a_framework_has_what_a_framework_offers(name):
    if name == "mxnet":
        pytest.importorskip("tests.mxnet_numpy")  # lets it be imported on NumPy 2
    pytest.importorskip(name)
    module = importlib.import_module(f"paratree.frameworks.{name}")
    offered = {name for name in vars(plugin.Framework) if not name.startswith("_")}
    assert len(offered) == 8
    assert all(callable(getattr(module, function)) for function in offered)
    assert not any(module.matches(other) for other in (None, 1, "name", object(), [], {}, Path()))
