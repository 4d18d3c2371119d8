"""Walk what a pickle holds: name its arrays by their path, keep its plain values, show what stays opaque.

Whole modules are walked through ``_parameters``, ``_buffers`` and ``_modules`` of their state, whatever
their class; an optimizer is known by its ``state`` and ``param_groups``. What such a walk passes by (private
attributes, arguments, keys) is walked when all else is named: only an array that has no name yet gets one
there, so no array of a pickle is missing, and none has a second name from a cache of its owner.
"""

from __future__ import annotations

from collections import deque

from paratree.core.errors import CorruptFileError, printable
from paratree.core.names import BUFFER, OTHER, PARAMETER, STATE
from paratree.files.local import Window
from paratree.files.pickled import Global, Opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from typing import Any

    from paratree.files.local import Source

DEEPEST = 128
_MOST_OPEN = 2 * DEEPEST  # containers in each other; an object whose state is an object adds none to the path
_SPARE_VISITS = 100_000  # more than a pickle's bytes can justify: the same list met again and again

_STATE_KEYS = frozenset({
    "optimizer", "optimizers", "optim", "opt", "optimizer_state", "optimizer_states", "optimizer_state_dict",
    "opt_state", "optim_state", "optim_state_dict",
})  # fmt: skip
_COPY_KEYS = frozenset({
    "ema", "ema_state", "ema_state_dict", "ema_model", "model_ema", "state_dict_ema", "swa", "averaged_model",
})  # fmt: skip
MODEL_KEYS = frozenset({
    "model", "state_dict", "model_state", "model_state_dict", "module", "net", "network", "weights", "params",
})  # fmt: skip
_RANDOM = ("rng_state", "rng_states", "random_state", "rng", "_rng")  # ends of the keys of generators' states
SCRIPT_OBJECT = ("torch", "ScriptObject")  # as the packed weights of a quantised layer
_OF_MODULE = frozenset({"_parameters", "_buffers", "_modules"})
_CONTAINERS = (dict, list, tuple, set, frozenset, Opaque)
_ATTRIBUTES = (("argparse", "Namespace"), ("types", "SimpleNamespace"))  # opaque, but plainly a set of values


class Entry:
    """One array found: its path, what the reader made of it, and where it stood."""

    __slots__ = ("found", "kind", "owner", "path", "place")

    def __init__(
        self, path: tuple[str, ...], found: Any, kind: str | None, owner: Global | None, place: int
    ) -> None:
        self.path, self.found, self.kind, self.owner, self.place = path, found, kind, owner, place


class _Nothing:
    """Stands in the plain values for a place that held only arrays."""


_NOTHING = _Nothing()


class Nested:
    """The arrays and the plain values of nested containers.

    Args:
        source: where they were read from, for messages.
        is_array: tells whether a value is an array; those become entries.
        identity: returns what is equal for two values that are one array.
        attached: returns the attributes of an array, which may hold others.
        plain: returns the plain value that an opaque object stands for, or the object itself.
        budget: how many values the containers may hold, those met again counted again.
        declared: class of a TorchScript module -> attribute -> kind.
        in_unbuilt: kind of the arrays inside objects of unknown classes.
    """

    def __init__(
        self,
        source: Source,
        is_array: Callable[[Any], bool],
        identity: Callable[[Any], Hashable],
        attached: Callable[[Any], Any],
        plain: Callable[[Opaque], Any],
        budget: int,
        declared: dict[str, dict[str, str]],
        in_unbuilt: str | None = OTHER,
    ) -> None:
        self.source, self._is_array, self._plain = source, is_array, plain
        self._identity, self._attached = identity, attached
        self.declared = declared
        self._in_unbuilt = in_unbuilt
        self._left = budget + _SPARE_VISITS
        self._open: set[int] = set()  # containers that the walk is inside of; they are alive
        self._seen: set[int] = set()  # containers that it was inside of; the root keeps them alive
        self._passed_by: deque[tuple[int, Any, tuple[str, ...], str | None]] = deque()
        self._place: int | None = None  # of what was passed by and is walked now, among the entries
        self._named: set[Hashable] = set()
        self.entries: list[Entry] = []
        self.unbuilt: dict[str, int] = {}  # class left opaque -> how often

    def walk(self, root: Any) -> dict[str, Any]:
        """Fill the entries from ``root`` and return its plain values, keyed as the arrays are named."""
        meta = self._visit(root, (), None, None)
        self._walk_passed_by()
        if isinstance(meta, dict):
            return meta
        return {} if meta is _NOTHING or meta is None else {"value": meta}

    def _pass_by(self, value: Any, path: tuple[str, ...], kind: str | None) -> None:
        """Keep for later what may hold arrays."""
        if self._is_array(value) or isinstance(value, _CONTAINERS):
            place = len(self.entries) if self._place is None else self._place
            self._passed_by.append((place, value, path, kind))

    def _walk_passed_by(self) -> None:
        self._named = {self._identity(entry.found) for entry in self.entries}
        while self._passed_by:
            self._place, value, path, kind = self._passed_by.popleft()
            self._visit(value, path, kind, None)
        self.entries.sort(key=lambda entry: entry.place)

    def _visit(self, value: Any, path: tuple[str, ...], kind: str | None, owner: Global | None) -> Any:
        self._left -= 1
        if self._left < 0 or len(path) > DEEPEST or len(self._open) > _MOST_OPEN:
            levels = f"over {DEEPEST} levels deep"
            what = "of more values than its bytes can hold" if self._left < 0 else levels
            raise CorruptFileError(
                self.source.path, f"the pickle is nested {what}", member=self.source.member
            )
        if self._is_array(value):
            self._enter(value, path, kind, owner)
            return _NOTHING
        if not isinstance(value, _CONTAINERS):
            return _shown(value) if isinstance(value, Global | Window) else value
        if id(value) in self._open:
            return "<a cycle>"
        if self._place is not None and id(value) in self._seen:
            return _NOTHING
        self._open.add(id(value))
        self._seen.add(id(value))
        try:
            if isinstance(value, Opaque):
                return self._opaque(value, path, kind)
            if isinstance(value, dict):
                return self._dict(value, path, kind)
            items = [(str(i), item) for i, item in enumerate(value)]
            kept = list(self._items(items, path, kind).values())
            return _NOTHING if items and not kept else kept
        finally:
            self._open.discard(id(value))

    def _enter(self, found: Any, path: tuple[str, ...], kind: str | None, owner: Global | None) -> None:
        place = len(self.entries) + 1  # after what was passed by before it
        if self._place is not None:
            if (identity := self._identity(found)) in self._named:
                return
            self._named.add(identity)
            place = self._place
        self.entries.append(Entry(path, found, kind, owner, place))
        self._pass_by(self._attached(found), path, kind or OTHER)

    def _items(
        self, items: Iterable[tuple[str, Any]], path: tuple[str, ...], kind: str | None
    ) -> dict[str, Any]:
        kept = {}
        for key, item in items:
            plain = self._visit(item, (*path, key), kind, None)
            if plain is not _NOTHING:
                kept[key] = plain
        return kept

    def _dict(self, value: dict[Any, Any], path: tuple[str, ...], kind: str | None) -> Any:
        if {"state", "param_groups"} <= value.keys():
            kind = STATE
        beside_model = any(k in MODEL_KEYS and isinstance(item, dict | Opaque) for k, item in value.items())
        kept = {}
        for i, (key, item) in enumerate(value.items()):
            name = _key_name(key, i)
            if not isinstance(key, str):
                self._pass_by(key, (*path, name), kind or OTHER)
            below = kind or kind_below(name, beside_model)
            if below is None and beside_model and self._is_array(item):
                below = OTHER  # a loss curve beside the model, say
            plain = self._visit(item, (*path, name), below, None)
            if plain is not _NOTHING:
                kept[name] = plain
        return _NOTHING if value and not kept else kept

    def _opaque(self, value: Opaque, path: tuple[str, ...], kind: str | None) -> Any:
        state = value.state if isinstance(value.state, dict) else {}
        if {"_parameters", "_modules"} <= state.keys():
            return self._module(value, state, path, kind)
        if value.target.module.startswith("__torch__"):
            self._pass_by_parts(value, path, kind or OTHER, but="state" if state else "")
            return self._script(value.target, state, path, kind)
        if (plain := self._plain(value)) is not value:
            return self._visit(plain, path, kind, None)
        inner = kind or self._in_unbuilt
        if (value.target.module, value.target.name) in _ATTRIBUTES:
            self._pass_by_parts(value, path, inner, but="state")
            return self._dict(state, path, kind)
        if value.pairs:
            self._pass_by_parts(value, path, inner, but="pairs")
            return self._dict(dict(_named(value.pairs)), path, kind)
        self.unbuilt[repr(value.target)] = self.unbuilt.get(repr(value.target), 0) + 1
        if {"state", "param_groups"} <= state.keys():
            self._pass_by_parts(value, path, STATE, but="state")
            return self._dict(state, path, STATE)
        for part in (value.state, value.entries, value.args):
            self._visit(part, path, inner, None)
        return value

    def _pass_by_parts(self, value: Opaque, path: tuple[str, ...], kind: str | None, *, but: str) -> None:
        """Keep for later what an object was made of, but for the part that is walked now."""
        for name in ("state", "pairs", "entries", "args"):
            if name != but:
                self._pass_by(getattr(value, name), path, kind)

    def _script(self, target: Global, state: dict[Any, Any], path: tuple[str, ...], kind: str | None) -> Any:
        """Walk a TorchScript module: its class says in code which attributes are parameters and buffers."""
        declared = self.declared.get(f"{target.module}.{target.name}")
        for name, item in _named(state):
            of_name = None
            if declared is not None and self._is_array(item):
                of_name = declared.get(name, OTHER)
            self._visit(item, (*path, name), kind or of_name, target)
        return _NOTHING

    def _module(self, value: Opaque, state: dict[Any, Any], path: tuple[str, ...], kind: str | None) -> Any:
        """Walk a pickled module in the order of its state dict; its other attributes only for arrays.

        Private attributes repeat the weights (the flat weights of an RNN), so they are left out.
        """
        self.unbuilt[repr(value.target)] = self.unbuilt.get(repr(value.target), 0) + 1
        for part, own in (("_parameters", PARAMETER), ("_buffers", BUFFER)):
            for name, tensor in _named(state.get(part) or {}):
                if tensor is not None:
                    self._visit(tensor, (*path, name), kind or own, value.target)
        self._items(_named(state["_modules"] or {}), path, kind)
        rest = [(n, v) for n, v in _named(state) if n not in _OF_MODULE]
        public = [(n, v) for n, v in rest if not n.startswith("_")]
        self._items([(n, v) for n, v in public if isinstance(v, dict | list | tuple)], path, kind or OTHER)
        self._items([(n, v) for n, v in public if self._is_array(v)], path, kind or OTHER)
        for name, item in rest:  # those of above are seen, or have a name
            packed = isinstance(item, Opaque) and (item.target.module, item.target.name) == SCRIPT_OBJECT
            self._pass_by(item, (*path, name), kind if packed else kind or OTHER)
        self._pass_by_parts(value, path, kind or OTHER, but="state")
        return _NOTHING


def _shown(value: Global | Window) -> str:
    """Return the text that stands for a name, or for bytes that were left in the file."""
    return repr(value) if isinstance(value, Global) else f"<{value.size} bytes>"


def _named(items: Any) -> list[tuple[str, Any]]:
    """Return the pairs of a mapping, or of a list of pairs, with keys as names."""
    pairs = items.items() if isinstance(items, dict) else items
    if not isinstance(items, dict | list):
        return []
    return [(_key_name(key, i), value) for i, (key, value) in enumerate(pairs)]


def kind_below(name: str, beside_model: bool) -> str | None:
    """Return the kind of everything below a key of a training checkpoint, if the key says so."""
    if name in _STATE_KEYS:
        return STATE
    if ("." not in name and name.endswith(_RANDOM)) or (beside_model and name in _COPY_KEYS):
        return OTHER
    return None


def _key_name(key: Any, place: int) -> str:
    """Return the segment for a key; a tensor or an object that is a key, as in optimizers, gets its place."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, int | float | bytes):
        return printable(str(key)[:100])
    return printable(repr(key)[:100]) if isinstance(key, tuple) and _is_plain(key) else str(place)


def _is_plain(key: tuple[Any, ...]) -> bool:
    return all(part is None or isinstance(part, str | int | float | bytes) for part in key)
