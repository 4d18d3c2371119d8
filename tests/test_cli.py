"""The command line, from outside: output, messages, exit codes, files."""

import errno
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import paratree
from paratree import cli
from paratree.cli import console
from paratree.cli.parsing import COMMANDS
from tests.attacks.makers import entry, safetensors
from tests.render.hostile import NAMES

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
FULL = Path("/dev/full")
ANSI = re.compile("\x1b\\[[0-9;?]*[a-zA-Z]")


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


def same(found, expected):
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


def run(*arguments, **options):
    """Run the command line in a process of its own."""
    environment = {**os.environ, "COLUMNS": "80", **options.pop("env", {})}
    command = [sys.executable, "-m", "paratree", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, **options)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of three blocks, a tied head in bfloat16 and values that are not all finite."""
    path = tmp_path_factory.mktemp("cli") / "model.safetensors"
    path.write_bytes(content())
    return path


def content(**more):
    blocks = np.arange(12, dtype=np.float32).reshape(3, 4)
    blocks[1] = [1.5, np.nan, np.inf, -np.inf]
    header = {f"layers.{i}.weight": entry(shape=(2, 2), offsets=(i * 16, i * 16 + 16)) for i in range(3)}
    header |= {"embed.weight": entry("BF16", (4, 2), (48, 64)), "steps": entry("I64", (1,), (64, 72)), **more}
    header["__metadata__"] = {"head.weight": "embed.weight", "epoch": "3"}
    half = (np.arange(8, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return safetensors(header, blocks.tobytes() + half.tobytes() + bytes(8))


def test_show(file):
    done = run("show", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{file}: safetensors · 6 tensors · 20 parameters (28 with ties expanded) · 64 B (80 B) · "
        "float32 (3), bfloat16 (2), int64 (1)",
        "",
        "name                     shape  dtype     params  bytes  tied with",
        "layers.{0..2}.weight ×3  2 × 2  float32       12   48 B",
        "embed.weight             4 × 2  bfloat16       8   16 B  head.weight",
        "steps                    1      int64     buffer    8 B",
        "head.weight              4 × 2  bfloat16       –      –  embed.weight",
        "",
        "6 of 6 readable · 1 tied group · 3 tensors folded into 1 row (--all lists every tensor)",
        "beside the parameters: 1 buffer, 8 B",
        "meta: epoch = 3",
    ]


def names_of(done):
    return [line.split("  ")[0] for line in done.stdout.split("\n\n")[1].splitlines()[1:]]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (
            ["--all"],
            ["layers.0.weight", "layers.1.weight", "layers.2.weight", "embed.weight", "steps", "head.weight"],
        ),
        (["--depth", "1"], ["layers.{0..2}.weight ×3", "embed.weight", "steps", "head.weight"]),
        (["--all", "--depth=1"], ["layers.**", "embed.weight", "steps", "head.weight"]),
        (["--sort", "size"], ["layers.{0..2}.weight ×3", "embed.weight", "steps", "head.weight"]),
        (["--sort", "name"], ["embed.weight", "head.weight", "layers.{0..2}.weight ×3", "steps"]),
        (["--select", "layers.{1..2}.weight"], ["layers.{1..2}.weight ×2"]),
        (["--select", "steps", "--select", "*.weight"], ["embed.weight", "steps", "head.weight"]),
        (["--kind", "buffer"], ["steps"]),
    ],
)
def test_the_options_of_show(options, names, file):
    done = run("show", *options, file)
    assert (done.returncode, names_of(done)) == (0, names)


def test_show_json(file):
    found = json.loads(run("show", file, "--json").stdout)
    assert found["schema"] == 1
    assert [param["name"] for param in found["params"]][-1] == "head.weight"
    assert found["ties"] == [["embed.weight", "head.weight"]]
    assert len(json.loads(run("show", file, "--json", "--depth", "1").stdout)["subtrees"]) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--select", "layers"],
            "no parameter 'layers'; it is a subtree: 'layers.**' selects what is below it",
        ),
        (
            ["--select", "embed.wieght"],
            "no parameter 'embed.wieght'; did you mean 'embed.weight', 'head.weight'?",
        ),
        (["--kind", "state"], "nothing here is of kind state; there are: parameter (5), buffer (1)"),
    ],
)
def test_a_selection_of_nothing_is_1(options, message, file):
    for more in ([], ["--json"]):
        done = run("show", file, *options, *more)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"paratree: {file}: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "FILE", "--select", "{3..1}"], "argument --select: selector {3..1}: the range is empty"),
        (["show", "FILE", "--select", "[z-a]"], "argument --select: "),
        (["show", "FILE", "--depth", "0"], "argument --depth: '0' is no number of segments, at least 1"),
        (["show", "FILE", "--depth", "²"], "argument --depth: "),
        (["show", "FILE", "--kind", "weights"], "argument --kind: invalid choice: 'weights'"),
        (["show", "FILE", "--sort", "dtype"], "argument --sort: invalid choice"),
        (["show", "FILE", "--al"], "unrecognized arguments: --al"),
        (["show", "FILE", "\x1b[31m"], "unrecognized arguments: \\x1b[31m"),
        (["show"], "the following arguments are required: SOURCE; see 'paratree show --help'"),
        (["get", "FILE", "steps", "--slice", "a"], "argument --slice: 'a' is no index"),
        (["get", "FILE", "steps", "--json", "-o", "x.npy"], "not allowed with argument"),
        (["get", "FILE", "steps", "--slice=5"], "steps: index 5 is out of bounds for axis 0 of length 1"),
        (["get", "FILE", "steps", "--dtype", "float31"], "'float31' is no dtype; there are: bool"),
        (["shwo", "FILE"], "no command 'shwo'; did you mean 'show'?"),
        (["FILE"], "; did you mean 'paratree show "),
        (["frobnicate"], f"no command 'frobnicate'; the commands are {', '.join(COMMANDS)}\n"),
        (["show", "nowhere.pt"], "nowhere.pt: no such file or folder; paratree opens local paths and never"),
        (["show", "/"], "/: no checkpoint in this folder; name a file"),
        (["--print-completion", "fish"], "argument --print-completion: invalid choice: 'fish'"),
    ],
)
def test_trouble_is_2_and_one_line(arguments, message, file):
    done = run(*[str(file) if word == "FILE" else word for word in arguments])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("paratree: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_damaged_file_is_2_and_one_line(tmp_path):
    path = tmp_path / "short.safetensors"
    path.write_bytes(content()[:-4])
    done = run("show", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"paratree: .*short.safetensors: at byte \d+ .*\n", done.stderr)


def test_a_file_that_may_not_be_read(file, capsys, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    assert cli.main(["show", str(file)]) == 2
    said = capsys.readouterr().err
    assert said == f"paratree: {file}: Permission denied; 'ls -ld' shows who may use it and its folder\n"


def test_too_little_memory(file, capsys, monkeypatch):
    def fail(_):
        raise MemoryError

    monkeypatch.setattr(paratree, "open", fail)
    assert cli.main(["ties", str(file)]) == 2
    assert capsys.readouterr().err.startswith("paratree: the memory is not enough")


def test_debug_shows_the_traceback():
    for arguments in (["--debug", "show", "nowhere"], ["show", "nowhere", "--debug"]):
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("Traceback")
        assert done.stderr.splitlines()[-1].startswith("paratree: nowhere: no such file")


def test_get_prints_what_numpy_prints(file):
    done = run("get", file, "layers.1.weight")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "layers.1.weight: 2 × 2 float32 · 4 values · 16 B\n[[ 1.5  nan]\n [ inf -inf]]\n"
    done = run("get", file, "head/weight", "--slice=1:3,-1")
    assert done.stdout == "head.weight: 4 × 2 bfloat16 · a part of shape 2 · 2 values · 4 B\n[3 5]\n"


def test_get_json(file):
    found = json.loads(run("get", file, "layers.1.weight", "--json").stdout)
    assert found["values"] == [[1.5, "NaN"], ["Infinity", "-Infinity"]]
    found = json.loads(run("get", file, "embed.weight", "--json", "--slice", "0").stdout)
    assert (found["values"], found["dtype"], found["shape"]) == ([0.0, 1.0], "bfloat16", [2])


def test_get_writes_a_npy_file(file, tmp_path):
    path = tmp_path / "w.npy"
    done = run("get", file, "layers.2.weight", "-o", path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{path}: layers.2.weight: 2 × 2 float32 · 4 values · 16 B\n"
    same(np.load(path), np.array([[8, 9], [10, 11]], np.float32))
    again = run("get", file, "layers.0.weight", "-o", path)
    assert (again.returncode, again.stderr) == (
        2,
        f"paratree: {path}: it exists; replacing it takes force (--force)\n",
    )
    assert np.load(path)[0, 0] == 8
    assert run("get", file, "layers.0.weight", "-o", path, "--force").returncode == 0
    assert np.load(path)[0, 0] == 0
    assert entries(tmp_path) == ["w.npy"]


def test_get_of_a_dtype_that_npy_cannot_say(file, tmp_path):
    path = tmp_path / "w.npy"
    done = run("get", file, "embed.weight", "-o", path)
    assert (done.returncode, entries(tmp_path)) == (2, [])
    assert (
        done.stderr == "paratree: embed.weight: a .npy file cannot say bfloat16; cast it: --dtype float32\n"
    )
    assert run("get", file, "embed.weight", "-o", path, "--dtype", "float32").returncode == 0
    same(np.load(path), np.arange(8, dtype=np.float32).reshape(4, 2))


def test_get_says_when_a_cast_changes_values(file):
    done = run("get", file, "layers.1.weight", "--dtype", "int32", "--json")
    assert done.returncode == 0
    assert done.stderr == "paratree: 4 of 4 values changed in the cast from float32 to int32\n"
    assert json.loads(done.stdout)["changed"] == 4
    assert run("get", file, "layers.1.weight", "--dtype", "float16").stderr == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [("layers", "it is a subtree: 'layers.**'"), ("embed.wight", "did you mean 'embed.weight'")],
)
def test_get_of_no_parameter_is_1(name, message, file):
    done = run("get", file, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_ties(file, tmp_path):
    done = run("ties", file)
    assert (done.returncode, done.stdout) == (
        0,
        f"{file}: 1 tied group\n\n"
        "1  4 × 2 bfloat16 · 16 B once, 32 B expanded\n   embed.weight\n   head.weight\n",
    )
    assert json.loads(run("ties", file, "--json").stdout)["ties"][0]["names"] == [
        "embed.weight",
        "head.weight",
    ]
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors())
    done = run("ties", path)
    assert (done.returncode, done.stdout, done.stderr) == (1, f"{path}: no ties\n", "")
    done = run("ties", path, "--json")
    assert (done.returncode, json.loads(done.stdout)["ties"]) == (1, [])


def test_formats():
    done = run("formats")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split() == [
        "NAME",
        "SUFFIXES",
        "READS",
        "LAZY",
        "TIES",
        "WRITES",
        "AS",
        "NEEDS",
    ]
    assert "safetensors" in {one["name"] for one in json.loads(run("formats", "--json").stdout)["formats"]}
    assert ".safetensors.index.json" in run("formats", env={"FORCE_COLOR": "1"}).stdout


def test_the_help_of_convert_says_where_the_names_of_formats_are():
    assert "see 'paratree formats', WRITES AS" in " ".join(run("convert", "--help").stdout.split())


def test_help_opens_with_sample_commands():
    done = run("--help")
    assert done.returncode == 0
    assert done.stdout.index("paratree show model.safetensors") < done.stdout.index("options:")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert {"show", "get", "ties", "formats", "check", "spectrum"} <= set(COMMANDS)
    for name in COMMANDS:
        assert f"    {name} " in done.stdout
        assert run(name, "--help").stdout.startswith(f"usage: paratree {name} ")
    bare = run()
    assert (bare.returncode, bare.stdout, bare.stderr) == (2, "", done.stdout)


def test_version():
    assert run("--version").stdout == f"paratree {paratree.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell):
    done = run("--print-completion", shell)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("paratree", "show", "formats", "select", "slice"))


def test_bash_completes_commands_options_and_choices(tmp_path):
    script = tmp_path / "completion"
    script.write_text(run("--print-completion", "bash").stdout)
    ask = (
        f'source {script}; function=$(complete -p paratree | sed "s/.*-F \\([^ ]*\\).*/\\1/");'
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); $function paratree "${@: -1}" "${@: -2:1}"; '
        'echo "${COMPREPLY[@]}"'
    )

    def completed(*words):
        return subprocess.run(
            ["bash", "-c", ask, "-", *words], capture_output=True, text=True, check=True
        ).stdout.split()

    assert completed("paratree", "sh") == ["show"]
    assert completed("paratree", "show", "--s") == ["--select", "--sort"]
    assert completed("paratree", "show", "x", "--sort", "") == ["name", "size"]


# Terminals, pipes, encodings, signals


def on_terminal(*arguments, columns=80, **environment):
    """Run on a pseudo-terminal and return what arrives there."""
    main, side = pty.openpty()
    settings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment}
    with subprocess.Popen(
        [sys.executable, "-m", "paratree", *map(str, arguments)],
        stdout=side,
        stderr=side,
        stdin=side,
        env=settings,
    ) as process:
        os.close(side)
        seen = b""
        while select.select([main], [], [], 60)[0]:
            try:
                piece = os.read(main, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
            if not piece:
                break
            seen += piece
        assert process.wait(60) == 0
    os.close(main)
    return seen.decode().replace("\r\n", "\n")


def test_a_terminal_gets_the_table_in_colour(file):
    seen = on_terminal("show", file)
    assert "\x1b[" in seen
    plain = ANSI.sub("", seen)
    assert "⛓ 1 = embed.weight" in plain
    assert "(--all lists every tensor)" in " ".join(plain.split())


def test_a_narrow_terminal(file):
    plain = ANSI.sub("", on_terminal("show", file, columns=40))
    assert all(len(line) <= 40 for line in plain.splitlines())
    assert "layers.{0..2}.weight ×3" in plain


def test_no_color_and_dumb_terminals(file):
    seen = on_terminal("show", file, NO_COLOR="1")
    assert not re.search("\x1b\\[[0-9;]*3[0-9]", seen)
    assert "⛓ 1" in seen
    seen = on_terminal("show", file, TERM="dumb")
    assert "\x1b" not in seen
    assert "tied with" in seen


def test_a_pipe_gets_no_colour_unless_it_is_forced(file):
    assert "\x1b" not in run("show", file).stdout
    assert "\x1b[" in run("show", file, env={"FORCE_COLOR": "1"}).stdout
    both = run("show", file, env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout
    assert not re.search("\x1b\\[[0-9;]*3[0-9]", both)


@pytest.mark.parametrize("color", ["", "1"])
@pytest.mark.parametrize(
    "command", [["show", "FILE"], ["get", "FILE", "層.\x1b"], ["formats"], ["ties", "FILE"]]
)
def test_a_stdout_that_is_not_utf8(command, color, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({"層.\x1b": entry()}))
    done = run(
        *[str(path) if word == "FILE" else word for word in command],
        env={"PYTHONIOENCODING": "ascii", "FORCE_COLOR": color},
    )
    assert done.returncode in (0, 1)
    assert done.stderr == ""
    assert done.stdout.isascii()


def test_hostile_names(tmp_path):
    path = tmp_path / "m.safetensors"
    names = [name for name in NAMES if name != "\ud800"]
    header = {name: entry(shape=(i,), offsets=(0, 0)) | {"shape": (i, 0)} for i, name in enumerate(names)}
    path.write_bytes(safetensors(header, b""))
    done = run("show", path, "--all")
    assert done.returncode == 0
    assert all(line.isprintable() for line in done.stdout.splitlines())
    colored = run("show", path, env={"FORCE_COLOR": "1"})
    assert all(line.isprintable() for line in ANSI.sub("", colored.stdout).splitlines())
    assert {param["name"] for param in json.loads(run("show", path, "--json").stdout)["params"]} == set(names)
    assert run("get", path, "\x1b[31mred\x1b[0m", "--json").returncode == 0
    missing = run("get", path, "\x1b[2J")
    assert missing.returncode == 1
    assert missing.stderr.rstrip("\n").isprintable()


def test_a_closed_pipe_is_quiet(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(
        safetensors({f"{i}.a{'b' * (i % 7)}": entry(offsets=(0, 0), shape=(0, i)) for i in range(9000)}, b"")
    )
    for options in ("--all", "--json"):
        done = subprocess.run(
            f"{sys.executable} -m paratree show {path} {options} | head -n 1; echo ${{PIPESTATUS[0]}}",
            shell=True,
            executable="/bin/bash",
            capture_output=True,
            text=True,
            timeout=60,
            env=BUFFERED,
        )
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "141"


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a file that is always full")
def test_a_full_disk_is_2(file):
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "paratree", "show", file], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (
        2,
        "paratree: stdout: No space left on device; make room, or write elsewhere\n",
    )


def test_a_closed_stdout(file):
    done = subprocess.run(
        f"{sys.executable} -m paratree show {file} >&-", shell=True, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_control_c_is_130_without_a_traceback(tmp_path):
    pipe = tmp_path / "gate"
    os.mkfifo(pipe)
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors())
    code = (
        "import sys, paratree.verbs.show as verb; from paratree.cli import main; "
        "verb.show = lambda *_, **__: open(sys.argv[1]).read(); sys.exit(main(['show', sys.argv[2]]))"
    )
    command = [sys.executable, "-c", code, pipe, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        gate = None
        while gate is None:  # opens as soon as the command waits at the other end
            try:
                gate = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                assert process.poll() is None
                time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        os.close(gate)  # ends a read that began just after the signal
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (130, b"", b"")


def test_main_returns_its_exit_code(file, capsys):
    assert cli.main(["show", str(file), "--depth", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{file}: safetensors")
    assert cli.main(["get", str(file), "nope"]) == 1
    assert cli.main(["show", "nowhere"]) == 2
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0


def test_main_in_a_program_without_stdout(file, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["show", str(file)]) == 0


def test_the_width_of_an_odd_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((0, 0)))
    for columns in ("0", "000", "x", "-5", "", "9" * 30):
        monkeypatch.setenv("COLUMNS", columns)
        assert console.width() == 80


@pytest.mark.parametrize("columns", ["0", "-1", "many"])
def test_a_terminal_of_no_sound_width_shows_all(columns, file):
    for command in (["show", file], ["formats"]):
        plain = ANSI.sub("", on_terminal(*command, columns=columns))
        assert "safetensors" in plain
    assert "embed.weight" in ANSI.sub("", on_terminal("show", file, columns=columns))


def test_signs_that_stdout_has_not_are_those_of_ascii(file):
    seen = run("show", file, env={"PYTHONIOENCODING": "ascii"}).stdout
    assert "layers.{0..2}.weight x3  2 x 2  float32" in seen
    assert "6 of 6 readable - 1 tied group" in seen
    assert "\\x" not in seen


def test_a_name_that_begins_as_an_option_goes_after_two_dashes(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({"-x": entry()}))
    assert "(one that begins with '-' goes after '--')" in run("get", path, "-x").stderr
    assert run("get", path, "--", "-x").returncode == 0


def test_a_full_disk_is_that_of_the_file_that_is_written(file, capsys, monkeypatch, tmp_path):
    real = os.fdopen

    def full(descriptor, *_):
        real(descriptor, "wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    assert cli.main(["get", str(file), "steps", "-o", str(tmp_path / "x.npy")]) == 2
    assert capsys.readouterr().err.startswith(
        f"paratree: {tmp_path / 'x.npy'}: No space left on device; make"
    )


def test_with_stderr_closed_an_error_is_not_data():
    command = f"{sys.executable} -m paratree show nowhere 2>&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_name_is_taken_as_it_is_listed(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({"red\x1b[31m": entry()}))
    done = run("get", path, "red\\x1b[31m")
    assert done.returncode == 0
    assert done.stdout.startswith("red\\x1b[31m: 4 float32")


@pytest.mark.parametrize(
    ("name", "pattern", "wider"),
    [
        ("net.layer.0.bias", "*bias", "**.bias"),
        ("net.layer.0.bias", "*.bias", "**.bias"),
        ("net.layer.0.out_bias", "*bias", "**.*bias"),
        ("layer.0.bias", "layer.*", "layer.*.**"),
    ],
)
def test_a_glob_too_narrow_is_answered_with_a_wider_one(tmp_path, name, pattern, wider):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({name: entry()}))
    done = run("show", path, "--select", pattern)
    assert done.returncode == 1
    assert f"did you mean '{wider}'?" in done.stderr


def test_a_place_that_is_no_folder_is_named_and_not_the_temporary_file(file, tmp_path):
    target = tmp_path / "nowhere" / "a.npy"
    done = run("get", file, next(iter(paratree.open(file))), "-o", target)
    assert (done.returncode, done.stderr) == (2, f"paratree: {target}: No such file or directory\n")
