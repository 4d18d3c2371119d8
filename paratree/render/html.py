"""A foldable tree for notebooks: HTML and CSS, no script, so it also lives in exported and untrusted ones.

Names are data: control and bidirectional characters are escaped, then markup and quotes.
"""

from __future__ import annotations

from html import escape

from paratree.core.errors import printable
from paratree.core.names import PARAMETER
from paratree.render.text import cells, foot, head, title
from paratree.render.units import count, plural, size
from paratree.verbs.outline import Branch, outline
from paratree.verbs.show import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from paratree.core.tree import ParamTree
    from paratree.verbs.listing import Row

_MOST_ROWS = 200
_OPEN_LEVELS = 2
_LONGEST = 300  # characters of one name
_STYLE = (
    ".paratree{font:12px/1.65 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;max-width:68em}"
    ".paratree .pt-head{font-size:1.1em;font-weight:600;overflow-wrap:anywhere}"
    ".paratree .pt-facts,.paratree .pt-foot{opacity:.7}"
    ".paratree .pt-tree{margin:.6em 0;padding:.3em 0;border:solid rgba(128,128,128,.3);border-width:1px 0}"
    ".paratree details>details,.paratree details>.pt-row{margin-left:.5em;padding-left:.9em;"
    "border-left:1px solid rgba(128,128,128,.25)}"
    ".paratree summary{cursor:pointer;display:flex}"
    ".paratree summary::-webkit-details-marker{display:none}"
    ".paratree summary::before{content:'\\25b8';width:1.1em;flex:none;opacity:.6}"
    ".paratree details[open]>summary::before{content:'\\25be'}"
    ".paratree .pt-row{display:flex;padding-left:1.1em}"
    ".paratree details>.pt-row{padding-left:2em}"
    ".paratree summary:hover,.paratree .pt-row:hover{background:rgba(128,128,128,.12)}"
    ".paratree .pt-name{flex:1 1 8em;overflow-wrap:anywhere}"
    ".paratree summary .pt-name{font-weight:600}"
    ".paratree .pt-shape{flex:0 0 auto;padding:0 1em;text-align:right;opacity:.85}"
    ".paratree .pt-type{flex:0 0 6.5em}"
    ".paratree .pt-number{flex:0 0 5.2em;text-align:right;font-variant-numeric:tabular-nums}"
    ".paratree .pt-badge{font-size:.88em;padding:.05em .5em;border-radius:.8em;"
    "background:rgba(128,128,128,.18)}"
    ".paratree .pt-tie{background:rgba(170,90,210,.28)}"
    ".paratree .pt-kind{background:rgba(90,140,210,.28)}"
    ".paratree .pt-times{opacity:.6}"
)


def foldable(tree: ParamTree) -> str:
    """Return a tree as HTML: two levels open, repeated blocks folded, at most 200 lines, all escaped."""
    listing = show(tree)
    body = _Body()
    for name, child in outline(listing.rows).children:
        body.add(name, child, 0)
    left = len(listing.rows) - body.rows_shown
    more = f'<div class="pt-row pt-foot">… {left} more</div>' if left else ""
    return (
        f'<div class="paratree"><style>{_STYLE}</style>'
        f'<div class="pt-head">{_text(title(listing))}</div>'
        f'<div class="pt-facts">{_text(" · ".join(head(listing)))}</div>'
        f'<div class="pt-tree">{"".join(body.parts)}{more}</div>'
        f'<div class="pt-foot">{"<br>".join(_text(line) for line in foot(listing))}</div></div>'
    )


class _Body:
    """The lines so far; stops adding at the limit."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.lines = self.rows_shown = 0

    def add(self, name: str, child: Branch | Row, level: int) -> None:
        if self.lines >= _MOST_ROWS:
            return
        self.lines += 1
        if not isinstance(child, Branch):
            self.rows_shown += 1
            self.parts.append(f'<div class="pt-row">{_row(name, child)}</div>')
            return
        state = " open" if level < _OPEN_LEVELS else ""
        self.parts.append(f"<details{state}><summary>{_branch(name, child)}</summary>")
        for below, node in child.children:
            self.add(below, node, level + 1)
        self.parts.append("</details>")


def _branch(name: str, branch: Branch) -> str:
    return _line(
        f"<bdi>{_text(name.lstrip('./') or name)}</bdi>",
        plural(branch.tensors, "tensor"),
        "",
        count(branch.size),
        size(branch.nbytes),
    )


def _row(name: str, row: Row) -> str:
    whole, shape, dtypes, params, nbytes, tied = cells(row)
    label = f'<bdi title="{_text(row.name)}">{_text(name.lstrip("./") or name)}</bdi>'
    if times := whole.removeprefix(printable(row.name)).strip():
        label += f' <span class="pt-times">{times}</span>'
    if row.tie is not None:
        label += " " + _badge(f"tied {row.tie}" + (f" = {tied}" if row.repeats else ""), "pt-tie")
    if row.kind != PARAMETER:
        label += " " + _badge(row.kind, "pt-kind")
        params = ""
    return _line(label, shape, _badge(dtypes), params, nbytes)


def _badge(text: str, style: str = "") -> str:
    return f'<span class="pt-badge {style}">{_text(text)}</span>'


def _line(name: str, shape: str, dtype: str, params: str, nbytes: str) -> str:
    """Return the cells of a line; the spaces keep them apart where styles are stripped."""
    return (
        f'<span class="pt-name">{name}</span> <span class="pt-shape">{_text(shape)}</span> '
        f'<span class="pt-type">{dtype}</span> <span class="pt-number">{params}</span> '
        f'<span class="pt-number">{nbytes}</span>'
    )


def _text(text: str) -> str:
    """Escape text for an element or a quoted attribute; cut what no one will read."""
    text = printable(text)
    return escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…", quote=True)
