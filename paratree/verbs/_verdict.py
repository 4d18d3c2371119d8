"""What a ``Diff`` says in words, the verdict first."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from paratree.core.errors import printable
from paratree.core.names import split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from paratree.verbs._differences import Diff, Difference

# What a live parameter holds, or is.
INITIAL, TRANSPOSE, TIED = "still at its initial value", "holds the transpose", "tied"
ZEROS, ONES = "all zeros", "all ones"
_NEVER, _TURNED, _OTHER = "never loaded", "transposed", "with the values of another tensor"
_CONSTANT = "all zeros or ones"
_PARTED = "tied, of several values in the file"
_EQUAL = (  # status, and what follows "are"; in a list of several, "are equal"
    ("bit-equal", "equal to the last bit", "to the last bit"),
    ("other bits", "equal, though of other bits", "though of other bits"),
    ("equal after cast", "equal after the cast", "after the cast"),
    ("within tolerance", "equal within the tolerance", "within the tolerance"),
)


def verdict(found: Diff) -> str:
    """Return what was found, in a sentence or two."""
    if not found.rows:
        return "Both are empty."
    shared = [row for row in found.rows if None not in row.dtypes]
    if not shared:
        numbers = [sum(row.status == status for row in found.rows) for status in ("removed", "added")]
        return f"No name is in both: {numbers[0]} in the first only, {numbers[1]} in the second only."
    if found.model is not None:
        return " · ".join(_loaded(found))
    differing = [row for row in shared if not found.is_equal(row)]
    equal = [row for row in shared if found.is_equal(row)]
    parts = [_values(differing, equal, len(shared)), *_structure(found)]
    return "; ".join(part for part in parts if part) + "."


def _values(differing: Sequence[Difference], equal: Sequence[Difference], number: int) -> str:
    if not differing:
        return f"{_subject(number)} {_are(number)} {_equality(equal)}"
    unread = sum(row.status == "not compared" for row in differing)
    words = (
        f"{len(differing) - unread} of {_tensors(number)} {'differs' if len(differing) == 1 else 'differ'}"
    )
    if unread == len(differing):
        words = f"{unread} of {_tensors(number)} could not be compared"
    elif unread:
        words += f", {unread} could not be compared"
    place = common_place(row.name for row in differing)
    if place and len(differing) > 1 and equal:
        words += f", all under {printable(place)}"
    elif len(differing) == 1:
        words += f": {printable(differing[0].name)}"
    if not equal:
        return words
    rest = "the other is" if len(equal) == 1 else f"the other {len(equal)} are"
    return f"{words}; {rest} {_equality(equal)}"


def _subject(number: int) -> str:
    return "The one tensor" if number == 1 else f"All {number} tensors"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _tensors(number: int) -> str:
    return f"{number} tensor" if number == 1 else f"{number} tensors"


def _equality(equal: Sequence[Difference]) -> str:
    counts = Counter(row.status for row in equal)
    there = [(counts[status], alone, listed) for status, alone, listed in _EQUAL if counts[status]]
    cast = f" ({casts(equal)})" if counts["equal after cast"] else ""
    if len(there) == 1:
        return there[0][1] + cast
    words = (f"{number} {listed}" + (cast if "cast" in listed else "") for number, _, listed in there)
    return f"equal: {', '.join(words)}"


def casts(rows: Iterable[Difference], *, from_second: bool = False) -> str:
    """Return the casts that make rows equal, as ``"float16 → float32"``."""
    pairs = dict.fromkeys(row.dtypes for row in rows if row.status == "equal after cast")
    turned = (pair[::-1] if from_second else pair for pair in pairs)
    return ", ".join(" → ".join(printable(dtype or "") for dtype in pair) for pair in turned)


def common_place(names: Iterable[str]) -> str:
    """Return the segments that all names begin with, without the last segment of any.

    >>> common_place(["head.0.weight", "head.0.bias", "head.1.weight"])
    'head'
    """
    parts = [split(name)[:-1] for name in names]
    common = []
    for segments in zip(*parts, strict=False):
        if len(set(segments)) > 1:
            break
        common.append(segments[0])
    return ".".join(common)


def _structure(found: Diff) -> list[str]:
    words = []
    for status, text in (("added", "only in the second"), ("removed", "only in the first")):
        rows = [row for row in found.rows if row.status == status]
        if rows:
            name = f" ({printable(rows[0].name)})" if len(rows) == 1 else ""
            words.append(f"{len(rows)} {_are(len(rows))} {text}{name}")
    if number := sum(tie.records for tie in found.ties):
        words.append(f"{number} {'group is' if number == 1 else 'groups are'} tied in one of them only")
    return words


# A live model against a file


def _held(found: str | None) -> str:
    """Return what a live parameter holds, as the verdict counts it."""
    if found is None:
        return "different"
    if found.startswith(TIED):
        return _PARTED
    if found.startswith((ZEROS, ONES)):
        return _CONSTANT
    return _NEVER if found == INITIAL else _TURNED if found == TRANSPOSE else _OTHER


def _loaded(found: Diff) -> list[str]:
    """Return how much of a file a model holds."""
    missing, unexpected = ("removed", "added") if found.model == "a" else ("added", "removed")
    counts = Counter(row.status for row in found.rows)
    total = len(found.rows) - counts[unexpected] - counts["under a tied name"]
    words = [f"{counts['bit-equal']} of {total} loaded to the last bit"]
    for status, text in (
        ("equal after cast", f"cast ({casts(found.rows, from_second=found.model == 'a')})"),
        ("other bits", "equal, of other bits"),
        ("within tolerance", "within the tolerance"),
        ("reshaped", "of another shape"),
        ("not compared", "not compared"),
    ):
        words += [f"{counts[status]} {text}"] * bool(counts[status])
    held = Counter(_held(row.found) for row in found.rows if row.status == "different")
    kinds = (_NEVER, _CONSTANT, _TURNED, _OTHER, _PARTED, "different")
    words += [f"{number} {text}" for text in kinds if (number := held[text])]
    words += [f"{counts[missing]} not in the file"] * bool(counts[missing])
    words += [f"{counts[unexpected]} not in the model"] * bool(counts[unexpected])
    ties = sum(tie.records for tie in found.ties)
    return words + [f"{ties} tied differently"] * bool(ties)
