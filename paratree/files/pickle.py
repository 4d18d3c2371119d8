"""Read a pickle's opcodes into inert values: nothing is called, nothing is imported.

Classes and functions that a pickle names become ``Global`` markers, and what it would build with them
``Opaque`` objects that keep the arguments and the state (files.pickled says which become plain values).
Opcodes: the documentation strings of CPython's ``pickletools``, protocols 0 to 5.
"""

from __future__ import annotations

import struct

from paratree.core.errors import CorruptFileError, UnsafeFileError
from paratree.files.local import Window, read
from paratree.files.pickled import MODERN, VALUES, Global, Opaque, is_inert, key_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from paratree.files.local import Source

    Interpret = Callable[[Global, tuple[Any, ...]], Any]
    Persistent = Callable[[Any], Any]
    Inline = Callable[[Opaque, int], int | None]

_STEP = 1 << 18  # bytes read at a time of a pickle whose length nothing records, or that holds arrays
_LEFT_IN_PLACE = 4096  # bytes from which an array's values stay in the file, if that is asked for
_LONGEST_INTEGER = 1024  # bytes; its decimal digits stay below what Python agrees to print
_SPARE_MEMORY, _MEMORY_A_BYTE = 24 << 20, 12  # what containers may take; real pickles need up to 5 a byte
_SET, _DICT, _LIST, _TUPLE, _MARK, _OPAQUE = 216, 64, 56, 48, 64, 200  # bytes, before anything is in them


class _Ended(Exception):  # noqa: N818 -- not an error: the window was too small
    """The bytes ended before the pickle did."""


def load(
    source: Source,
    offset: int,
    interpret: Interpret,
    persistent: Persistent,
    *,
    length: int | None = None,
    lazy: bool = False,
    inline: Inline | None = None,
) -> tuple[Any, int]:
    """Read one pickle.

    Args:
        source: where it lies.
        offset: its first byte.
        interpret: called with a global and the arguments it would be called with; returns the value that
            stands for the result, or ``NotImplemented`` to leave it opaque.
        persistent: called with a persistent id; returns the value that stands for it.
        length: bytes of the pickle, if known: then it must end exactly there.
        lazy: let long byte strings be windows on the source, which are read when they are asked for.
        inline: called with an object that was given its state and where the pickle goes on; returns where
            it goes on after bytes that lie between the opcodes and belong to the object.

    Returns:
        The value, and the offset after the pickle.

    Raises:
        CorruptFileError: it is cut short, malformed, or longer or shorter than ``length``.
        UnsafeFileError: it would call a function of the standard library.
    """
    end = source.size if length is None else offset + length
    step = length if length is not None and not lazy else _STEP  # an inflated source is read once, whole
    machine = _Machine(source, offset, end, interpret, persistent, step=step, lazy=lazy, inline=inline)
    try:
        value = machine.run()
    except _Ended:
        raise CorruptFileError(
            source.path, "the pickle is cut short", offset=end, member=source.member
        ) from None
    if length is not None and machine.position != end:
        raise machine.fault("the pickle ends here and its member goes on")
    return value, machine.position


class _Machine:
    """A stack machine for one pickle, of which ``data`` holds the part that is being read."""

    def __init__(
        self,
        source: Source,
        offset: int,
        end: int,
        interpret: Interpret,
        persistent: Persistent,
        *,
        step: int,
        lazy: bool,
        inline: Inline | None,
    ) -> None:
        self.source, self.base, self.end, self.data, self.place = source, offset, end, b"", 0
        self.interpret, self.persistent, self.inline = interpret, persistent, inline
        self.step, self.lazy = step, lazy
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.room = _SPARE_MEMORY

    def run(self) -> Any:
        """Run to STOP and return the one value left."""
        table = _TABLE
        try:
            while True:
                try:
                    operation = self.data[self.place]
                except IndexError:
                    self.fill(1)
                    continue
                self.place += 1
                if operation == 0x2E:  # STOP
                    if len(self.stack) != 1 or self.marks:
                        raise self.fault(f"{len(self.stack)} values are left at the end of the pickle")
                    return self.stack[0]
                table[operation](self)
        except (CorruptFileError, UnsafeFileError):
            raise
        except _FAULTS as error:
            raise self.fault(f"this is no valid pickle ({type(error).__name__}: {str(error)[:80]})") from None

    def fault(self, reason: str) -> CorruptFileError:
        return CorruptFileError(
            self.source.path, reason, offset=max(self.position - 1, 0), member=self.source.member
        )

    # Reading

    @property
    def position(self) -> int:
        """Offset in the source of the next byte."""
        return self.base + self.place

    def fill(self, count: int) -> None:
        """Read on, so that ``count`` bytes or more lie ahead."""
        position, ahead = self.position, len(self.data) - self.place
        if count > self.end - position:
            raise _Ended
        self.data = read(self.source, position, min(max(count, self.step), self.end - position))
        self.base, self.place = position, 0
        self.room += _MEMORY_A_BYTE * (len(self.data) - ahead)

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.place:
            self.fill(count)
        self.place += count
        return self.data[self.place - count : self.place]

    def take_values(self, count: int) -> bytes | Window:
        """Return the next bytes, which may be those of an array, or a window on them."""
        if not self.lazy or count < _LEFT_IN_PLACE:
            return self.take(count)
        position = self.position
        self.jump(position + count)
        return Window(self.source, position, count, self.source.member)

    def jump(self, position: int) -> None:
        """Go on at another byte, not before the present one."""
        if position > self.end:
            raise _Ended
        if position - self.base <= len(self.data):
            self.place = position - self.base
        else:
            self.data, self.base, self.place = b"", position, 0

    def line(self) -> bytes:
        start = self.place
        while (end := self.data.find(b"\n", start)) < 0:
            start = len(self.data) - self.place
            self.fill(max(start + 1, min(2 * start, self.end - self.position)))
        taken = self.data[self.place : end]
        self.place = end + 1
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    # The stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def make(self, value: Any, cost: int) -> None:
        """Push a container that takes ``cost`` bytes; a byte of a pickle can make one of 216."""
        self.room -= cost
        if self.room < 0:
            raise self.fault("the pickle makes far more objects than its bytes justify")
        self.stack.append(value)

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []
        self.room -= _MARK
        if self.room < 0:
            raise self.fault("the pickle opens far more marks than its bytes justify")

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def collect(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("the stack is too short")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.make(items, _TUPLE)

    def remember(self, slot: int) -> None:
        self.memo[slot] = self.stack[-1]

    # Building

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Opaque):
            target.entries.extend(items)
        else:
            raise TypeError(f"items are appended to a {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2:
            raise TypeError("a key has no value")
        pairs = list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, dict):
            target.update((key_of(key), value) for key, value in pairs)
        elif isinstance(target, Opaque):
            target.pairs.extend(pairs)
        else:
            raise TypeError(f"keys are set in a {type(target).__name__}")

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, set):
            raise TypeError(f"items are added to a {type(target).__name__}")
        target.update(key_of(item) for item in items)

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Opaque):
            self.stack[-1] = self._with_state(target, state)
            if self.inline is not None and (end := self.inline(target, self.position)) is not None:
                self.jump(max(end, self.position))
        elif isinstance(target, Global):
            raise self.unsafe("set attributes of", target)

    def _with_state(self, target: Opaque, state: Any) -> Any:
        """Give an opaque object its state; the same object stands wherever the memo put it."""
        if target.state is not None and isinstance(target.state, dict) and isinstance(state, dict):
            target.state.update(state)
        else:
            target.state = state
        return target

    def call(self, target: Any, args: Any) -> Any:
        """Return what stands for the result of a call that is not made."""
        if not isinstance(target, Global):
            raise self.unsafe("call", target)
        if not isinstance(args, tuple):
            raise TypeError("the arguments of a call are no tuple")
        known = VALUES.get((MODERN.get(target.module, target.module), target.name))
        value = NotImplemented if known is None else known(args)
        if value is NotImplemented:
            value = self.interpret(target, args)
        if value is not NotImplemented:
            return value
        if not is_inert(target):
            raise self.unsafe("call", target)
        self.room -= _OPAQUE
        return Opaque(target, args)

    def unsafe(self, what: str, target: object) -> UnsafeFileError:
        shown = repr(target) if isinstance(target, Global | Opaque) else f"a {type(target).__name__}"
        return UnsafeFileError(
            self.source.path,
            f"would {what} {shown}",
            offset=self.position - 1,
            member=self.source.member,
            advice="paratree never runs code from a file; nothing was read",
        )


# Operations that need more than an expression


def _reduce(m: _Machine) -> None:
    args = m.stack.pop()
    m.push(m.call(m.stack.pop(), args))


def _new_object(m: _Machine) -> None:
    args = m.stack.pop()
    m.push(m.call(m.stack.pop(), args))


def _new_object_with_names(m: _Machine) -> None:
    names, args, target = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.push(m.call(target, (*args, names) if names else args))


def _object(m: _Machine) -> None:
    target, *args = m.since_mark()
    m.push(m.call(target, tuple(args)))


def _instance(m: _Machine) -> None:
    target = Global(m.line().decode("utf-8"), m.line().decode("utf-8"))
    m.push(m.call(target, tuple(m.since_mark())))


def _global(m: _Machine) -> None:
    m.push(Global(m.line().decode("utf-8"), m.line().decode("utf-8")))


def _stack_global(m: _Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise TypeError("a global is named by no text")
    m.push(Global(module, name))


def _dict(m: _Machine) -> None:
    items = m.since_mark()
    m.make({}, _DICT)
    m.set_items(items)


def _set_item(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_items([key, value])


def _protocol(m: _Machine) -> None:
    if (version := m.take(1)[0]) > 5:
        raise m.fault(f"pickle protocol {version} is unknown")


def _text_integer(m: _Machine) -> None:
    text = m.line()
    m.push({b"00": False, b"01": True}[text] if text in (b"00", b"01") else _integer(text))


def _integer(text: bytes) -> int:
    if len(text) > 2 * _LONGEST_INTEGER:
        raise ValueError("an integer of too many digits")
    return int(text.rstrip(b"L"))


def _long(m: _Machine, length: int) -> None:
    if length > _LONGEST_INTEGER:
        raise ValueError(f"an integer of {length} bytes")
    m.push(int.from_bytes(m.take(length), "little", signed=True))


def _string(m: _Machine) -> None:
    from codecs import escape_decode

    text = m.line()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in b"\"'":
        raise ValueError("a string without quotes")
    m.push(escape_decode(text[1:-1])[0].decode("latin-1"))


def _text(found: bytes | Window) -> str | Window:
    """Return what Python 2 called a string: text, or the bytes of an array."""
    return found.decode("latin-1") if isinstance(found, bytes) else found


def _persistent(m: _Machine) -> None:
    m.push(m.persistent(m.stack.pop()))


def _text_persistent(m: _Machine) -> None:
    m.push(m.persistent(m.line().decode("utf-8")))


def _extension(m: _Machine, width: int) -> None:
    m.push(Global("copyreg.extension", str(m.number(width))))


def _refuse_buffer(m: _Machine) -> None:
    raise m.fault("an out-of-band buffer is asked for, and a file has none")


def _frozen_set(m: _Machine) -> None:
    m.make(frozenset(key_of(item) for item in m.since_mark()), _SET)


def _memoize(m: _Machine) -> None:
    m.remember(len(m.memo))


def _unknown(m: _Machine) -> None:
    raise m.fault(f"0x{m.data[m.place - 1]:02x} is no pickle opcode")


_OPERATIONS: dict[bytes, Callable[[_Machine], object]] = {
    b"(": _Machine.mark, b"0": _Machine.pop, b"1": _Machine.since_mark, b"2": lambda m: m.push(m.stack[-1]),
    b"F": lambda m: m.push(float(m.line())), b"I": _text_integer, b"L": lambda m: m.push(_integer(m.line())),
    b"J": lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
    b"K": lambda m: m.push(m.take(1)[0]), b"M": lambda m: m.push(m.number(2)),
    b"N": lambda m: m.push(None), b"\x88": lambda m: m.push(True), b"\x89": lambda m: m.push(False),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"\x8a": lambda m: _long(m, m.number(1)), b"\x8b": lambda m: _long(m, m.number(4)),
    b"S": _string, b"T": lambda m: m.push(_text(m.take_values(m.number(4)))),
    b"U": lambda m: m.push(m.take(m.number(1)).decode("latin-1")),
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    b"X": lambda m: m.push(m.take(m.number(4)).decode("utf-8", "surrogatepass")),
    b"\x8c": lambda m: m.push(m.take(m.number(1)).decode("utf-8", "surrogatepass")),
    b"\x8d": lambda m: m.push(m.take(m.number(8)).decode("utf-8", "surrogatepass")),
    b"B": lambda m: m.push(m.take_values(m.number(4))), b"C": lambda m: m.push(m.take(m.number(1))),
    b"\x8e": lambda m: m.push(m.take_values(m.number(8))),
    b"\x96": lambda m: m.push(m.take_values(m.number(8))),
    b")": lambda m: m.push(()), b"t": lambda m: m.make(tuple(m.since_mark()), _TUPLE),
    b"\x85": lambda m: m.collect(1), b"\x86": lambda m: m.collect(2), b"\x87": lambda m: m.collect(3),
    b"]": lambda m: m.make([], _LIST), b"l": lambda m: m.make(m.since_mark(), _LIST),
    b"a": lambda m: m.append([m.stack.pop()]), b"e": lambda m: m.append(m.since_mark()),
    b"}": lambda m: m.make({}, _DICT), b"d": _dict, b"s": _set_item,
    b"u": lambda m: m.set_items(m.since_mark()),
    b"\x8f": lambda m: m.make(set(), _SET), b"\x90": lambda m: m.add(m.since_mark()), b"\x91": _frozen_set,
    b"c": _global, b"\x93": _stack_global, b"R": _reduce, b"\x81": _new_object,
    b"\x92": _new_object_with_names, b"o": _object, b"i": _instance, b"b": _Machine.build,
    b"p": lambda m: m.remember(_integer(m.line())), b"q": lambda m: m.remember(m.take(1)[0]),
    b"r": lambda m: m.remember(m.number(4)), b"\x94": _memoize,
    b"g": lambda m: m.push(m.memo[_integer(m.line())]), b"h": lambda m: m.push(m.memo[m.take(1)[0]]),
    b"j": lambda m: m.push(m.memo[m.number(4)]),
    b"P": _text_persistent, b"Q": _persistent, b"\x80": _protocol,
    b"\x95": lambda m: m.take(8), b"\x97": _refuse_buffer, b"\x98": _refuse_buffer,
    b"\x82": lambda m: _extension(m, 1), b"\x83": lambda m: _extension(m, 2),
    b"\x84": lambda m: _extension(m, 4),
}  # fmt: skip
_TABLE = [_OPERATIONS.get(bytes([code]), _unknown) for code in range(256)]
_FAULTS = (IndexError, KeyError, TypeError, ValueError, OverflowError, AttributeError, struct.error)
