"""The graph of objects that a checkpoint of TensorFlow 2 holds: who holds a variable, and under which names.

A name is the path of attributes to the variable, as in the Python program. Keras keeps its layers and
variables in lists of its own beside the attributes; there the names of the layers stand, which the variables'
full names tell, and not places in a list. Messages: trackable_object_graph.proto (TensorFlow 2.21).
"""

from __future__ import annotations

import re
from heapq import heappop, heappush

from paratree.core.names import OTHER, STATE
from paratree.files.protobuf import BYTES, VARINT, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from paratree.files.local import Source
    from paratree.files.protobuf import Span

    Place = tuple[int, ...]  # which child at each step from the root: sorts as the model does
    Path = list[tuple[int, int]]  # steps from the root: which node, which of its children

_VALUE = "VARIABLE_VALUE"
_ROOT = 0
_LAYER = re.compile(r"layer(_with_weights)?-[0-9]+")
_LAYER_LISTS = frozenset({"_operations", "_layers", "_self_tracked_trackables"})
_PASSED = frozenset({"_functional"})  # of a Sequential: the same layers once more
_VARIABLE_LISTS = frozenset({
    "variables", "trainable_variables", "non_trainable_variables", "_variables", "_trainable_variables",
    "_non_trainable_variables", "weights", "trainable_weights", "non_trainable_weights", "_weights",
    "_trainable_weights", "_non_trainable_weights", "_all_variables",
})  # fmt: skip
_DOUBLES = "_all_variables"  # Keras's export stores each variable here a second time
_HIDDEN = frozenset({"keras_api", "signatures", "root"})
_OPTIMIZERS = ({"_iterations", "_variables"}, {"iter", "learning_rate"}, {"iter", "decay"})  # what they hold
_METRICS = frozenset({"metrics", "_metrics"})
_GENERATORS = ("seed_generator_state", "_state_var", "_generator")
_STEP, _LAYER_STEP, _LIST_STEP, _SLOT_STEP, _HIDDEN_STEP = 1, 8, 1 << 10, 1 << 14, 1 << 20  # costs of a path
_DEEPEST = 100  # steps from the root to an object
_MOST_NAMES = 16  # of one variable
_MOST_EXPANSION = 64  # characters of all names to a byte of the graph
_SPARE_STEPS = 100_000  # in the search for further names


class Attribute:
    """What one object stores: a variable's value, or something else."""

    __slots__ = ("full_name", "key", "name", "node")

    def __init__(self, node: int, name: str, full_name: str, key: str) -> None:
        self.node, self.name, self.full_name, self.key = node, name, full_name, key


class Named:
    """A name of what is stored under a key, and where it stands in the model."""

    __slots__ = ("attribute", "kind", "name", "place")

    def __init__(self, name: str, place: Place, attribute: Attribute, kind: str | None) -> None:
        self.name, self.place, self.attribute, self.kind = name, place, attribute, kind


class Graph:
    """The objects, numbered; the first is the root."""

    def __init__(self, source: Source) -> None:
        self.children: list[list[tuple[str, int]]] = []
        self.attributes: dict[int, list[Attribute]] = {}
        self.slots: dict[int, list[tuple[int, str, int]]] = {}  # optimizer -> variable, slot, its variable
        self._wire = Wire(source)
        self._left = _MOST_EXPANSION * source.size
        spans = [span for _, _, span in self._wire.fields(None, {1: (BYTES,)})]
        for node, span in enumerate(spans):
            self._read(node, span, len(spans))
        self.optimizers = self.slots.keys() | {
            n for n, held in enumerate(self.children) if held and _holds_steps({local for local, _ in held})
        }
        self._up: dict[int, tuple[int, int]] = {}  # node -> the node that it is reached from, which child
        self._cost: dict[int, int] = {}
        self._reach()
        self._layers = self._layer_names()

    def named(self) -> tuple[list[Named], bool]:
        """Return every name of what is stored, in the order of the model; and whether none was left out."""
        found = [named for node in self.attributes for named in self._of_node(node, self._path(node))]
        own = {named.attribute.node: named for named in found if named.attribute.name == _VALUE}
        again, complete = self._further(own)
        self._name_by_model(own)
        found += self._of_slots(own)
        return sorted(found + again, key=lambda named: named.place), complete

    def doubles(self) -> set[int]:
        """Return the variables that only the second list of an export of Keras holds."""
        return {
            child
            for local, node in (self.children[_ROOT] if self.children else ())
            if local == _DOUBLES
            for _, child in self.children[node]
            if self._up.get(child, (0, 0))[0] == node
        }

    # The messages

    def _read(self, node: int, span: Span, count: int) -> None:
        wire, children = self._wire, []
        for number, _, inner in wire.fields(span, {1: (BYTES,), 2: (BYTES,), 3: (BYTES,)}):
            if number == 1:
                child, local = self._reference(inner, count)
                children.append((local, child))
            elif number == 2:
                self.attributes.setdefault(node, []).append(self._attribute(node, inner))
            else:
                self.slots.setdefault(node, []).append(self._slot(inner, count))
        self.children.append(children or _NOTHING)

    def _reference(self, span: Span, count: int) -> tuple[int, str]:
        child, local = 0, ""
        for number, _, value in self._wire.fields(span, {1: (VARINT,), 2: (BYTES,)}):
            if number == 1:
                child = value
            else:
                local = self._wire.text(value)
        if child >= count or not local:
            raise self._wire.fault(f"object {child} of {count} is no child called '{local[:60]}'", span[0])
        return child, local

    def _attribute(self, node: int, span: Span) -> Attribute:
        found = {1: "", 2: "", 3: ""}
        for number, _, value in self._wire.fields(span, {1: (BYTES,), 2: (BYTES,), 3: (BYTES,)}):
            found[number] = self._wire.text(value)
        return Attribute(node, found[1], found[2], found[3])

    def _slot(self, span: Span, count: int) -> tuple[int, str, int]:
        variable, slot, own = 0, "", 0
        for number, _, value in self._wire.fields(span, {1: (VARINT,), 2: (BYTES,), 3: (VARINT,)}):
            if number == 1:
                variable = value
            elif number == 2:
                slot = self._wire.text(value)
            else:
                own = value
        if max(variable, own) >= count or not slot:
            raise self._wire.fault(f"objects {variable} and {own} of {count} are no slot", span[0])
        return variable, slot, own

    # The way to each object

    def _reach(self) -> None:
        """Find for each object the path that says most about it: attributes before Keras's lists."""
        waiting: list[tuple[int, int, int, int, int]] = [(0, _ROOT, -1, 0, 0)] if self.children else []
        while waiting:
            cost, node, above, which, depth = heappop(waiting)
            if node in self._cost:
                continue
            if depth > _DEEPEST:
                raise self._wire.fault(f"object {node} is over {_DEEPEST} steps from the root", 0)
            self._cost[node], self._up[node] = cost, (above, which)
            for i, (local, child) in enumerate(self.children[node]):
                if child not in self._cost:
                    heappush(waiting, (cost + self._step(node, local, child), child, node, i, depth + 1))

    def _step(self, node: int, local: str, child: int) -> int:
        if local in _HIDDEN:
            return _HIDDEN_STEP
        if local in _VARIABLE_LISTS and self._is_list(child):
            return _LIST_STEP + (local == _DOUBLES)
        if node in self.optimizers and child not in self.attributes:
            return _SLOT_STEP
        if _LAYER.fullmatch(local):
            return _LAYER_STEP + (local[5] == "-")
        return _LAYER_STEP if local in _PASSED or (local in _LAYER_LISTS and self._is_list(child)) else _STEP

    def _is_list(self, node: int) -> bool:
        return all(local.isdecimal() for local, _ in self.children[node])

    def _path(self, node: int) -> Path:
        steps: Path = []
        while (up := self._up.get(node, (-1, 0)))[0] >= 0:
            steps.append(up)
            node = up[0]
        return steps[::-1]

    # Names

    def _segments(self, path: Path, full_name: str) -> list[str]:
        """Return the name of what a path leads to, segment by segment."""
        found: list[str] = []
        for _, local, child, kind in self._steps(path):
            if kind == _LIST_STEP:
                found += full_name.split("/") if full_name else [local]
            elif kind == _LAYER_STEP:
                found += self._layers.get(child, local).split("/")
            else:
                found.append(local)
        if path and (path[-1][0] in self.optimizers or found[-1] == "_" + full_name.rpartition("/")[2]):
            found[-1] = found[-1].removeprefix("_")  # as Keras 3 holds a layer's kernel
        self._left -= sum(map(len, found)) + len(found)
        if self._left < 0:
            raise self._wire.fault("its names are longer than its bytes can tell", 0)
        return found

    def _steps(self, path: Path) -> Iterator[tuple[int, str, int, int]]:
        """Yield position, name, object and kind of each step, that into a list and out of it as one."""
        skipped = False
        for i, (node, which) in enumerate(path):
            local, child = self.children[node][which]
            if skipped:
                skipped = False
                continue
            last = path[i + 1] if i + 1 < len(path) else None
            if (
                last is not None
                and (local in _LAYER_LISTS or local in _VARIABLE_LISTS)
                and self._is_list(child)
            ):
                inner, end = self.children[child][last[1]]
                kind = _LAYER_STEP if local in _LAYER_LISTS else _LIST_STEP
                if kind == _LAYER_STEP or end in self.attributes:
                    skipped = True
                    yield i, f"{local}/{inner}", end, kind
                    continue
            if local not in _PASSED:
                yield i, local, child, _LAYER_STEP if _LAYER.fullmatch(local) else _STEP

    def _layer_names(self) -> dict[int, str]:
        """Return the names of the layers in Keras's lists, where all variables below agree on one."""
        found: dict[int, set[str]] = {}
        for node, attributes in self.attributes.items():
            words = attributes[0].full_name.split("/")
            steps = [
                (c, kind) for _, local, c, kind in self._steps(self._path(node)) if not local.isdecimal()
            ]
            for depth, (child, kind) in enumerate(reversed(steps), 1):
                if kind == _LAYER_STEP:
                    found.setdefault(child, set()).add(words[-depth] if depth <= len(words) else "")
        return {node: names.pop() for node, names in found.items() if len(names) == 1 and "" not in names}

    def _of_node(self, node: int, path: Path) -> Iterator[Named]:
        if node not in self._cost:
            return
        place = tuple(which for _, which in path)
        for attribute in self.attributes[node]:
            words = self._segments(path, attribute.full_name) or ["variable"]
            kind = self._kind(path, attribute)
            if attribute.name != _VALUE:
                words, kind = [*words, attribute.name], OTHER
            yield Named(".".join(words), place, attribute, kind)

    def _kind(self, path: Path, attribute: Attribute) -> str | None:
        """Return what a variable is, if the way to it tells."""
        locals_ = [self.children[node][which][0] for node, which in path]
        nodes = [node for node, _ in path]
        if any(node in self.optimizers for node in nodes) and "_trainable_variables" not in locals_:
            return STATE
        if not _METRICS.isdisjoint(locals_) or locals_ == ["save_counter"]:
            return OTHER
        if attribute.full_name.endswith(_GENERATORS) or (locals_ and locals_[-1] in _GENERATORS):
            return OTHER
        return None

    def _name_by_model(self, own: dict[int, Named]) -> None:
        """Name what only an optimizer leads to after the layer that its full name begins with.

        Keras 3 tracks no layers in a list or dictionary of a layer; the optimizer holds their variables.
        """
        places = {node: self._optimizer_on(self._path(node)) for node in own}
        layers: dict[tuple[str, ...], set[str]] = {}  # first words of full names -> how the names begin
        for node, named in own.items():
            words = tuple(named.attribute.full_name.split("/"))
            for below in range(1, len(words)) if places[node] is None else ():
                layers.setdefault(words[:-below], set()).add(".".join(named.name.split(".")[:-below]))
        taken = {named.name for named in own.values()}
        for node, named in own.items():
            place, words = places[node], tuple(named.attribute.full_name.split("/"))
            if place is None or named.kind == STATE or words == ("",):
                continue
            known = next((n for n in range(len(words) - 1, 0, -1) if len(layers.get(words[:n], ())) == 1), 0)
            above = [*layers[words[:known]]] if known else self._segments(self._path(node)[:place], "")
            name = ".".join(filter(None, (*above, *words[known:])))
            if name not in taken:
                taken.add(name)
                named.name = name

    def _optimizer_on(self, path: Path) -> int | None:
        """Return which step of a path leads to an optimizer, if one does and the path goes on."""
        return next((i for i, (node, _) in enumerate(path[1:]) if node in self.optimizers), None)

    def _of_slots(self, own: dict[int, Named]) -> Iterator[Named]:
        """Yield what optimizers keep for each variable: ``optimizer.dense.kernel.m``."""
        for optimizer, slots in self.slots.items():
            path = self._path(optimizer)
            above = [] if optimizer not in self._cost else self._segments(path, "")
            place = tuple(which for _, which in path)
            for i, (variable, slot, node) in enumerate(slots):
                for attribute in self.attributes.get(node, ()):
                    of = own[variable].name if variable in own else attribute.full_name.replace("/", ".")
                    name = ".".join([*above, of, slot])
                    yield Named(name, (*place, len(self.children[optimizer]) + i), attribute, STATE)

    # One variable under several names

    def _further(self, own: dict[int, Named]) -> tuple[list[Named], bool]:
        """Return the other names of variables: other paths of attributes from the root."""
        up = self._attributes_up()
        left = _SPARE_STEPS + 8 * sum(map(len, self.children))
        found: list[Named] = []
        complete = True
        for node, named in own.items():
            if node not in self._cost or named.kind in (STATE, OTHER):
                continue
            names = {named.name: named}
            waiting: list[tuple[int, Path]] = [(node, [])]
            while waiting:
                at, path = waiting.pop()
                left -= 1
                if left < 0 or len(names) > _MOST_NAMES:
                    complete = False
                    break
                if at == _ROOT:
                    again = next(self._of_node(node, path), named)
                    names.setdefault(again.name, again)
                    continue
                passed = {child for child, _ in path}
                waiting += [(a, [(a, which), *path]) for a, which in up.get(at, ()) if a not in passed]
            found += list(names.values())[1:]
        return found, complete

    def _attributes_up(self) -> dict[int, list[tuple[int, int]]]:
        """Return for each object who holds it: by an attribute of the program, or as it is reached first."""
        up: dict[int, list[tuple[int, int]]] = {}
        lists = {child for c in self.children for local, child in c if local in _LAYER_LISTS}
        for node in self._cost:
            outside = node in lists or self._cost[node] >= _LIST_STEP or node in self.optimizers
            for i, (local, child) in enumerate(self.children[node]):
                plain = (
                    not outside and child not in self.optimizers and self._step(node, local, child) == _STEP
                )
                if plain or self._up[child] == (node, i):
                    up.setdefault(child, []).append((node, i))
        return up


def _holds_steps(held: set[str]) -> bool:
    """Tell whether an object that holds these is an optimizer."""
    return any(words <= held for words in _OPTIMIZERS)


_NOTHING: list[tuple[str, int]] = []  # the children of most objects


def unique(found: Iterable[Named]) -> list[Named]:
    """Return names that differ: two variables of one name are called by their keys instead."""
    owners: dict[str, set[str]] = {}
    listed = list(found)
    for named in listed:
        owners.setdefault(named.name, set()).add(named.attribute.key)
    kept: dict[str, Named] = {}
    for named in listed:
        if len(owners[named.name]) > 1:
            named.name = short_key(named.attribute.key).replace("/", ".")
        kept.setdefault(named.name, named)
    return list(kept.values())


def short_key(key: str) -> str:
    """Return a key without the ending that every variable's has."""
    return key.removesuffix(f"/.ATTRIBUTES/{_VALUE}")
