"""The graphs of an ONNX model, walked in the order in which they compute, for the tensors in them.

Specification: onnx.proto of onnx 1.23. Graphs nest through the attributes of nodes (If, Loop, Scan); the walk
keeps a stack of its own, as deep as protobuf's own readers go.
"""

from __future__ import annotations

from paratree.core.array import RefusedArray
from paratree.core.dtypes import BITS
from paratree.core.names import OTHER, PARAMETER, kind_of, role_of
from paratree.files.array import file_array
from paratree.files.local import Memory
from paratree.files.protobuf import BYTES, FIXED32, VARINT
from paratree.formats._onnx_tensors import Repeated, Tensors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.protobuf import Span

    Path = tuple[str, ...]

_DEEPEST = 32  # protobuf reads 100 messages in one another, three to a graph
_LONGEST_PART = 200  # characters of a name that become part of others

_NODES, _INITIALIZERS, _SPARSE = 1, 5, 15  # fields of GraphProto
_GRAPH = dict.fromkeys((_INITIALIZERS, _SPARSE), (BYTES,))
_FUNCTION_NAME, _FUNCTION_NODES, _FUNCTION_ATTRIBUTES, _OVERLOAD = 1, 7, 11, 13  # of FunctionProto
_FUNCTION = dict.fromkeys((_FUNCTION_NAME, _FUNCTION_ATTRIBUTES, _OVERLOAD), (BYTES,))
_INPUT, _OUTPUT, _NAME, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7  # of NodeProto
_NODE = dict.fromkeys((_INPUT, _OUTPUT, _NAME, _OPERATOR, _ATTRIBUTE, _DOMAIN), (BYTES,))
FLOAT, INT, FLOATS, INTS = 2, 3, 7, 8  # of AttributeProto
_CALLED, _STRING, _STRINGS, _TYPE = 1, 4, 9, 20
_TENSOR, _TENSORS, _SPARSE_TENSOR, _SPARSE_TENSORS, _SUBGRAPH, _SUBGRAPHS = 5, 10, 22, 23, 6, 11
_TENSORS_AND_GRAPHS = dict.fromkeys(
    (_CALLED, _TENSOR, _TENSORS, _SPARSE_TENSOR, _SPARSE_TENSORS, _SUBGRAPH, _SUBGRAPHS), (BYTES,)
)
_LEARNED = _TENSORS_AND_GRAPHS | {FLOATS: (FIXED32, BYTES)}
_CONSTANT = _LEARNED | {
    FLOAT: (FIXED32,), INT: (VARINT,), _STRING: (BYTES,), INTS: (VARINT, BYTES), _STRINGS: (BYTES,),
    _TYPE: (VARINT,),
}  # fmt: skip
_LISTS = {6: (FLOATS, "float32", 4), 7: (INTS, "int64", 0)}  # AttributeType -> field, dtype, bytes a number
DENSE, SPARSE = 0, -1  # no field of an attribute: the message is the tensor
_CONTINUED = bytes(range(0x80, 0x100))
_STANDARD = ("", "ai.onnx")
_CLASSICAL = "ai.onnx.ml"  # its operators hold what was learned in lists of floats
_TEXT = "text; paratree reads numbers"


class Found:
    """A tensor: the name it has in its graph, the way to that graph, what it is and where its message is.

    ``field`` is 0 where ``span`` is a ``TensorProto``, -1 where it is a ``SparseTensorProto``, and else that
    of an ``AttributeProto`` that holds the values.
    """

    __slots__ = ("apart", "array", "field", "kind", "name", "path", "span")

    def __init__(self, name: str, array: LazyArray, kind: str, graph: Graph, where: tuple[Span, int]) -> None:
        self.name, self.array, self.kind = name, array, kind
        self.path, self.apart = graph.path, graph.apart
        self.span, self.field = where


class Graph:
    """A graph that the walk is inside of.

    Attributes:
        path: way to it from the model: node and attribute, or the function.
        apart: whether its names are a space of their own, as those of a function are.
        kind: what its initializers are, if not what their names and dtypes say.
        nodes: those not walked yet.
        unused: initializers that no node has used yet.
        names: of the tensors listed.
        outer: the graph around it, whose values it sees.
    """

    __slots__ = ("apart", "kind", "names", "nodes", "outer", "path", "unused")

    def __init__(self, path: Path, kind: str | None, nodes: Iterator[Any], outer: Graph | None) -> None:
        self.path, self.kind, self.nodes, self.outer = path, kind, nodes, outer
        self.apart: bool = outer is not None and outer.apart
        self.unused: dict[str, Found] = {}
        self.names: set[str] = set()


class Walk:
    """Collects the tensors of the graphs and functions of one model."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors, self.wire = tensors, tensors.wire
        self.found: list[Found] = []

    def graph(self, span: Span, path: Path = (), kind: str | None = None) -> None:
        """Add what is in a ``GraphProto`` and in the graphs inside it: in the order of their use.

        Raises:
            CorruptFileError: a tensor contradicts itself, two have one name, or graphs nest too deep.
        """
        self._walk(self._opened(span, path, kind, None))

    def function(self, span: Span) -> None:
        """Add what is in a ``FunctionProto``, whose names are its own."""
        words = {_FUNCTION_NAME: "function", _OVERLOAD: ""}
        defaults: list[Span] = []
        for number, _, value in self.wire.fields(span, _FUNCTION):
            if number == _FUNCTION_ATTRIBUTES:
                defaults.append(value)
            else:
                words[number] = self.wire.text(value)[:_LONGEST_PART]
        path = tuple(word for word in words.values() if word)
        graph = Graph(path, None, self.wire.fields(span, {_FUNCTION_NODES: (BYTES,)}), None)
        graph.apart = True
        inside = [part for value in defaults for part in self._attribute(graph, "", value, "")]
        self._walk(graph, *reversed(inside))

    def _walk(self, *graphs: Graph) -> None:
        stack = list(graphs)
        while stack:
            graph = stack[-1]
            node = next(graph.nodes, None)
            if node is None:
                self.found += graph.unused.values()
                stack.pop()
                continue
            stack += reversed(self._node(graph, node[2]))
            if len(stack[-1].path) > _DEEPEST:
                raise self.wire.fault(f"graphs are nested over {_DEEPEST} deep", node[2][0])

    def _opened(self, span: Span, path: Path, kind: str | None, outer: Graph | None) -> Graph:
        """Return a graph with its initializers, which stand behind its nodes in the file."""
        graph = Graph(path, kind, self.wire.fields(span, {_NODES: (BYTES,)}), outer)
        for number, _, value in self.wire.fields(span, _GRAPH):
            if number in (_INITIALIZERS, _SPARSE):
                describe = self.tensors.dense if number == _INITIALIZERS else self.tensors.sparse
                name, array = describe(value)
                if not name:
                    raise self.wire.fault("an initializer has no name", value[0])
                self._claim(graph, name, value)
                where = value, DENSE if number == _INITIALIZERS else SPARSE
                graph.unused[name] = Found(name, array, kind or _kind(name, array, True), graph, where)
        return graph

    def _claim(self, graph: Graph, name: str, span: Span) -> None:
        if name in graph.names:
            raise self.wire.fault(f"two tensors of one graph are called '{name[:_LONGEST_PART]}'", span[0])
        graph.names.add(name)

    def _node(self, graph: Graph, span: Span) -> list[Graph]:
        """Add what a node uses and holds, and return the graphs inside it."""
        wire = self.wire
        attributes: list[Span] = []
        words: dict[int, str] = {}
        for number, _, value in wire.fields(span, _NODE):
            if number == _INPUT:
                self._use(graph, wire.text(value))
            elif number == _ATTRIBUTE:
                attributes.append(value)
            elif number not in words:  # of outputs, the first
                words[number] = wire.text(value)
        if not attributes:
            return []
        operator, output, domain = words.get(_OPERATOR, ""), words.get(_OUTPUT, ""), words.get(_DOMAIN, "")
        if operator == "Constant" and domain in _STANDARD:
            name = output or words.get(_NAME, "") or operator
            return self._constant(graph, name, attributes)
        name = (words.get(_NAME, "") or output or operator)[:_LONGEST_PART]
        return [part for value in attributes for part in self._attribute(graph, name, value, domain)]

    def _use(self, graph: Graph | None, name: str) -> None:
        """Put an initializer where it is first used, in its own graph or in one inside."""
        while graph is not None:
            if name in graph.names:
                if (used := graph.unused.pop(name, None)) is not None:
                    self.found.append(used)
                return
            graph = graph.outer

    def _attribute(self, graph: Graph, node: str, span: Span, domain: str) -> list[Graph]:
        """Add the tensors in an attribute of a node, and return the graphs in it."""
        wanted = _LEARNED if domain == _CLASSICAL else _TENSORS_AND_GRAPHS
        name, graphs, learned, count = "", [], Repeated(), 0
        for number, wire, value in self.wire.fields(span, wanted):
            if number == _CALLED:
                name = self.wire.text(value)[:_LONGEST_PART]
                continue
            if number == FLOATS:
                learned.add(wire, value)
                continue
            called = f"{node}.{name}" if node else name
            if number in (_TENSORS, _SPARSE_TENSORS, _SUBGRAPHS):
                called, count = f"{called}.{count}", count + 1
            if number in (_SUBGRAPH, _SUBGRAPHS):
                kind = None if graph.kind is None else OTHER
                graphs.append(self._opened(value, (*graph.path, called), kind, graph))
            else:
                dense = number in (_TENSOR, _TENSORS)
                describe = self.tensors.dense if dense else self.tensors.sparse
                self._add(graph, called, describe(value, called)[1], (value, DENSE if dense else SPARSE))
        if learned.loose or learned.pieces:
            array = self._numbers(span, FLOATS, learned, "float32", 4, node)
            self._add(graph, f"{node}.{name}", array, (span, FLOATS))
        return graphs

    def _constant(self, graph: Graph, name: str, attributes: list[Span]) -> list[Graph]:
        """Add the value of a Constant node, in whichever attribute it is."""
        for span in attributes:
            lists = {FLOATS: Repeated(), INTS: Repeated(), _STRINGS: Repeated()}
            kind, array, where = 0, None, (span, DENSE)
            for number, wire, value in self.wire.fields(span, _CONSTANT):
                if number in lists:
                    lists[number].add(VARINT if number == _STRINGS else wire, value)
                elif number == _TYPE:
                    kind = value
                elif number in (_TENSOR, _SPARSE_TENSOR):
                    describe = self.tensors.dense if number == _TENSOR else self.tensors.sparse
                    array, where = describe(value, name)[1], (value, DENSE if number == _TENSOR else SPARSE)
                elif number == FLOAT:
                    array = self._single(value.to_bytes(4, "little"), "float32", name)
                    where = span, number
                elif number == INT:
                    array = self._single(value.to_bytes(8, "little"), "int64", name)
                    where = span, number
                elif number == _STRING:
                    array = RefusedArray((), "string", f"{name}: {_TEXT}")
            if lists[_STRINGS].loose:
                array = RefusedArray((lists[_STRINGS].loose,), "string", f"{name}: {_TEXT}")
            for type_, (field, dtype, width) in _LISTS.items():
                if kind == type_ or lists[field].loose or lists[field].pieces:
                    array, where = self._numbers(span, field, lists[field], dtype, width, name), (span, field)
            if array is not None:
                self._claim(graph, name, span)
                self._add(graph, name, array, where)
        return []

    def _numbers(
        self, span: Span, field: int, stored: Repeated, dtype: str, width: int, name: str
    ) -> LazyArray:
        packed = stored.length // width if width else self._count(stored)
        return self.tensors.numbers((span, field, stored), (stored.loose + packed,), dtype, name, width)

    def _count(self, stored: Repeated) -> int:
        """Return how many varints are in a packed piece: each ends in a byte below 128."""
        return len(self.wire.raw(stored.first).translate(None, _CONTINUED))

    def _single(self, data: bytes, dtype: str, name: str) -> LazyArray:
        return file_array(Memory(data, self.tensors.file.path, name), 0, (), dtype, member=name)

    def _add(self, graph: Graph, name: str, array: LazyArray, where: tuple[Span, int]) -> None:
        kind = OTHER if graph.kind is not None else _kind(name, array, False)
        self.found.append(Found(name, array, kind, graph, where))


def _kind(name: str, array: LazyArray, initializer: bool) -> str:
    """Return what a tensor is: exporters keep shapes, axes and factors among the weights.

    A single value of a node is no weight, nor are whole numbers along one axis at most, unless the name says
    so; whole numbers of a byte or less along several axes are quantised weights.
    """
    dtype, shape = array.dtype, array.shape
    if dtype not in BITS:
        return OTHER
    whole = dtype.startswith(("int", "uint", "bool"))
    if whole and dtype != "bool" and BITS[dtype] <= 8 and len(shape) > 1:
        return PARAMETER
    single = not initializer and all(n == 1 for n in shape)
    if role_of(name) is None and (single or (whole and (not initializer or len(shape) <= 1))):
        return OTHER
    return kind_of(name, dtype)
