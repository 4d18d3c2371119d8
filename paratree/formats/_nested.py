"""Walk what a pickle holds: name its arrays by their path, keep its plain values, show what stays opaque.

Whole modules are walked through ``_parameters``, ``_buffers`` and ``_modules`` of their state, whatever
their class; an optimizer is known by its ``state`` and ``param_groups``.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError, printable
from paratree.core.names import BUFFER, OTHER, PARAMETER, STATE
from paratree.files.local import Window
from paratree.files.pickled import Global, Opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from paratree.files.local import Source

DEEPEST = 128
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
_ATTRIBUTES = (("argparse", "Namespace"), ("types", "SimpleNamespace"))  # opaque, but plainly a set of values


class Entry:
    """One array found: its path, what the reader made of it, and where it stood."""

    __slots__ = ("found", "kind", "owner", "path")

    def __init__(self, path: tuple[str, ...], found: Any, kind: str | None, owner: Global | None) -> None:
        self.path, self.found, self.kind, self.owner = path, found, kind, owner


class _Nothing:
    """Stands in the plain values for a place that held only arrays."""


_NOTHING = _Nothing()


class Nested:
    """The arrays and the plain values of nested containers.

    Args:
        source: where they were read from, for messages.
        is_array: tells whether a value is an array; those become entries.
        plain: returns the plain value that an opaque object stands for, or the object itself.
        budget: how many values the containers may hold, those met again counted again.
        declared: class of a TorchScript module -> attribute -> kind.
        in_unbuilt: kind of the arrays inside objects of unknown classes.
    """

    def __init__(
        self,
        source: Source,
        is_array: Callable[[Any], bool],
        plain: Callable[[Opaque], Any],
        budget: int,
        declared: dict[str, dict[str, str]],
        in_unbuilt: str | None = OTHER,
    ) -> None:
        self.source, self._is_array, self._plain, self.declared = source, is_array, plain, declared
        self._in_unbuilt = in_unbuilt
        self._left = budget + _SPARE_VISITS
        self._open: set[int] = set()  # containers that the walk is inside of; they are alive
        self.entries: list[Entry] = []
        self.unbuilt: dict[str, int] = {}  # class left opaque -> how often

    def walk(self, root: Any) -> dict[str, Any]:
        """Fill the entries from ``root`` and return its plain values, keyed as the arrays are named."""
        meta = self._visit(root, (), None, None)
        if isinstance(meta, dict):
            return meta
        return {} if meta is _NOTHING or meta is None else {"value": meta}

    def _visit(self, value: Any, path: tuple[str, ...], kind: str | None, owner: Global | None) -> Any:
        self._left -= 1
        if self._left < 0 or len(path) > DEEPEST:
            what = (
                f"over {DEEPEST} levels deep"
                if len(path) > DEEPEST
                else "of more values than its bytes can hold"
            )
            raise CorruptFileError(
                self.source.path, f"the pickle is nested {what}", member=self.source.member
            )
        if self._is_array(value):
            self.entries.append(Entry(path, value, kind, owner))
            return _NOTHING
        if not isinstance(value, dict | list | tuple | set | frozenset | Opaque):
            return _shown(value) if isinstance(value, Global | Window) else value
        if id(value) in self._open:
            return "<a cycle>"
        self._open.add(id(value))
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
            return self._script(value.target, state, path, kind)
        if (plain := self._plain(value)) is not value:
            return plain
        if (value.target.module, value.target.name) in _ATTRIBUTES:
            return self._dict(state, path, kind)
        if value.pairs:
            return self._dict(dict(_named(value.pairs)), path, kind)
        self.unbuilt[repr(value.target)] = self.unbuilt.get(repr(value.target), 0) + 1
        if {"state", "param_groups"} <= state.keys():
            return self._dict(state, path, STATE)
        for part in (value.state, list(value.entries), value.args):
            if isinstance(part, dict | list | tuple):
                self._visit(part, path, kind or self._in_unbuilt, None)
        return value

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
        public = (
            (n, v) for n, v in _named(state) if not n.startswith("_") and isinstance(v, dict | list | tuple)
        )
        loose = ((n, v) for n, v in _named(state) if not n.startswith("_") and self._is_array(v))
        for found in (public, loose):
            self._items(found, path, kind or OTHER)
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
