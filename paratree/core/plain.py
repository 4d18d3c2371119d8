"""The plain values of a pytree, with the places of these and of empty containers, to be saved with it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from typing import Any

    Path = tuple[str, ...]
    Places = Callable[[], Iterable[tuple[Path, Any]]]


class PlainValues(dict):  # type: ignore[type-arg]  # of names: a subscript would need typing at run time
    """The plain values beside the parameters, as ``tree.meta`` has them.

    Attributes:
        names: the parameters with which they were opened; without these they have no meaning.
    """

    __slots__ = ("_places", "names")

    def __init__(self, values: Mapping[str, Any], names: Collection[str], places: Places) -> None:
        super().__init__(values)
        self.names, self._places = names, places

    def places(self) -> Iterator[tuple[Path, Any]]:
        """Yield the path of every plain value with the value, and of every empty container, with ``{}``."""
        yield from self._places()

    def get(self, key: str, default: Any = None) -> Any:
        """Return what has a name; of a part of the pytree its plain values, though there be none."""
        start = f"{key}."
        names = [name.removeprefix(start) for name in self.names if name.startswith(start)]
        found = super().get(key, default)
        if not names or not isinstance(found, dict):
            return found
        return PlainValues(found, names, lambda: self._below(key))

    def _below(self, key: str) -> Iterator[tuple[Path, Any]]:
        for path, value in self._places():
            if path[:1] == (key,) and len(path) > 1:
                yield path[1:], value

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)  # places belong to an open file or a live object
