"""The command line: parse, run one verb, render, exit.

Exit codes are those of diff(1): 0 done, same, passed; 1 nothing found, different, failed; 2 trouble. stdout
is data, stderr is messages.

Only what a command needs is imported: ``show`` into a pipe takes but a few times the start of Python itself.
"""

from __future__ import annotations

import argparse
import codecs
import errno
import gc
import os
import sys

import paratree
from paratree.core.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from rich.console import RenderableType

    from paratree.core.tree import ParamTree

    Command = tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None], str]

_DONE, _NOTHING, _TROUBLE, _INTERRUPTED, _CLOSED_PIPE = 0, 1, 2, 130, 141
_KINDS = ("parameter", "buffer", "state", "other")
_FIGURES = (
    "name", "size", "nan", "inf", "zeros", "min", "max", "mean", "std", "rms", "l1", "l2", "absmax",
)  # fmt: skip
_WIDEST_HELP = 100
_LONGEST_WIDTH = 5  # digits of COLUMNS; more is nonsense
_ASCII = str.maketrans(
    {"×": "x", "·": "-", "–": "-", "…": "...", "⛓": "="}
)  # for a stdout that has no such signs
_FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}  # what shtab calls shtab.FILE
_DESCRIPTION = """\
What is in a checkpoint file: without its framework, without running its code.

  paratree show model.safetensors                  names, shapes, dtypes, ties
  paratree show step_2000.pt --depth 2             sizes of subtrees
  paratree show model.keras --select '**.attn.**'  a part of it
  paratree get  model.pt encoder.0.weight          values; -o w.npy saves them
  paratree ties model.pt                           names that are one parameter
  paratree stats model.safetensors                 do the values look right?
  paratree diff base.safetensors tuned.pt          what has changed, by value
  paratree check model.pt --no-nan --no-inf        exit code 1 if not: for CI
  paratree formats                                 files that can be read
  paratree show package.models:build               a live model your code makes
"""
_SOURCE = "a checkpoint file, a folder of one, or MODULE:CALLABLE, code of yours that makes a live model"
_EPILOG = """\
'paratree COMMAND --help' tells more.
Exit codes: 0 done, same, passed; 1 nothing found, different, failed; 2 trouble.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the arguments after the program's name; those of the process by default.

    Returns:
        0 done, same, passed; 1 nothing found, different, failed; 2 trouble; 130 interrupted; 141 the
        reader of stdout has gone.
    """
    if argv is None:  # the process ends soon: looking for garbage took a fifth of listing 10,000 tensors
        gc.disable()
    arguments = sys.argv[1:] if argv is None else list(argv)
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        codecs.register_error("paratree", _in_ascii)
        reconfigure(errors="paratree")
    try:
        options = _parse(arguments)
        status: int = options.run(options)
        print(end="", flush=True)
        if argv is None:
            gc.freeze()
    except paratree.NoSuchParamError as error:
        compares = options.run in (_diff, _check)  # nothing was: 1 would say that something differs, or fails
        return _complain(str(error), arguments, _TROUBLE if compares else _NOTHING)
    except (paratree.ParatreeError, IndexError) as error:
        return _complain(str(error), arguments)
    except BrokenPipeError:
        _discard_output()
        return _CLOSED_PIPE
    except OSError as error:
        _discard_output()
        return _complain(_of_system(error), arguments)
    except MemoryError:
        return _complain("the memory is not enough; 'paratree get --slice' reads a part", arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _of_system(error: OSError) -> str:
    """Return what the system refused, where, and what to do; what has no name is stdout if it is full."""
    place = "" if error.filename is None else f"{printable(str(error.filename))}: "
    if error.errno == errno.ENOSPC:
        return f"{place or 'stdout: '}{error.strerror}; make room, or write elsewhere"
    if isinstance(error, PermissionError):
        return f"{place}{error.strerror}; 'ls -ld' shows who may use it and its folder"
    return f"{place}{error.strerror or error}"


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Write what stdout cannot encode: our own signs in ASCII, everything else escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return found.translate(_ASCII).encode("ascii", "backslashreplace").decode(), error.end


def _complain(message: str, arguments: Sequence[str] = (), status: int = _TROUBLE) -> int:
    if "--debug" in arguments:
        import traceback

        traceback.print_exc()
    if sys.stderr is not None:  # closed: print would take stdout instead
        print(f"paratree: {message}", file=sys.stderr)
    return status


def _discard_output() -> None:
    """Point stdout to nowhere, so that Python's last flush has nothing to complain about."""
    if (output := sys.__stdout__) is not None and output is sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


# Commands


def _show(options: argparse.Namespace) -> int:
    from paratree.verbs.show import show

    with _open(options.source) as tree:
        listing = show(
            tree,
            select=options.select,
            kind=options.kind,
            depth=options.depth,
            sort=options.sort,
            fold=not (options.all or options.json),
        )
    if listing.nothing is not None:
        return _complain(listing.nothing, status=_NOTHING)
    if options.json:
        from paratree.render import json

        print(json.listing(listing), end="")
    elif _is_rich():
        from paratree.render import terminal

        _print_rich(terminal.table(listing, hints=True))
    else:
        from paratree.render import text

        print("\n".join(text.lines(listing)))
    return _DONE


def _get(options: argparse.Namespace) -> int:
    from paratree.render import json, results
    from paratree.verbs.get import get, write_npy

    with _open(options.source) as tree:
        found = get(tree, options.name, options.slice, dtype=options.dtype)
    if found.changed:
        changed = f"{found.changed} of {found.values.size} values changed"
        print(f"paratree: {changed} in the cast from {found.param.dtype} to {found.dtype}", file=sys.stderr)
    if options.output is not None:
        write_npy(found, options.output, force=options.force)
        print(f"{options.output}: {results.values_head(found)}", file=sys.stderr)
    elif options.json:
        print(json.values(found), end="")
    else:
        print("\n".join(results.values(found, width=_width())))
    return _DONE


def _ties(options: argparse.Namespace) -> int:
    from paratree.render import json, results
    from paratree.verbs.ties import ties

    with _open(options.source) as tree:
        found = ties(tree)
    print(json.ties(found) if options.json else "\n".join(results.ties(found)) + "\n", end="")
    return _DONE if found else _NOTHING


def _spectrum(options: argparse.Namespace) -> int:
    from paratree.render import spectrum as render
    from paratree.verbs.get import param_of, placed
    from paratree.verbs.spectrum import EXACT_BELOW, spectrum

    exact_below = EXACT_BELOW if options.exact_below is None else options.exact_below
    with _open(options.source) as tree:
        param = param_of(tree, options.name)
        with placed(tree, param):
            found = spectrum(param, exact_below=exact_below, seed=options.seed)
        source = tree.source
    if options.json:
        print(render.json(found, source), end="")
    else:
        print("\n".join(render.lines(found, width=_width())))
    return _DONE


def _stats(options: argparse.Namespace) -> int:
    from paratree.render import progress
    from paratree.render import stats as render
    from paratree.verbs.stats import stats

    with _open(options.source) as tree, progress.bar("reading") as update:
        found = stats(
            tree, options.select, kind=options.kind, histogram=not options.moments, target=options.target,
            progress=update,
        )  # fmt: skip
    found = found if options.by is None else found.by(options.by)
    found = found if options.sort is None else found.sorted(options.sort)
    if options.json:
        print(render.as_json(found), end="")
    elif _is_rich():
        _print_rich(render.table(found, hints=True))
    else:
        print("\n".join(render.lines(found)))
    return _DONE


def _diff(options: argparse.Namespace) -> int:
    from paratree.render import diff as render
    from paratree.render import progress
    from paratree.verbs.diff import diff

    initial = None if options.initial is None else _open(options.initial)
    with _open(options.a) as a, _open(options.b) as b, progress.bar("comparing") as update:
        found = diff(
            a, b, select=options.select, kind=options.kind, rtol=options.rtol, atol=options.atol,
            equal_nan=options.equal_nan, rename=dict(options.map or ()), strip=options.strip_prefix or (),
            initial=initial, progress=update,
        ).sorted(options.sort)  # fmt: skip
    if options.json:
        print(render.as_json(found), end="")
    elif _is_rich():
        _print_rich(render.table(found, everything=options.all, hints=True))
    else:
        print("\n".join(render.lines(found, everything=options.all)))
    return _DONE if found.same else _TROUBLE if found.is_undecided else _NOTHING


def _check(options: argparse.Namespace) -> int:
    from paratree.render import check as render
    from paratree.render import progress
    from paratree.verbs.check import check

    other = None if options.same_as is None else _open(options.same_as)
    with _open(options.source) as tree, progress.bar("reading") as update:
        found = check(
            tree, no_nan=options.no_nan, no_inf=options.no_inf, max_abs=options.max_abs,
            finite_in=options.finite_in, expect=options.expect, expect_tensors=options.expect_tensors,
            same_as=other, fingerprint=options.fingerprint, select=options.select,
            kind=options.kind, progress=update,
        )  # fmt: skip
    if options.json:
        print(render.as_json(found), end="")
    else:
        for line in render.lines(found, fingerprint=options.fingerprint is True):
            print(line)
        print(f"paratree: {render.verdict(found)}", file=sys.stderr)
    return _DONE if found.passed else _NOTHING


def _formats(options: argparse.Namespace) -> int:
    from paratree.render import json, results
    from paratree.verbs.formats import formats

    found = formats()
    if options.json:
        print(json.formats(found), end="")
    elif _is_rich():
        from paratree.render import terminal

        _print_rich(terminal.formats(found))
    else:
        print("\n".join(results.formats(found)))
    return _DONE


def _open(source: str) -> ParamTree:
    """Open a path, or the live model that ``package.module:callable`` makes when the user names it so."""
    module, colon, name = source.partition(":")
    is_code = colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))
    if not is_code or os.path.exists(source):  # noqa: PTH110 -- see files.local
        return paratree.open(source)
    return _opened(_made(module, name), source)


def _opened(model: Any, place: str) -> ParamTree:
    """Open what the code at ``place`` made; the tree and its errors are called so."""
    try:
        tree = paratree.open(model)
    except paratree.UnknownSourceError as error:
        raise paratree.UnknownSourceError(f"{place}: {error}") from error
    tree.source = place
    return tree


def _made(module: str, name: str) -> Any:
    """Return what the callable of a module returns; what the code prints goes to stderr.

    Raises:
        UnknownSourceError: there is no such module or callable, or it raised.
    """
    from contextlib import redirect_stdout

    place = f"{printable(module)}:{printable(name)}"
    try:
        with redirect_stdout(sys.stderr):
            found = _found(module, name)
            return found() if callable(found) and (isinstance(found, type) or not _is_model(found)) else found
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        raise paratree.UnknownSourceError(
            f"{place}: it raised {kind}: {printable(str(error))}; --debug shows where"
        ) from error


def _found(module: str, name: str) -> Any:
    """Import a module, from the folder one is in, too, and return what it calls ``name``."""
    from importlib import import_module
    from operator import attrgetter

    sys.path.insert(0, os.getcwd())  # noqa: PTH109 -- as 'python -m' does
    return attrgetter(name)(import_module(module))


def _is_model(found: object) -> bool:
    from paratree.registry import find_framework

    try:
        find_framework(found)
    except paratree.UnknownSourceError:
        return False
    return True


# The terminal


def _is_rich() -> bool:
    """Tell whether to print tables and colours: on a terminal, or where FORCE_COLOR asks for them."""
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _print_rich(renderable: RenderableType) -> None:
    from rich.console import Console

    forced = True if os.environ.get("FORCE_COLOR") else None
    console = Console(force_terminal=forced, width=_width(), highlight=False, markup=False, emoji=False)
    console.print(renderable)


def _width() -> int:
    """Return the number of columns; shutil would do it, at a tenth of the whole start."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and len(columns) <= _LONGEST_WIDTH and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


# Parsing


def _parse(arguments: list[str]) -> argparse.Namespace:
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if "--print-completion" in arguments:  # of all commands
        command = None
    if command is not None and command not in _COMMANDS:
        _refuse(command)
    parser = _parser(command)
    if not arguments:
        parser.print_help(sys.stderr)
        sys.exit(_TROUBLE)
    return parser.parse_args(arguments)


def _refuse(command: str) -> NoReturn:
    from difflib import get_close_matches

    hint = f"the commands are {', '.join(_COMMANDS)}"
    if near := get_close_matches(command, _COMMANDS, n=1):
        hint = f"did you mean '{near[0]}'?"
    elif os.path.exists(command):  # noqa: PTH110 -- see files.local
        hint = f"did you mean 'paratree show {command}'?"
    sys.exit(_complain(f"no command '{printable(command)}'; {printable(hint)}"))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        if message.endswith("required: NAME"):
            message += " (one that begins with '-' goes after '--')"
        self.exit(_TROUBLE, f"paratree: {printable(message)}; see '{self.prog} --help'\n")


def _parser(command: str | None) -> argparse.ArgumentParser:
    """Return the parser; given a command, only its arguments are made."""
    parser = _Parser(
        "paratree", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=_formatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"paratree {paratree.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument(
        "--print-completion",
        choices=("bash", "zsh", "tcsh"),
        action=_PrintCompletion,
        help="print a completion script for a shell",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, prog="paratree")
    for name, (run, fill, text) in _COMMANDS.items():
        one = commands.add_parser(
            name, help=text[0].lower() + text[1:], description=f"{text}.", formatter_class=_formatter,
            allow_abbrev=False,
        )  # fmt: skip
        one.set_defaults(run=run)
        if command in (None, name):
            one.add_argument(
                "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )
            fill(one)
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    width = min(_width(), _WIDEST_HELP)
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=width)


class _PrintCompletion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, _: object, value: Any, __: object = None) -> NoReturn:
        import shtab

        print(shtab.complete(parser, shell=value))
        parser.exit()


def _add_source(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument("source", metavar="SOURCE", help=_SOURCE)
    source.complete = _FILE  # type: ignore[attr-defined]


def _add_selection(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--select", metavar="P", action="append", type=_selector,
        help="only names that fit: '**.attn.*', 'layers.{0..3}.**', a folded row; repeatable")  # fmt: skip
    add("--kind", metavar="K", action="append", choices=_KINDS, help=f"only this kind: {', '.join(_KINDS)}")


def _add_json(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _fill_show(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    add = parser.add_argument
    _add_selection(parser)
    add("--depth", metavar="N", type=_positive, help="one row for each subtree N segments deep")
    add("--sort", choices=("name", "size"), help="by name, or the largest first; else in the model's order")
    add("--all", action="store_true", help="list every tensor, fold no repeated blocks")
    _add_json(parser)


def _fill_get(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    add = parser.add_argument
    add("name", metavar="NAME", help="name of one tensor, as 'paratree show --all' lists it")
    add("--slice", metavar="I", type=_index, default=..., help="a part, as NumPy says it: --slice=0:3,1")
    add("--dtype", metavar="D", help="cast to this dtype, as float32")
    output = parser.add_mutually_exclusive_group()
    written = output.add_argument("-o", "--output", metavar="FILE.npy", help="write a .npy file")
    written.complete = _FILE  # type: ignore[attr-defined]
    add("--force", action="store_true", help="with -o: replace a file that is there")
    _add_json(output)


def _fill_ties(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    _add_json(parser)


def _fill_stats(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    add = parser.add_argument
    _add_selection(parser)
    add("--sort", metavar="F", choices=_FIGURES, help=f"the largest first by one of: {', '.join(_FIGURES)}")
    add("--by", choices=("layer", "role", "depth"), help="one row for each layer, role or numbered block")
    add("--for", dest="target", metavar="D", help="say which values do not fit a dtype, as fp16")
    add("--moments", action="store_true", help="find no histograms and quantiles, which is faster")
    _add_json(parser)


def _fill_check(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    add = parser.add_argument
    add("--no-nan", action="store_true", help="no value is NaN")
    add("--no-inf", action="store_true", help="no value is infinite")
    add("--max-abs", metavar="X", type=_magnitude, help="no magnitude is above X")
    add("--finite-in", metavar="D", help="every value is finite when cast to a dtype, as fp16")
    add("--expect", metavar="N", type=_whole, help="there are N parameters, those that are tied counted once")
    add("--expect-tensors", metavar="N", type=_whole, help="there are N names")
    same = add("--same-as", metavar="FILE", help="names, dtypes, shapes and bytes are those of FILE")
    same.complete = _FILE  # type: ignore[attr-defined]
    add("--fingerprint", metavar="HEX", nargs="?", type=_hash, const=True, default=False,
        help="the hash of the contents is HEX; without HEX or with 'print', print it")  # fmt: skip
    _add_selection(parser)
    _add_json(parser)


def _fill_spectrum(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    add = parser.add_argument
    add("name", metavar="NAME", help="name of one tensor, as 'paratree show --all' lists it")
    add("--exact-below", metavar="N", type=_whole,
        help="decompose matrices of fewer values exactly; 4194304 by default")  # fmt: skip
    add("--seed", metavar="N", type=_whole, default=0, help="of the method for larger ones; 0 by default")
    _add_json(parser)


def _fill_diff(parser: argparse.ArgumentParser) -> None:
    for name, text in (("a", f"what changes are relative to: {_SOURCE}"), ("b", "what is compared with it")):
        source = parser.add_argument(name, metavar=name.upper(), help=text)
        source.complete = _FILE  # type: ignore[attr-defined]
    add = parser.add_argument
    _add_selection(parser)
    add("--rtol", metavar="X", type=_magnitude, default=0.0, help="allow changes of atol + X |a|")
    add("--atol", metavar="X", type=_magnitude, default=0.0, help="allow changes of X + rtol |a|")
    add("--equal-nan", action="store_true", help="NaN equal NaN of other bits")
    add("--strip-prefix", metavar="P", action="append", help="take it from the names of both; repeatable")
    add("--map", metavar="FROM=TO", action="append", type=_renaming,
        help="a name of A is TO in B; '*' and '**' stand for the same text in both; repeatable")  # fmt: skip
    add("--initial", metavar="SOURCE", help="the model before it was loaded, to tell what never was")
    add("--sort", choices=("change", "name", "size"), default="change", help="the largest first, or by name")
    add("--all", action="store_true", help="list the tensors that are equal, too")
    _add_json(parser)


_COMMANDS: dict[str, Command] = {  # name -> what runs it, what adds its arguments, what it does
    "show": (_show, _fill_show, "List names, shapes, dtypes and sizes, without reading a value"),
    "get": (_get, _fill_get, "Print the values of one tensor, or write them to a .npy file"),
    "ties": (_ties, _fill_ties, "List the names that are one parameter"),
    "stats": (_stats, _fill_stats, "Describe the values of every tensor: NaN, range, spread, histogram"),
    "check": (_check, _fill_check, "Check what must hold, for CI: finite values, counts, contents"),
    "spectrum": (_spectrum, _fill_spectrum, "Compute the singular values of one tensor, ranks and tail"),
    "diff": (_diff, _fill_diff, "Compare two files or models: structure, then every value"),
    "formats": (_formats, _add_json, "List the file formats that are read"),
}


# Types of arguments


def _selector(text: str) -> str:
    import re

    from paratree.core.select import tests_of

    try:
        tests_of(text, role=None, kind=None, dtype=None, ndim=None)
    except (ValueError, re.error) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of segments, at least 1")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number")
    return int(text)


def _renaming(text: str) -> tuple[str, str]:
    name, equals, other = text.partition("=")
    if not equals or name.count("*") != other.count("*"):
        raise argparse.ArgumentTypeError(f"'{text}' is no FROM=TO with the same wildcards on both sides")
    return name, other


def _magnitude(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no magnitude, at least 0")
    return value


def _hash(text: str) -> str | bool:
    if text == "print":
        return True
    if len(text) != 64 or not set(text.lower()) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no hash of 64 hexadecimal digits; SOURCE stands before --fingerprint"
        )
    return text.lower()


def _index(text: str) -> Any:
    from paratree.verbs.get import parse_index

    try:
        return parse_index(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
