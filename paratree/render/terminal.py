"""The table of a terminal, through rich: the words of plain text, quiet colours, fitted to the width.

Names are data: control characters are escaped, and ``Text`` objects interpret no markup.
"""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from paratree.core.errors import printable
from paratree.render.text import COLUMNS, RIGHT, cells, foot, head, title, units_aligned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType

    from paratree.verbs.formats import FormatFacts
    from paratree.verbs.listing import Listing, Row

    Column = tuple[str, list[str]]  # head, cells

_TIED = "⛓"
_GAP = 2
_LONGEST_TIED = 32
_LEAST_NAME, _SHARE_OF_NAME = 22, 0.45
_BRACES = re.compile(r"\{[^{}]*\}|\*\*$")
_STYLES = {"dtype": "green", "tied": "magenta"}
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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        listing = self._listing
        name, facts = title(listing), " · ".join(head(listing))
        fits = cell_len(name) + 3 + cell_len(facts) <= options.max_width
        yield Text.assemble((name, "bold"), "   " if fits else "\n", (facts, "dim"))
        if listing.rows:
            yield Text()
            yield _table(listing, options.max_width)
        yield Text()
        first, *rest = foot(listing, hints=self._hints)
        yield Text(first)
        for line in rest:
            yield Text(line, "yellow" if line.startswith("not readable") else "dim")


def _table(listing: Listing, width: int) -> Table:
    names, columns = _fit(listing, width - _GAP)
    grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    grid.add_column(Text("  name"), no_wrap=True)
    for head, texts in columns:
        justify: JustifyMethod = "right" if head in RIGHT else "left"
        grid.add_column(Text(head), justify=justify, no_wrap=True, style=_STYLES.get(head, ""))
    before: tuple[str, ...] = ()
    for i, row in enumerate(listing.rows):
        grid.add_row(_name(row, before, names), *[Text(texts[i]) for _, texts in columns])
        before = row.path
    return grid


def _fit(listing: Listing, width: int) -> tuple[int, list[Column]]:
    """Return the width of the names and the columns beside them, as many as the terminal has room for."""
    found = [cells(row) for row in listing.rows]
    columns = {head: [texts[i] for texts in found] for i, head in enumerate(COLUMNS[:-1])}
    names = columns.pop("name")
    for head in RIGHT:
        columns[head] = units_aligned(columns[head])
    if listing.ties:
        columns["tied"] = [_tied(row) for row in listing.rows]
    natural = max(cell_len(name) for name in names)
    wanted = min(natural, max(_LEAST_NAME, int(width * _SHARE_OF_NAME)))
    room = _room(columns, width)
    for head, form in _POORER:
        if room >= wanted:
            break
        if head in columns:
            _impoverish(columns, head, form, listing)
            room = _room(columns, width)
    return max(min(natural, room), 1), list(columns.items())


def _room(columns: dict[str, list[str]], width: int) -> int:
    return width - sum(_GAP + max(map(cell_len, [head, *texts])) for head, texts in columns.items())


def _impoverish(columns: dict[str, list[str]], head: str, form: str, listing: Listing) -> None:
    if form == "mark":
        columns[head] = [f"{_TIED} {row.tie}" if row.tie else "" for row in listing.rows]
    elif form == "tight":
        columns[head] = [text.replace(" × ", "×") for text in columns[head]]
    elif form == "gone" or len(listing.dtypes) == 1:
        del columns[head]


def _tied(row: Row) -> str:
    """Mark a tied row with the number of its group; all but the first say whom they are tied with."""
    mark = f"{_TIED} {row.tie}" if row.tie else ""
    if not row.repeats or row.tied_with is None:
        return mark
    return f"{mark} = {_shortened(printable(row.tied_with), _LONGEST_TIED)}"


def _name(row: Row, before: tuple[str, ...], width: int) -> Text:
    """Return a row's name, cut in its middle, what it has in common with the row before it dimmed."""
    name = printable(row.name)
    times = cells(row)[0].removeprefix(name)
    common = 0
    for own, other in zip(row.path[:-1], before, strict=False):
        if own != other:
            break
        common += len(printable(own))
    text = Text("  " + _shortened(name, width - len(times), common))
    cut = text.plain.find("…", 2)
    text.stylize("dim", 2, 2 + common if cut < 0 else min(2 + common, cut))
    for braces in _BRACES.finditer(text.plain):
        text.stylize("cyan", *braces.span())
    return text.append(times, "cyan")


def _shortened(name: str, width: int, common: int = 0) -> str:
    """Cut the middle of a name out if it is too wide, rather in what the row before has ``common`` with it.

    >>> _shortened("encoder.layer.attention.self.key.weight", 24)
    'encoder…self.key.weight'
    >>> _shortened("encoder.layer.self.query_key_value.weight", 24, len("encoder.layer.self"))
    '….query_key_value.weight'
    """
    if cell_len(name) <= width:
        return name
    fits = common and cell_len(name[common:]) < width
    tail = name[-max(width * 2 // 3, len(name) - common if fits else 1, 1) :]
    while len(tail) > 1 and cell_len(tail) > width - 1:
        tail = tail[1:]
    return set_cell_size(name, max(width - 1 - cell_len(tail), 0)).rstrip(" .") + "…" + tail


def formats(found: Sequence[FormatFacts]) -> Table:
    """Return a table of formats; long texts are wrapped."""
    from paratree.render.results import FORMAT_HEADS, format_cells

    grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 1, 0), header_style="dim")
    for head in FORMAT_HEADS:
        grid.add_column(Text(head.lower()), style="bold" if head == "NAME" else "", overflow="fold")
    for facts in found:
        grid.add_row(*map(Text, format_cells(facts)))
    return grid
