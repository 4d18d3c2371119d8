"""How the flat names of a distributed checkpoint are nested: order, paths, and what is optimizer state."""

from __future__ import annotations

from paratree.core.names import STATE
from paratree.formats._nested import MODEL_KEYS, kind_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any


class Names:
    """The names of a checkpoint.

    Args:
        names: the flat names.
        flattened: what the planner recorded of how it flattened the state dict, name -> keys, if it did. Its
            order is that of the state dict; that of the names is broken up by who stored what.
    """

    def __init__(self, names: Collection[str], flattened: Any) -> None:
        known = flattened if isinstance(flattened, dict) else {}
        self._paths = {
            name: tuple(map(str, keys)) if isinstance(keys := known.get(name), tuple) and keys else None
            for name in names
        }
        self.order = list(dict.fromkeys([*(n for n in known if n in self._paths), *names]))
        self._below: dict[tuple[str, ...], set[str]] = {}
        for name in names:
            path = self.path(name)
            for i, key in enumerate(path[:-1]):
                self._below.setdefault(path[:i], set()).add(key)

    def path(self, name: str) -> tuple[str, ...]:
        """Return the keys that lead to a name; its parts between dots if none are recorded."""
        return self._paths[name] or tuple(name.split("."))

    def kind(self, path: tuple[str, ...]) -> str | None:
        """Return the kind of what lies at a path, if its keys say so."""
        for i, key in enumerate(path):
            around = self._below.get(path[:i], set())
            if key == "state" and "param_groups" in around:
                return STATE
            if (kind := kind_below(key, bool(around & MODEL_KEYS))) is not None:
                return kind
        return None

    def set_at(self, values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
        """Put a value where its keys lead, in dictionaries."""
        for key in path[:-1]:
            below = values.setdefault(key, {})
            if not isinstance(below, dict):
                return
            values = below
        values[path[-1]] = value
