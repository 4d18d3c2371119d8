"""The arguments of each command, and what they may be."""

from __future__ import annotations

import argparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOURCE = "a checkpoint file, a folder of one, or MODULE:CALLABLE, code of yours that makes a live model"
_KINDS = ("parameter", "buffer", "state", "other")
_FIGURES = (
    "name", "size", "nan", "inf", "zeros", "min", "max", "mean", "std", "rms", "l1", "l2", "absmax",
)  # fmt: skip
_FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}  # what shtab calls shtab.FILE


def _add_source(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    source.complete = _FILE  # type: ignore[attr-defined]


def _add_selection(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--select", metavar="P", action="append", type=_selector,
        help="only names that fit: '**.attn.*', 'layers.{0..3}.**', a folded row; repeatable")  # fmt: skip
    add("--kind", metavar="K", action="append", choices=_KINDS, help=f"only this kind: {', '.join(_KINDS)}")


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def fill_show(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``show``."""
    _add_source(parser)
    add = parser.add_argument
    _add_selection(parser)
    add("--depth", metavar="N", type=_positive, help="one row for each subtree N segments deep")
    add("--sort", choices=("name", "size"), help="by name, or the largest first; else in the model's order")
    add("--all", action="store_true", help="list every tensor, fold no repeated blocks")
    add_json(parser)


def fill_get(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``get``."""
    _add_source(parser)
    add = parser.add_argument
    add("name", metavar="NAME", help="name of one tensor, as 'paratree show --all' lists it")
    add("--slice", metavar="I", type=_index, default=..., help="a part, as NumPy says it: --slice=0:3,1")
    add("--dtype", metavar="D", help="cast to this dtype, as float32")
    output = parser.add_mutually_exclusive_group()
    written = output.add_argument("-o", "--output", metavar="FILE.npy", help="write a .npy file")
    written.complete = _FILE  # type: ignore[attr-defined]
    add("--force", action="store_true", help="with -o: replace a file that is there")
    add_json(output)


def fill_ties(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ties``."""
    _add_source(parser)
    add_json(parser)


def fill_stats(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stats``."""
    _add_source(parser)
    add = parser.add_argument
    _add_selection(parser)
    add("--sort", metavar="F", choices=_FIGURES, help=f"the largest first by one of: {', '.join(_FIGURES)}")
    add("--by", choices=("layer", "role", "depth"), help="one row for each layer, role or numbered block")
    add("--for", dest="target", metavar="D", help="say which values do not fit a dtype, as fp16")
    add("--moments", action="store_true", help="find no histograms and quantiles, which is faster")
    add_json(parser)


def fill_check(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``check``."""
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
    add_json(parser)


def fill_manifest(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``manifest``."""
    _add_source(parser)
    output = parser.add_mutually_exclusive_group()
    written = output.add_argument("-o", "--output", metavar="FILE.json", help="write a file")
    written.complete = _FILE  # type: ignore[attr-defined]
    output.add_argument("--json", action="store_true", help="print it, as without -o: it is JSON")
    parser.add_argument("--force", action="store_true", help="with -o: replace a file that is there")
    _add_selection(parser)


def fill_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify``."""
    _add_source(parser)
    file = parser.add_argument("manifest", metavar="MANIFEST", help="what 'paratree manifest' wrote")
    file.complete = _FILE  # type: ignore[attr-defined]
    _add_selection(parser)
    add_json(parser)


def fill_spectrum(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``spectrum``."""
    _add_source(parser)
    add = parser.add_argument
    add("name", metavar="NAME", help="name of one tensor, as 'paratree show --all' lists it")
    add("--exact-below", metavar="N", type=_whole,
        help="decompose matrices of fewer values exactly; 4194304 by default")  # fmt: skip
    add("--seed", metavar="N", type=_whole, default=0, help="of the method for larger ones; 0 by default")
    add_json(parser)


def fill_diff(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``diff``."""
    for name, text in (("a", f"what changes are relative to: {SOURCE}"), ("b", "what is compared with it")):
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
    add_json(parser)


def fill_convert(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``convert``."""
    _add_source(parser)
    add = parser.add_argument
    output = add(
        "output",
        metavar="OUT",
        help="the file to write (a folder: with --format); its suffix tells the format",
    )
    output.complete = _FILE  # type: ignore[attr-defined]
    add(
        "--format",
        metavar="F",
        help="the format, where the suffix does not tell: see 'paratree formats', WRITES AS",
    )
    _add_selection(parser)
    add("--drop", metavar="P", action="append", type=_selector, help="leave out what fits; repeatable")
    add("--dtype", metavar="D", help="cast floating values, as to bf16: to nearest, ties to even")
    add("--cast", metavar="P=D", action="append", type=_casting,
        help="cast what fits, as '**.norm.**=fp32', whatever --dtype says; repeatable")  # fmt: skip
    add("--strip-prefix", metavar="P", action="append",
        help="take it, as it stands, from names, as 'module.'; repeatable")  # fmt: skip
    add("--rename", metavar="FROM=TO", action="append", type=_renaming,
        help="'*' and '**' stand for the same text in both; the first that fits counts")  # fmt: skip
    add("--rename-regex", metavar="R=TO", action="append", type=_regex_renaming,
        help="replace what a regular expression finds; '\\1' is a group of it; repeatable")  # fmt: skip
    add("--add-prefix", metavar="P", help="put it, as it stands, before every name, as 'model.'")
    add("--untie", action="store_true", help="give every tied name values of its own")
    add("--ties", choices=("once", "twice"),
        help="where the format has no ties: write the first name alone, or every name")  # fmt: skip
    add(
        "--shard-size",
        metavar="N",
        help="several files of at most N bytes, as 5GB, and an index, if it takes more",
    )
    like = add("--like", metavar="F", help="for Keras and ONNX: the file into whose copy the values go")
    like.complete = _FILE  # type: ignore[attr-defined]
    add("--force", action="store_true", help="replace a file that is there")
    add("--verify", action="store_true", help="read the file again and compare every value")
    add("--dry-run", action="store_true", help="say what would be written or refused; write nothing")
    add_json(parser)


# Types of arguments


def _selector(text: str) -> str:
    import re

    from paratree.core.select import tests_of

    try:
        tests_of(text, role=None, kind=None, dtype=None, ndim=None)
    except (ValueError, re.error) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _casting(text: str) -> tuple[str, str]:
    pattern, equals, dtype = text.rpartition("=")
    if not equals or not pattern or not dtype:
        raise argparse.ArgumentTypeError(f"'{text}' is no P=D, as '**.weight=bf16'")
    return _selector(pattern), dtype


def _regex_renaming(text: str) -> tuple[object, str]:
    import re

    pattern, equals, target = text.rpartition("=")
    if not equals or not pattern:
        raise argparse.ArgumentTypeError(f"'{text}' is no R=TO")
    try:
        return re.compile(pattern), target
    except re.error as error:
        raise argparse.ArgumentTypeError(f"'{pattern}' is no regular expression: {error}") from None


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
