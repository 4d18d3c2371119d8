"""What the command line says where it failed itself, and what it prints where stdout has no such signs."""

from paratree import cli
from tests.attacks.makers import entry, safetensors


def test_a_bug_is_no_result(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise TypeError("'<' not supported\nbetween \x1b[31m")

    (path := tmp_path / "w.safetensors").write_bytes(safetensors({"w": entry("U8", (1,), (0, 1))}, b"a"))
    monkeypatch.setattr("paratree.verbs.diff.diff", fail)
    assert cli.main(["diff", str(path), str(path)]) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said == (
        "paratree: TypeError: '<' not supported\\nbetween \\x1b[31m; this is a bug of paratree: please report "
        "the command and what it prints with --debug\n"
    )
    assert cli.main(["diff", str(path), str(path), "--debug"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("paratree: TypeError")
