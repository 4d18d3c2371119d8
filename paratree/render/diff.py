"""How a ``Diff`` looks: the verdict, a table of what differs, what was left out, JSON."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from paratree.core.errors import printable
from paratree.render.json import SCHEMA, document, plain
from paratree.render.text import NOUNS, columns
from paratree.render.units import count, plural, shape
from paratree.verbs._differences import UNDER_TIE
from paratree.verbs._verdict import TRANSPOSE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from rich.console import Console, ConsoleOptions, RenderResult

    from paratree.verbs._differences import Diff, Difference, TieChange
    from paratree.verbs._proposing import Proposal

HEADS = ("name", "what", "changed", "beyond", "max |Δ|", "at", "rel. L2", "cosine")
RIGHT = ("changed", "beyond", "max |Δ|", "rel. L2", "cosine")
_NOTHING = "–"
_LONG = 10**6
_ROUNDING = 1e-14  # of 1 - cosine
_GAP = 2
_DROPPED = ("at", "cosine", "max |Δ|", "what")  # in a narrow terminal, in turn
_LEAST_NAME, _LEAST_OF_ALL = 24, 8
_YELLOW = (": --", "tied in", "Repair: ")
_ONLY_IN = {"added": "only in the second", "removed": "only in the first"}


def lines(found: Diff, *, everything: bool = False, hints: bool = True) -> list[str]:
    """Return a comparison as plain text, line by line.

    Args:
        found: what was found.
        everything: whether to list the tensors that are equal, too.
        hints: whether to name the options of the command line.
    """
    text = [found.verdict, title(found)]
    if listed := rows(found, everything):
        heads = _heads(found)
        made = [cells(row, _absolute(found)) for row in listed]
        body = columns([heads, *[[texts[head] for head in heads] for texts in made]], RIGHT)
        text += ["", body[0]]
        for row, line in zip(listed, body[1:], strict=True):
            text += [line, *[f"    {detail}" for detail in details(found, row, hints=hints)]]
    if below := foot(found, listed, hints=hints):
        text += ["", *below]
    return text


def title(found: Diff) -> str:
    """Return what was compared."""
    arrow = "←" if found.model == "a" else "→"
    return f"{printable(found.a)} {arrow} {printable(found.b)}"


def rows(found: Diff, everything: bool) -> Sequence[Difference]:
    """Return the rows to list, in order; none if no name matches, and by the proposal most of them would."""
    would_match = 0 if found.proposal is None else 2 * found.proposal.names
    if not everything and 2 * would_match >= len(found) and all(row.status in _ONLY_IN for row in found):
        return []
    return [row for row in found if everything or not found.is_equal(row)]


def _heads(found: Diff) -> tuple[str, ...]:
    return tuple(head for head in HEADS if head != "beyond" or found.rtol or found.atol)


def _absolute(found: Diff) -> float:
    """Return the tolerance, if it is the same for all values."""
    return 0.0 if found.rtol else found.atol


def cells(row: Difference, tolerance: float) -> dict[str, str]:
    """Return the texts of a row by head, a change beyond a tolerance with the digits that tell it so."""
    compared = row.changed > 0 and row.size is not None
    finite = compared and bool(row.max_abs)
    return {
        "name": name_of(row),
        "what": what(row),
        "changed": f"{count(row.changed)} of {count(row.size or 0)}" if compared else _NOTHING,
        "beyond": count(row.beyond) if compared else _NOTHING,
        "max |Δ|": _beside(row.max_abs, tolerance) if finite else _NOTHING,
        "at": place(row.where) if finite and row.where is not None else "",
        "rel. L2": number(row.relative_l2) if compared else _NOTHING,
        "cosine": _cosine(row.cosine) if compared else _NOTHING,
    }


def name_of(row: Difference) -> str:
    """Return the name of a row, and that of the second source if it is another."""
    if row.other is None or row.other == row.name:
        return _name(row.name)
    return f"{_name(row.name)} → {_name(row.other)}"


def _name(name: str) -> str:
    return printable(name) or '""'


def what(row: Difference) -> str:
    """Return what a row is about: the dtype, the shapes, or why there is nothing to compare."""
    first, second = (None if dtype is None else printable(dtype) for dtype in row.dtypes)
    if row.status in _ONLY_IN:
        lengths = row.shapes[0] or row.shapes[1] or ()
        return f"{_ONLY_IN[row.status]}, {shape(lengths)}"
    if row.status == "reshaped":
        return f"{shape(row.shapes[0] or ())} → {shape(row.shapes[1] or ())}"
    if row.status == UNDER_TIE:
        return f"{UNDER_TIE}, {shape(row.shapes[0] or row.shapes[1] or ())}"
    words = f"{first}" if first == second else f"{first} → {second}"
    return words if row.status == "different" else f"{words}, {row.status}"


def number(value: float | None) -> str:
    """Return a figure in three digits, an integer of at most six in all of its own.

    >>> number(0.04134), number(30522), number(9007199254740993), number(float("inf")), number(None)
    ('0.0413', '30522', '9.01e+15', 'inf', '–')
    """
    if value is None:
        return _NOTHING
    return str(value) if isinstance(value, int) and abs(value) < _LONG else f"{value:.3g}"


def _beside(value: float | None, tolerance: float) -> str:
    """Return a figure with as many digits as tell it from a tolerance.

    >>> _beside(0.00100004, 0.001), _beside(0.00100004, 0.002), _beside(0.001, 0.001)
    ('0.00100004', '0.001', '0.001')
    """
    text = number(value)
    if value is None or value <= tolerance or float(text) > tolerance:
        return text
    return next(made for digits in range(4, 18) if float(made := f"{value:.{digits}g}") > tolerance)


def _cosine(value: float | None) -> str:
    """Return a cosine; one that is nearly 1 keeps the digits that tell it from 1.

    >>> _cosine(0.9731), _cosine(1 - 1e-9), _cosine(1.0)
    ('0.973', '1-1e-09', '1')
    """
    if value is None:
        return _NOTHING
    if value > 0 and f"{value:.3f}" == "1.000":
        return f"1-{1 - value:.1g}" if 1 - value > _ROUNDING else "1"
    return f"{value:.3f}"


def place(index: tuple[int, ...] | None) -> str:
    """Return an index as NumPy's users write it.

    >>> place((1, 2)), place(())
    ('[1, 2]', '[()]')
    """
    return f"[{', '.join(map(str, index))}]" if index else "[()]"


def details(found: Diff, row: Difference, *, hints: bool) -> Iterator[str]:
    """Yield what else there is to say of a row, a line each."""
    for name, sides, new, first in (
        ("NaN", row.nan, row.new_nan, row.first_nan),
        ("Inf", row.inf, row.new_inf, row.first_inf),
    ):
        if new:
            yield f"✗ {name}: {sides[0]} → {sides[1]}, {new} new, first at {place(first)}"
        elif sides[0] != sides[1]:
            yield f"{name}: {sides[0]} → {sides[1]}"
    if row.nan_bits and not found.equal_nan:
        yield f"{plural(row.nan_bits, 'NaN')} of other bits" + (" (--equal-nan: equal)" if hints else "")
    if row.axes is not None:
        yield f"compared with the axes of the second in the order {row.axes}"
    if row.transposed is not None:
        is_cast = row.dtypes[0] != row.dtypes[1]
        how = "equal" if is_cast else "equal to the last bit"
        yield f"the values are {how} when {_order(row.transposed)}" + ", after the cast" * is_cast
    if row.in_order:
        yield "reshaped, values equal in order"
    if row.tied and row.status != UNDER_TIE:  # said below
        verb = "tied with" if row.status in _ONLY_IN else "also"
        yield f"{verb} {', '.join(map(_name, row.tied))}"
    if row.problem is not None:
        yield printable(row.problem)
    if row.found is not None and row.found != TRANSPOSE:  # said above
        yield row.found
    if row.repair is not None:
        yield f"Repair: {row.repair}"


def _order(axes: tuple[int, ...]) -> str:
    if axes == tuple(range(len(axes))):
        return "compared as they lie"
    return "transposed" if axes == (1, 0) else f"with the axes in the order {axes}"


def foot(found: Diff, listed: Sequence[Difference], *, hints: bool) -> list[str]:
    """Return what stands below the table: ties, what was left out, what would make more names match."""
    text = [line for tie in found.ties for line in _tie(tie)]
    facts = []
    if once := sum(len(row.tied) for row in found if row.status not in _ONLY_IN):
        facts.append(f"{plural(once, 'tied name')} compared once, with its group")
    for kind, names in found.hidden:
        facts.append(f"{plural(names, NOUNS[kind])} left out" + (f" (--kind {kind})" if hints else ""))
    if found.rtol or found.atol:
        facts.append(f"tolerance: |Δ| ≤ {found.atol:g} + {found.rtol:g} |a|")
    if (rest := len(found) - len(listed)) and hints and not found.same:
        facts.append(f"{plural(rest, 'row')} not listed (--all)")
    text += [" · ".join(facts)] if facts else []
    return text + proposal(found, hints=hints)


def _tie(tie: TieChange) -> list[str]:
    side, other = ("first", "second") if tie.tied_in == "a" else ("second", "first")
    names = " = ".join(map(_name, tie.names))
    note = "" if tie.records else ", whose format records no ties"
    line = f"tied in the {side} only: {names}; apart in the {other}{note}"
    return [line] if tie.repair is None else [line, f"    Repair: {tie.repair}"]


def proposal(found: Diff, *, hints: bool) -> list[str]:
    """Return the line that says which options make more names match."""
    if found.proposal is None:
        return []
    prefixes, rename, names = found.proposal.prefixes, found.proposal.rename, found.proposal.names
    without = " and ".join(f"'{printable(prefix)}'" for prefix in prefixes)
    how = [f"without {without}"] * bool(prefixes) + ["renamed"] * bool(rename)
    if hints:
        options = [f"--strip-prefix {shlex.quote(printable(prefix))}" for prefix in prefixes]
        options += [f"--map {shlex.quote(printable(f'{name}={to}'))}" for name, to in rename.items()]
    else:
        options = [", ".join(
            [f"strip={list(prefixes)}"] * bool(prefixes) + [f"rename={dict(rename)}"] * bool(rename)
        )]  # fmt: skip
    verb = "matches" if names == 1 else "match"
    first, second = found.proposal.left
    part = (
        f" ({first} of the first and {second} of the second still match nothing)" if first and second else ""
    )
    return [f"{plural(names, 'more name')} {verb} {' and '.join(how)}{part}: {' '.join(options)}"]


# The terminal


def table(found: Diff, *, everything: bool = False, hints: bool = False) -> Screen:
    """Return a comparison as something rich can print."""
    return Screen(found, everything, hints)


class Screen:
    """A comparison that fits itself to the width it is printed at."""

    def __init__(self, found: Diff, everything: bool, hints: bool) -> None:
        self._found, self._hints = found, hints
        self._listed = rows(found, everything)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        from rich.text import Text

        yield Text(self._found.verdict, "bold green" if self._found.same else "bold")
        yield Text(title(self._found), "dim")
        if self._listed:
            yield Text()
            yield from self._table(options.max_width)
        if below := foot(self._found, self._listed, hints=self._hints):
            yield Text()
            yield from (
                Text(line, "yellow" if any(mark in line for mark in _YELLOW) else "dim") for line in below
            )

    def _table(self, width: int) -> Iterator[Any]:
        from rich.cells import cell_len
        from rich.text import Text

        from paratree.render.terminal import named, shortened

        texts = [dict(zip(HEADS, HEADS, strict=True))]
        texts += [cells(row, _absolute(self._found)) for row in self._listed]
        widths = {head: max(cell_len(row[head]) for row in texts) for head in _heads(self._found)}
        for head in _DROPPED:
            if _width(widths) <= width:
                break
            del widths[head]
        if _width({**widths, "name": _LEAST_OF_ALL}) > width:
            del widths["rel. L2"]
        rest = _width({**widths, "name": 0})
        widths["name"] = max(min(widths["name"], width - rest), _LEAST_OF_ALL)
        names = named([row["name"] for row in texts], widths["name"], width)
        for number, row in enumerate(texts):
            above, row["name"] = names[number]
            if above is not None:
                yield above
            line = Text(" " * _GAP)
            for head, size in widths.items():
                text = shortened(row[head], size)
                pad = " " * (size - cell_len(text))
                line.append(pad + text if head in RIGHT else text + pad, _style(head) if number else "dim")
                line.append(" " * _GAP)
            line.rstrip()
            yield line
            if number:
                listed = self._listed[number - 1]
                if "what" not in widths and listed.status != "different":
                    yield Text(f"    {what(listed)}", "green")
                for detail in details(self._found, listed, hints=self._hints):
                    yield Text(f"    {detail}", _style_of(detail))


def _width(widths: dict[str, int]) -> int:
    """Return how wide a table is whose names are cut to the least."""
    names = min(widths["name"], _LEAST_NAME)
    return sum(widths.values()) - widths["name"] + names + _GAP * len(widths)


def _style(head: str) -> str:
    return {"what": "green", "at": "dim"}.get(head, "")


def _style_of(detail: str) -> str:
    return "bold red" if detail.startswith("✗") else "yellow" if detail.startswith("Repair") else "dim"


# JSON


def _proposed(found: Proposal | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "strip": found.prefixes,
        "rename": dict(found.rename),
        "names": found.names,
        "left": found.left,
    }


def as_json(found: Diff) -> str:
    """Return one JSON document, a parameter on each line."""
    fields = {
        "schema": SCHEMA,
        "a": found.a,
        "b": found.b,
        "formats": found.formats,
        "same": found.same,
        "verdict": found.verdict,
        "statuses": dict(Counter(row.status for row in found)),
        "model": found.model,
        "rtol": plain(found.rtol),
        "atol": plain(found.atol),
        "equal_nan": found.equal_nan,
        "hidden": dict(found.hidden),
        "ties": [asdict(tie) for tie in found.ties],
        "proposal": _proposed(found.proposal),
    }
    return document(fields, "rows", [json.dumps(plain(row)) for row in found.to_dicts()])
