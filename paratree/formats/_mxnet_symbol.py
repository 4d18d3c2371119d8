"""The graph of a network as MXNet saves it, ``PREFIX-symbol.json``: its variables, and who uses them."""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.files.json import parse_object
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.files.local import LocalFile

_LARGEST = 1 << 24  # bytes; the graph of ResNet-152 takes 300,000


class Exported(dict):  # type: ignore[type-arg]  # a subscript would need typing at run time
    """The metadata of the arrays of a graph, the names of which are stored with ``arg:`` or ``aux:``."""

    __slots__ = ()


class Symbol:
    """A graph of operations.

    Attributes:
        uses: name of a variable -> the operations that take it, both in the order of the graph.
        version: that of the MXNet that wrote it, as ``"1.9.1"``, or ``None``.
    """

    __slots__ = ("uses", "version")

    def __init__(self, file: LocalFile) -> None:
        if file.size > _LARGEST:
            raise CorruptFileError(file.path, f"{file.size} bytes are too many for the graph of a network")
        graph = parse_object(file, read(file, 0, file.size))
        nodes = graph.get("nodes")
        if not isinstance(nodes, list):
            raise CorruptFileError(file.path, "no list of nodes, as the graph of a network has")
        self.uses: dict[str, list[str]] = {}
        names: list[str | None] = []
        for number, node in enumerate(nodes):
            name, is_variable, inputs = _node(file, number, node)
            names.append(name if is_variable else None)
            if is_variable:
                self.uses.setdefault(name, [])
            for taken in dict.fromkeys(names[i] for i in inputs):
                if taken is not None:
                    self.uses[taken].append(name)
        self.version = _version(graph.get("attrs"))


def _node(file: LocalFile, number: int, node: Any) -> tuple[str, bool, list[int]]:
    """Return name, whether it is a variable, and the numbers of the nodes that it takes."""
    if isinstance(node, dict):
        name, operation, inputs = node.get("name"), node.get("op"), node.get("inputs")
        if isinstance(name, str) and isinstance(operation, str) and isinstance(inputs, list):
            numbers = [entry[0] if isinstance(entry, list) and entry else None for entry in inputs]
            if all(type(n) is int and 0 <= n < number for n in numbers):
                return name, operation == "null", numbers  # type: ignore[return-value]
    raise CorruptFileError(file.path, f"node {number} is no operation on nodes before it")


def _version(attributes: Any) -> str | None:
    found = attributes.get("mxnet_version") if isinstance(attributes, dict) else None
    number = found[1] if isinstance(found, list) and len(found) == 2 else None
    if type(number) is not int or not 0 < number < 1_000_000:
        return None
    return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"
