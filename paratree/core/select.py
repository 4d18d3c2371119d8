"""The one selector language: glob, regular expression, predicate, role, kind, dtype, ndim."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from paratree.core.errors import MismatchError
from paratree.core.names import KINDS, ROLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from paratree.core.param import Param

    Selector = str | re.Pattern[str] | Callable[[Param], bool] | Iterable["Selector"]
    Test = Callable[[str, Param], bool]

_LONGEST_RANGE = 100_000
_BREAK = re.compile(r"\{[^{}]*\}|\[[^]]+\]|[./]")
_CHARACTERS = re.compile("(.)-(.)|.", re.DOTALL)
_TIMES = re.compile(r" ×[0-9]+$")  # what show puts after a folded row, so that a row can be pasted
_TOKEN = re.compile(r"\*|\?|\[[^]]+\]|\{(-?\d+)\.\.(-?\d+)\}|\{([^{}]*)\}")


def tests_of(
    pattern: Selector | None,
    *,
    role: str | Iterable[str] | None,
    kind: str | Iterable[str] | None,
    dtype: str | Iterable[str] | None,
    ndim: int | Iterable[int] | None,
) -> Test:
    """Return one function that tells whether a name and its parameter fit everything given."""
    tests: list[Test] = [] if pattern is None else [_test(pattern)]
    for attribute, wanted in (("role", role), ("kind", kind), ("dtype", dtype), ("ndim", ndim)):
        if wanted is not None:
            tests.append(_attribute(attribute, wanted))
    return lambda name, param: all(test(name, param) for test in tests)


def _attribute(attribute: str, wanted: object) -> Test:
    several = isinstance(wanted, Iterable) and not isinstance(wanted, str)
    values = tuple(wanted) if several else (wanted,)  # type: ignore[arg-type]
    if attribute == "dtype":
        values = tuple(map(_dtype_name, values))
    known = {"kind": KINDS, "role": ROLES}.get(attribute)
    if known is not None and (unknown := [value for value in values if value not in known]):
        raise MismatchError(f"there is no {attribute} '{unknown[0]}'; there are: {', '.join(known)}")
    return lambda _, param: getattr(param, attribute) in values


def _dtype_name(dtype: object) -> str:
    """Return the name of a dtype given as text or as an object of NumPy, ml_dtypes or torch."""
    name = getattr(dtype, "__name__", None) or getattr(dtype, "name", None) or str(dtype)
    return str(name).removeprefix("torch.")


def _test(pattern: Selector) -> Test:
    if isinstance(pattern, str):
        literal, glob = pattern, _glob(_TIMES.sub("", pattern))

        def fits(name: str) -> bool:
            return name == literal or glob.fullmatch(name.replace("/", ".")) is not None

        return lambda name, param: fits(name) or any(map(fits, param.aliases))
    if isinstance(pattern, re.Pattern):
        search = pattern.search
        return lambda name, param: any(search(each) is not None for each in (name, *param.aliases))
    if callable(pattern):
        return lambda _, param: bool(pattern(param))
    if not isinstance(pattern, Iterable) or isinstance(pattern, bytes | bytearray):
        kind = type(pattern).__name__
        raise MismatchError(
            f"select takes a glob, an re.Pattern, a function of a Param, or several of these, not "
            f"an object of type {kind}"
        )
    tests = [_test(part) for part in pattern]
    return lambda name, param: any(test(name, param) for test in tests)


@lru_cache(maxsize=64)
def _glob(pattern: str) -> re.Pattern[str]:
    """Compile a glob: ``*`` and ``?`` stay inside a segment, ``**`` is any number of segments.

    ``{a,b}`` and ``{0..11}`` are alternatives, so that a folded row of ``show`` selects what it stands for.
    """
    pieces: list[str] = []
    segments = segments_of(pattern)
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        if segment == "**":
            if last:
                pieces.append(".*")
            elif not pieces or pieces[-1] != r"(?:[^.]*\.)*":
                pieces.append(r"(?:[^.]*\.)*")
        else:
            pieces.append(_segment(segment) + ("" if last else r"\."))
    return re.compile("".join(pieces), re.DOTALL)


def segments_of(pattern: str) -> list[str]:
    """Split at the dots (or slashes) that are not inside braces or brackets."""
    start, segments = 0, []
    for found in _BREAK.finditer(pattern):
        if found.group() in "./":
            segments.append(pattern[start : found.start()])
            start = found.end()
    return [*segments, pattern[start:]]


def _segment(segment: str) -> str:
    pieces, start = [], 0
    for token in _TOKEN.finditer(segment):
        pieces.append(re.escape(segment[start : token.start()]))
        pieces.append(_token(token))
        start = token.end()
    pieces.append(re.escape(segment[start:]))
    return "".join(pieces)


def _token(token: re.Match[str]) -> str:
    text = token.group()
    if text == "*":
        return "[^.]*"
    if text == "?":
        return "[^.]"
    if text[0] == "[":
        return _bracket(text)
    low, high, options = token.groups()
    if options is not None:
        return "(?:" + "|".join(_segment(option) for option in options.split(",")) + ")"
    if not 0 <= int(high) - int(low) <= _LONGEST_RANGE:
        raise MismatchError(f"selector {text}: the range is empty or longer than {_LONGEST_RANGE}")
    return "(?:" + "|".join(map(str, range(int(low), int(high) + 1))) + ")"


def _bracket(text: str) -> str:
    """Translate ``[ab]``, ``[a-z]`` or ``[!a]``: characters, of which none separates segments."""
    negated = text[1] == "!" and len(text) > 3
    pieces = []
    for found in _CHARACTERS.finditer(text[1 + negated : -1]):
        low, high = found.groups()
        if low is not None and low > high:
            raise MismatchError(f"selector {text}: the range {found.group()} runs backwards")
        pieces.append(re.escape(found.group()) if low is None else f"{re.escape(low)}-{re.escape(high)}")
    return rf"(?!\.)[{'^' if negated else ''}{''.join(pieces)}]"
