"""The rows of a listing as a tree of branches, each with its totals."""

from __future__ import annotations

from paratree.core.names import PARAMETER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from paratree.verbs.listing import Row


class Branch:
    """A subtree of a listing.

    Attributes:
        children: branches and rows in order, each with its name below this branch.
        rows: number of rows below.
        tensors: number of names below.
        size: number of values of the parameters below, a tied group counted in its first row only.
        nbytes: bytes, likewise.
    """

    __slots__ = ("branches", "children", "nbytes", "rows", "size", "tensors")

    def __init__(self) -> None:
        self.children: list[tuple[str, Branch | Row]] = []
        self.branches: dict[str, Branch] = {}
        self.rows = self.tensors = self.size = self.nbytes = 0

    def count(self, row: Row) -> None:
        """Add a row that lies below to the totals."""
        self.rows += 1
        self.tensors += row.tensors
        if row.kind == PARAMETER:
            self.size += row.size or 0
            self.nbytes += row.nbytes or 0


def outline(rows: Iterable[Row]) -> Branch:
    """Return the branch of everything; a branch with one child only is joined with it."""
    root = Branch()
    for row in rows:
        branch = root
        branch.count(row)
        for segment in row.path[:-1]:
            if segment not in branch.branches:
                branch.branches[segment] = Branch()
                branch.children.append((segment, branch.branches[segment]))
            branch = branch.branches[segment]
            branch.count(row)
        branch.children.append(("".join(row.path[-1:]), row))
    root.children = [_joined(name, child) for name, child in root.children]
    return root


def _joined(name: str, child: Branch | Row) -> tuple[str, Branch | Row]:
    """Join chains; names have few segments (see :mod:`paratree.verbs.fold`), so recursion is safe."""
    while isinstance(child, Branch) and len(child.children) == 1:
        below, child = child.children[0]
        name += below
    if isinstance(child, Branch):
        child.children = [_joined(below, node) for below, node in child.children]
    return name, child
