"""Files that a file names: inside its own folder, through no link, or an error that says so."""

from __future__ import annotations

import os

import pytest

import paratree as pt
from paratree.files.folder import beside, latest_entries
from paratree.files.local import LocalFile


@pytest.fixture
def index(tmp_path):
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    for place in ("part", "deeper/part"):
        (tmp_path / "in" / place).write_bytes(place.encode())
    (tmp_path / "in" / "index").write_bytes(b"{}")
    (tmp_path / "in" / "link").symlink_to("../secret")
    (tmp_path / "in" / "inner").symlink_to("part")
    (tmp_path / "in" / "way").symlink_to("..")
    os.mkfifo(tmp_path / "in" / "fifo")
    return LocalFile(tmp_path / "in" / "index")


def test_a_file_inside_is_opened(index):
    for name in ("part", "deeper/part"):
        assert beside(index, name).head == name.encode()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../secret", "deeper/../part", "/etc/passwd", "a\0b", "part/", "//part", "part/more",
     "link", "inner", "way/secret", "x/" * 20 + "y"],
)  # fmt: skip
def test_a_way_out_is_refused(index, name):
    with pytest.raises(pt.UnsafeFileError, match="outside its folder"):
        beside(index, name)


def test_what_is_not_there_is_said(index):
    for name in ("absent", "deeper/absent"):
        with pytest.raises(pt.SourceNotFoundError, match=r"absent: no such file; index names it"):
            beside(index, name)


@pytest.mark.parametrize("name", ["deeper", "fifo"])
def test_only_regular_files(index, name):
    with pytest.raises(pt.UnknownSourceError, match="not a regular file"):
        beside(index, name)


def test_links_of_the_cache_of_the_hub_are_followed(index):
    assert beside(index, "link", links=True).head == b"secret"
    for name in ("deeper/part", "../secret", "..", ""):
        with pytest.raises(pt.UnsafeFileError):
            beside(index, name, links=True)
    with pytest.raises(pt.SourceNotFoundError, match="absent"):
        beside(index, "absent", links=True)


@pytest.mark.parametrize("name", ["part", "absent"])
def test_a_folder_that_another_has_replaced_is_told(name, index, tmp_path):
    """Its files have the same names: a reader had the values of one checkpoint under the names of another."""
    (tmp_path / "in").rename(tmp_path / "old")
    with pytest.raises(pt.CorruptFileError, match="taken its place since it was opened; open it again"):
        beside(index, name)
    (tmp_path / "in").mkdir()
    for file in ("index", "part"):
        (tmp_path / "in" / file).write_bytes(b"new")
    with pytest.raises(pt.CorruptFileError, match="taken its place since it was opened; open it again"):
        beside(index, name)


def test_in_the_folder_one_is_in(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "in")
    assert beside(LocalFile("index"), "part").head == b"part"


@pytest.mark.parametrize(
    ("there", "patterns", "found"),
    [
        (["2/m", "10/m", "9/x"], ("#/m",), ["10/m"]),
        (["step_2/m", "step_00010/m"], ("#/m",), ["step_00010/m"]),
        (["c_2", "c_10", "c_x", "c_11.tmp", "d_99"], ("c_#",), ["c_10"]),
        (["2/m", "20.tmp-30/m", "2b/m", "a.3/m"], ("#/m",), ["2/m"]),
        (["2/m", "best_1/m"], ("#/m",), ["2/m", "best_1/m"]),
        (["2/m", "2/n", "3/n"], ("#/m", "#/n"), ["3/n"]),
        (["99999999999999999999999/m"], ("#/m",), []),
        ([], ("#/m",), []),
    ],
)
def test_of_numbered_steps_the_last(tmp_path, there, patterns, found):
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert latest_entries(str(tmp_path), patterns) == [str(tmp_path / name) for name in found]


def test_a_step_that_is_a_link_is_none(tmp_path):
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "m").write_bytes(b"x")
    (tmp_path / "9").symlink_to(tmp_path / "2")
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "m").symlink_to(tmp_path / "2" / "m")
    assert latest_entries(str(tmp_path), ("#/m",)) == [str(tmp_path / "2" / "m")]
