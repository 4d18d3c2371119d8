"""The table of a terminal, through rich: the words of plain text, quiet colours, fitted to the width.

Names are data: control characters are escaped, and ``Text`` objects interpret no markup.
"""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from paratree.core.errors import printable
from paratree.render.text import COLUMNS, RIGHT, cells, foot, head, title, units_aligned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

    from paratree.verbs.formats import FormatFacts
    from paratree.verbs.listing import Listing, Row

    Column = tuple[str, list[str]]  # head, cells

_TIED = "⛓"
_GAP = 2
_LONGEST_TIED = 32
_LONGEST_CELL = 40
_LEAST_SUFFIXES = 12
_ANSWER = re.compile(r"(?:(yes|no)\b[,:;]? ?)?(.*)", re.DOTALL)  # in a fact: "no", "yes; but", "hard links"
_LEAST_NAME, _SHARE_OF_NAME = 22, 0.45
_SEGMENT = re.compile("[^./]*")
_BRACES = re.compile(r"\{[^{}]*\}|\*\*$")
_STYLES = {"dtype": Style(color="green"), "tied": Style(color="magenta")}
_POORER = (  # what is given up first when the terminal is narrow: column, and what it becomes
    ("tied", "mark"),
    ("dtype", "if one"),
    ("shape", "tight"),
    ("bytes", "gone"),
    ("dtype", "gone"),
    ("params", "gone"),
)


def table(listing: Listing, *, hints: bool = False) -> Screen:
    """Return a listing as something rich can print.

    Args:
        listing: what ``show`` found.
        hints: whether to name the options of the command line that show more.
    """
    return Screen(listing, hints)


class Screen:
    """A listing that fits itself to the width it is printed at."""

    def __init__(self, listing: Listing, hints: bool) -> None:
        self._listing, self._hints = listing, hints

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        listing = self._listing
        name, facts = title(listing), " · ".join(head(listing))
        fits = cell_len(name) + 3 + cell_len(facts) <= options.max_width
        yield Text.assemble((name, "bold"), "   " if fits else "\n", (facts, "dim"))
        if listing.rows:
            yield Text()
            yield from _lines(listing, console, options.max_width)
        yield Text()
        first, *rest = foot(listing, hints=self._hints)
        yield Text(first)
        for line in rest:
            yield Text(line, "yellow" if line.startswith("not readable") else "dim")


def _lines(listing: Listing, console: Console, width: int) -> Iterator[Segment]:
    """Yield the table; the cells are fitted already, and a rich Table takes five times as long."""
    room, columns = _fit(listing, width - _GAP)
    padded = [_padded(heading, texts) for heading, texts in columns]
    heads = "".join(texts[0] for texts in padded)
    yield Segment(f"{'  name':<{room + _GAP}}{heads}\n", Style(dim=True))
    styles = [_STYLES.get(heading) for heading, _ in columns]
    names = _names(listing.rows, room)
    for i, (row, (cut, common)) in enumerate(zip(listing.rows, names, strict=True), 1):
        name = _name(row, cut, common)
        yield from name.render(console)
        yield Segment(" " * (room + _GAP - name.cell_len))
        for texts, style in zip(padded, styles, strict=True):
            yield Segment(texts[i], style)
        yield Segment.line()


def _padded(heading: str, texts: list[str]) -> list[str]:
    """Return a heading and its cells, all of one width, with the gap before them."""
    widths = [cell_len(text) for text in (heading, *texts)]
    widest = max(widths)
    pads = [" " * (widest - width) for width in widths]
    if heading in RIGHT:
        return [" " * _GAP + pad + text for pad, text in zip(pads, (heading, *texts), strict=True)]
    return [" " * _GAP + text + pad for pad, text in zip(pads, (heading, *texts), strict=True)]


def _fit(listing: Listing, width: int) -> tuple[int, list[Column]]:
    """Return the width of the names and the columns beside them, as many as the terminal has room for."""
    found = [cells(row) for row in listing.rows]
    names = [texts[0] for texts in found]
    columns = {
        heading: [shortened(texts[i], _LONGEST_CELL) for texts in found]
        for i, heading in enumerate(COLUMNS[1:-1], 1)
    }
    for heading in RIGHT:
        columns[heading] = units_aligned(columns[heading])
    if listing.ties:
        columns["tied"] = [_tied(row) for row in listing.rows]
    natural = max(cell_len(name) for name in names)
    wanted = min(natural, max(_LEAST_NAME, int(width * _SHARE_OF_NAME)))
    room = _room(columns, width)
    for heading, form in _POORER:
        if room >= wanted:
            break
        if heading in columns:
            _impoverish(columns, heading, form, listing)
            room = _room(columns, width)
    return max(min(natural, room), 1), list(columns.items())


def _room(columns: dict[str, list[str]], width: int) -> int:
    return width - sum(_GAP + max(map(cell_len, [heading, *texts])) for heading, texts in columns.items())


def _impoverish(columns: dict[str, list[str]], heading: str, form: str, listing: Listing) -> None:
    if form == "mark":
        columns[heading] = [f"{_TIED} {row.tie}" if row.tie else "" for row in listing.rows]
    elif form == "tight":
        columns[heading] = [text.replace(" × ", "×") for text in columns[heading]]
    elif form == "gone" or len(listing.dtypes) == 1:
        del columns[heading]


def _tied(row: Row) -> str:
    """Mark a tied row with the number of its group; all but the first say whom they are tied with."""
    mark = f"{_TIED} {row.tie}" if row.tie else ""
    if not row.repeats or row.tied_with is None:
        return mark
    return f"{mark} = {shortened(printable(row.tied_with), _LONGEST_TIED)}"


def _names(rows: Sequence[Row], width: int) -> list[tuple[str, int]]:
    """Return the names of rows, cut to a width, and how long a start each shares with the row before it."""
    found: list[tuple[str, int]] = []
    alike: dict[str, list[int]] = {}
    before: tuple[str, ...] = ()
    for row in rows:
        common = 0
        for own, other in zip(row.path[:-1], before, strict=False):
            if own != other:
                break
            common += len(printable(own))
        text = shortened(printable(row.name), width - len(_times(row)), common)
        alike.setdefault(text, []).append(len(found))
        found.append((text, common))
        before = row.path
    for places in alike.values():
        if len(places) > 1:
            names = [printable(rows[i].name) for i in places]
            room = width - max(len(_times(rows[i])) for i in places)
            for i, text in zip(places, told_apart(names, room), strict=True):
                found[i] = (text or found[i][0], found[i][1])
    return found


def told_apart(names: Sequence[str], width: int) -> list[str]:
    """Cut names out at two places, so that where they differ stays; empty texts if there is no room for that.

    >>> told_apart(["bidirectional.forward_lstm.kernel", "bidirectional.backward_lstm.kernel"], 18)
    ['…forward_l….kernel', '…backward_….kernel']
    """
    first, last = min(names), max(names)
    start = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    while start and first[start - 1].isdigit():  # a number stays whole
        start -= 1
    rests = [name[start:] for name in names]
    least = max(cell_len(_SEGMENT.match(rest).group()) for rest in rests)  # type: ignore[union-attr]
    for tails in (map(_last, rests), (rest[-max(width - least - 2, 1) :] for rest in rests)):
        cut = [_without_middle(rest, tail, width) for rest, tail in zip(rests, tails, strict=True)]
        if all(cell_len(text) <= width for text in cut) and len(set(cut)) == len(set(names)):
            return cut
    return [""] * len(names)


def _last(name: str) -> str:
    """Return the last segment of a name with what separates it, if there is one before it."""
    dot = max(name.rfind("."), name.rfind("/"))
    return name[dot:] if dot > 0 else ""


def _without_middle(rest: str, tail: str, width: int) -> str:
    if cell_len(rest) < width:
        return "…" + rest
    end = "…" + tail if tail else ""
    return "…" + set_cell_size(rest, max(width - 1 - cell_len(end), 0)).rstrip() + end


def all_shortened(names: Sequence[str], width: int) -> list[str]:
    """Cut the middle of names out that are too wide, and otherwise where they would be cut alike.

    Names that no cut tells apart are left whole, to stand on lines of their own.

    >>> all_shortened(["encoder.layer.0.attention.query", "encoder.layer.1.attention.query", "head"], 18)
    ['…0.attention.query', '…1.attention.query', 'head']
    """
    cut = [shortened(name, width) for name in names]
    alike: dict[str, list[int]] = {}
    for i, text in enumerate(cut):
        alike.setdefault(text, []).append(i)
    for places in alike.values():
        own = [names[i] for i in places]
        if len(set(own)) > 1:
            for i, text in zip(places, told_apart(own, width), strict=True):
                cut[i] = text or cut[i]
    meant: dict[str, set[str]] = {}
    for name, text in zip(names, cut, strict=True):
        meant.setdefault(text, set()).add(name)
    return [name if len(meant[text]) > 1 else text for name, text in zip(names, cut, strict=True)]


def named(names: Sequence[str], width: int, screen: int) -> list[tuple[Padding | None, str]]:
    """Return the name of each row as it fits its column, or else what stands above the row in its place."""
    cut = all_shortened(names, width)
    above = all_shortened(names, screen - _GAP)
    return [
        (None, text) if cell_len(text) <= width else (_on_its_own(whole), "")
        for text, whole in zip(cut, above, strict=True)
    ]


def _on_its_own(name: str) -> Padding:
    return Padding(Text(name, overflow="fold"), (0, 0, 0, _GAP), expand=False)


def _times(row: Row) -> str:
    return cells(row)[0].removeprefix(printable(row.name))


def _name(row: Row, cut_name: str, common: int) -> Text:
    """Return a row's name, what it has in common with the row before it dimmed."""
    times = _times(row)
    text = Text("  " + cut_name)
    cut = text.plain.find("…", 2)
    text.stylize("dim", 2, 2 + common if cut < 0 else min(2 + common, cut))
    for braces in _BRACES.finditer(text.plain):
        text.stylize("cyan", *braces.span())
    return text.append(times, "cyan")


def shortened(name: str, width: int, common: int = 0) -> str:
    """Cut the middle of a name out if it is too wide, rather in what the row before has ``common`` with it.

    >>> shortened("encoder.layer.attention.self.key.weight", 24)
    'encod…on.self.key.weight'
    >>> shortened("encoder.layer.self.query_key_value.weight", 24, len("encoder.layer.self"))
    '….query_key_value.weight'
    """
    if cell_len(name) <= width:
        return name
    fits = common and cell_len(name[common:]) < width
    tail = name[-max(width * 3 // 4, len(name) - common if fits else 1, 1) :]
    while tail and cell_len(tail) > max(width - 1, 0):
        tail = tail[1:]
    if "}" in tail.partition("{")[0]:  # braces are shown whole or not at all
        tail = tail.partition("}")[2] or tail
    start = set_cell_size(name, max(width - 1 - cell_len(tail), 0))
    if "{" in start.rpartition("}")[2]:
        start = start.rpartition("{")[0]
    return start.rstrip(" .") + "…" + tail


def formats(found: Sequence[FormatFacts]) -> Formats:
    """Return the formats as something rich can print."""
    return Formats(found)


class Formats:
    """A table of formats that fits itself to the width it is printed at.

    Its cells say yes or no; what a format adds to that, and what is read, stand below them.
    """

    def __init__(self, found: Sequence[FormatFacts]) -> None:
        from paratree.render.results import FORMAT_HEADS, format_cells

        self._rows = [[name for name in FORMAT_HEADS if name != "READS"]]
        self._below = [""]
        for row in map(format_cells, found):
            facts = dict(zip(FORMAT_HEADS, row, strict=True))
            below = [facts.pop("READS")]
            for name in ("LAZY", "TIES"):
                answer, more = _ANSWER.fullmatch(facts[name]).groups()  # type: ignore[union-attr]
                below += [f"{name.lower()}: {more}"] * bool(more)
                facts[name] = answer or "yes"
            self._rows.append([*facts.values()])
            self._below.append(" · ".join(below))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        widths = [max(map(cell_len, column)) for column in zip(*self._rows, strict=True)]
        spare = options.max_width - sum(widths) - _GAP * (len(widths) - 1)
        widths[1] = max(widths[1] + min(spare, 0), _LEAST_SUFFIXES)
        yield _line(self._rows[0], widths, "dim", "dim")
        for row, below in zip(self._rows[1:], self._below[1:], strict=True):
            yield _line(row, widths, "bold", "")
            yield Padding(Text(below, "dim"), (0, 0, 0, widths[0] + _GAP))


def _line(cells: Sequence[str], widths: Sequence[int], first: str, rest: str) -> Table:
    """Return one line of a table, its cells wrapped at words."""
    from rich.table import Table

    line = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
    for width in widths:
        line.add_column(width=width, overflow="fold")
    line.add_row(*(Text(cell, rest if number else first) for number, cell in enumerate(cells)))
    return line
