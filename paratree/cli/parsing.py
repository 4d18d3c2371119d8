"""From words to options: one parser, of which only the command that was named is filled."""

from __future__ import annotations

import argparse
import os
import sys

import paratree
from paratree.cli import arguments, commands
from paratree.cli.console import TROUBLE, complain, width
from paratree.core.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Command = tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None], str]

_WIDEST_HELP = 100
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
  paratree verify model.pt manifest.json           is every byte what it was?
  paratree convert model.pt model.safetensors      another format, bit for bit
  paratree formats                                 files that can be read
  paratree show package.models:build               a live model your code makes
"""
_EPILOG = """\
'paratree COMMAND --help' tells more.
Exit codes: 0 done, same, passed; 1 nothing found, different, failed; 2 trouble.
"""

COMMANDS: dict[str, Command] = {  # name -> what runs it, what adds its arguments, what it does
    "show": (
        commands.run_show,
        arguments.fill_show,
        "List names, shapes, dtypes and sizes, without reading a value",
    ),
    "get": (
        commands.run_get,
        arguments.fill_get,
        "Print the values of one tensor, or write them to a .npy file",
    ),
    "ties": (commands.run_ties, arguments.fill_ties, "List the names that are one parameter"),
    "stats": (
        commands.run_stats,
        arguments.fill_stats,
        "Describe the values of every tensor: NaN, range, spread, histogram",
    ),
    "check": (
        commands.run_check,
        arguments.fill_check,
        "Check what must hold, for CI: finite values, counts, contents",
    ),
    "manifest": (
        commands.run_manifest,
        arguments.fill_manifest,
        "Write down what is in a source, by content, to verify it later",
    ),
    "verify": (
        commands.run_verify,
        arguments.fill_verify,
        "Compare a source with a manifest: which bytes of what have changed",
    ),
    "spectrum": (
        commands.run_spectrum,
        arguments.fill_spectrum,
        "Compute the singular values of one tensor, ranks and tail",
    ),
    "diff": (
        commands.run_diff,
        arguments.fill_diff,
        "Compare two files or models: structure, then every value",
    ),
    "convert": (commands.run_convert, arguments.fill_convert, "Write a source, or a part of it, to a file"),
    "formats": (commands.run_formats, arguments.add_json, "List the file formats that are read and written"),
}


def parse(words: list[str]) -> argparse.Namespace:
    """Return the options; ``run`` is the function of the command, ``command`` its name."""
    command = next((argument for argument in words if not argument.startswith("-")), None)
    if "--print-completion" in words:  # of all commands
        command = None
    if command is not None and command not in COMMANDS:
        _refuse(command)
    parser = _parser(command)
    if not words:
        parser.print_help(sys.stderr)
        sys.exit(TROUBLE)
    return parser.parse_args(words)


def _refuse(command: str) -> NoReturn:
    from difflib import get_close_matches

    hint = f"the commands are {', '.join(COMMANDS)}"
    if near := get_close_matches(command, COMMANDS, n=1):
        hint = f"did you mean '{near[0]}'?"
    elif os.path.exists(command):  # noqa: PTH110 -- see files.local
        hint = f"did you mean 'paratree show {command}'?"
    sys.exit(complain(f"no command '{printable(command)}'; {printable(hint)}"))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        if message.endswith("required: NAME"):
            message += " (one that begins with '-' goes after '--')"
        self.exit(TROUBLE, f"paratree: {printable(message)}; see '{self.prog} --help'\n")


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
    added = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, prog="paratree")
    for name, (run, fill, text) in COMMANDS.items():
        one = added.add_parser(
            name, help=text[0].lower() + text[1:], description=f"{text}.", formatter_class=_formatter,
            allow_abbrev=False,
        )  # fmt: skip
        one.set_defaults(run=run, command=name)
        if command in (None, name):
            one.add_argument(
                "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )
            fill(one)
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    columns = min(width(), _WIDEST_HELP)
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=columns)


class _PrintCompletion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, _: object, value: Any, __: object = None) -> NoReturn:
        import shtab

        print(shtab.complete(parser, shell=value))
        parser.exit()
