"""Errors of paratree: each names the source, says what is wrong and what to do next.

ParatreeError
├── UnknownSourceError   nothing recognises the source           (also TypeError)
├── SourceNotFoundError  no such path                            (also FileNotFoundError)
├── MissingPackageError  an optional package is not installed    (also ImportError)
├── CorruptFileError     the bytes contradict themselves         (also ValueError)
├── UnsafeFileError      reading would have to execute code      (also ValueError)
├── UnreadableError      listed, but it has no value to read     (also TypeError)
├── NoSuchParamError     no parameter of that name               (also KeyError)
├── MismatchError        what was given does not fit the tree    (also ValueError)
└── UnsupportedError     the framework cannot express it         (also TypeError)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

_DAMAGED = "the file is damaged or was cut short: fetch it again"
_MOST_SEARCHED = 2_000


def printable(text: str) -> str:
    r"""Return ``text`` with every character that a terminal could act on escaped.

    >>> printable("a\x1b[31m")
    'a\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class ParatreeError(Exception):
    """Base class; catch it to catch everything paratree raises on purpose."""


class UnknownSourceError(ParatreeError, TypeError):
    """No format and no framework recognises the source."""


class SourceNotFoundError(ParatreeError, FileNotFoundError):
    """The path does not exist; paratree never looks a path up online."""


class MissingPackageError(ParatreeError, ImportError):
    """The source is recognised, but the package that reads it is absent."""


class UnreadableError(ParatreeError, TypeError):
    """The parameter is listed, but NumPy cannot hold its values or there are none yet."""


class _FileError(ParatreeError, ValueError):
    """A fault at a known place of a file.

    Attributes:
        path: the file.
        reason: the fact, without the place.
        offset: byte in the file (or in the member, when there is one), if known.
        member: entry of an archive, tensor name or part of the file, if any.
    """

    def __init__(
        self,
        path: object,
        reason: str,
        *,
        offset: int | None = None,
        member: str | None = None,
        advice: str = _DAMAGED,
    ) -> None:
        self.path, self.reason, self.offset, self.member = str(path), reason, offset, member
        place = "" if offset is None else f" at byte {offset}"
        if member is not None:
            place += f" (member {printable(member[:200])})"
        super().__init__(
            f"{printable(str(path))}:{place + ':' if place else ''} {printable(reason)}; {advice}"
        )


class CorruptFileError(_FileError):
    """The bytes of a file contradict themselves or the format's specification."""


class UnsafeFileError(_FileError):
    """Reading the file would have to execute code or follow a way out of the file."""


class NoSuchParamError(ParatreeError, KeyError):
    """The tree holds no parameter of that name; the message names the nearest."""

    def __init__(self, name: str, names: Collection[str], source: str, *, message: str | None = None) -> None:
        self.name = name
        if message is None:
            message = f"{printable(source)}: no parameter '{printable(name)}'{_nearest(name, names)}"
        super().__init__(message)

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0])


class MismatchError(ParatreeError, ValueError):
    """What was given does not fit the parameters: another shape, dtype, structure, or two for one."""


class UnsupportedError(ParatreeError, TypeError):
    """The framework has no way to express what was asked for; the message says which way it has."""


def _nearest(name: str, names: Collection[str]) -> str:
    if not names:
        return "; the tree is empty"
    tail = "." + name
    if longer := next((n for n in names if n.endswith(tail)), None):
        prefix = longer[: -len(name)]
        every = all(n.startswith(prefix) for n in names)
        note = f" (every name here begins with '{printable(prefix)}')" if every else ""
        return f"; did you mean '{printable(longer)}'?{note}"
    if any(n.startswith(name + ".") for n in names):
        return f"; it is a subtree: '{printable(name)}.**' selects what is below it"
    from difflib import get_close_matches
    from itertools import islice

    searched = list(islice(names, _MOST_SEARCHED))
    near = get_close_matches(name, searched, n=3)
    if not near:
        subtrees = dict.fromkeys(n[:end] for n in searched for end in range(len(n)) if n[end] in "./")
        near = get_close_matches(name, islice(subtrees, _MOST_SEARCHED), n=3)
    return f"; did you mean {', '.join(repr(printable(n)) for n in near)}?" if near else ""
