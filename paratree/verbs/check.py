"""What must hold of a source, for tests and CI: each rule that is given, and each place where it does not."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from paratree.core.errors import MismatchError, printable
from paratree.core.names import KINDS, OTHER, PARAMETER
from paratree.engine import check_workers
from paratree.verbs import _rules
from paratree.verbs import fingerprint as hashing
from paratree.verbs._arguments import kinds_of, selector_of
from paratree.verbs._same import differences, hint_of_differences, hint_of_hash
from paratree.verbs._targets import has_range
from paratree.verbs.reading import opened, selected
from paratree.verbs.stats import stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Executor
    from typing import Any

    from paratree.core.select import Selector
    from paratree.core.tree import ParamTree
    from paratree.engine import Progress
    from paratree.verbs._targets import Target
    from paratree.verbs.fingerprint import Fingerprint
    from paratree.verbs.stats import ParamStats, Stats

NO_NAN, NO_INF, MAX_ABS, FINITE_IN = "no_nan", "no_inf", "max_abs", "finite_in"
EXPECT, EXPECT_TENSORS, SAME_AS, FINGERPRINT = "expect", "expect_tensors", "same_as", "fingerprint"
_OF_VALUES = {NO_NAN, NO_INF, MAX_ABS, FINITE_IN}
_OF_RANGE = {MAX_ABS, FINITE_IN}
_NO_FLOATS = "there is no floating value to look at"
_NOTHING = "there is nothing to look at; if that is right, expect 0 parameters"


@dataclass(frozen=True, slots=True)
class Failure:
    """One place where a rule does not hold.

    Attributes:
        rule: the argument of :func:`check` that says the rule.
        name: the parameter, the first name of a tied group; ``None`` for the source as a whole.
        fact: what is so instead.
        count: how many values are not as they should be, where that was counted.
        index: of the first of them, where it is known.
        bound: what the rule gives: a magnitude, the largest value of a dtype, a number of things.
        found: what was found instead.
    """

    rule: str
    name: str | None
    fact: str
    count: int | None = None
    index: tuple[int, ...] | None = None
    bound: float | None = None
    found: float | None = None

    def __str__(self) -> str:
        name = self.rule if self.name is None else printable(self.name) or '""'
        return f"{name}: {printable(self.fact)}"


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """What :func:`check` found; it is true if every rule holds.

    Attributes:
        source: path, or the class of the live object.
        tensors: number of names that were looked at.
        rules: the rules that were given.
        failures: where they do not hold, in the order of the rules and of the source.
        fingerprint: the content hashes, if a rule needed them.
        numbers: of each rule that expects a number of things, how many there are.
        hint: what to try where only what belongs to no model is not the same, or ``None``.
    """

    source: str
    tensors: int
    rules: tuple[str, ...]
    failures: tuple[Failure, ...]
    fingerprint: Fingerprint | None
    numbers: Mapping[str, int]
    hint: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return not self.failures

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        number = len(self.failures)
        places = "1 place" if number == 1 else f"{number} places, the first"
        hint = f"; {self.hint}" if self.hint else ""
        words = "passed" if self.passed else f"failed at {places}: {self.failures[0]}{hint}"
        return f"<Check {printable(self.source)}: {words}>"


def check(
    source: object,
    *,
    no_nan: bool = False,
    no_inf: bool = False,
    max_abs: float | None = None,
    finite_in: str | None = None,
    expect: int | None = None,
    expect_tensors: int | None = None,
    same_as: object = None,
    fingerprint: str | bool = False,
    select: Selector | None = None,
    kind: str | Iterable[str] | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Check:
    """Check a source against rules; what cannot be read keeps no rule about values.

    Texts and other objects that belong to no model are left out. A source in which there is nothing to look
    at, no value for a rule about values, fails, unless ``expect`` or ``expect_tensors`` is 0; only the
    fingerprint is the hash of nothing.

    Args:
        source: a path, a live model, or a tree.
        no_nan: no value is NaN.
        no_inf: no value is infinite.
        max_abs: no magnitude is larger; here and in ``finite_in`` integers and booleans are left out, and
            what is neither parameter nor buffer, unless ``kind`` is given.
        finite_in: name of a dtype, as ``"float16"``: all values are finite once cast to it, to nearest even.
        expect: number of values of the parameters, a tied group counted once; of the kinds given, if any.
        expect_tensors: number of names, tied ones each.
        same_as: a source with the same names, and for each the same dtype, shape and bytes. The state of an
            optimizer counts, as for a fingerprint, unless ``kind`` is ``("parameter", "buffer")``.
        fingerprint: the hash that :func:`paratree.fingerprint` gives; ``True`` finds it only.
        select: only parameters that fit, as in :meth:`paratree.ParamTree.select`.
        kind: only these kinds; every kind by default, optimizer state included.
        threads: number of threads; as many as the process may use by default.
        executor: where to run instead of on threads of our own.
        progress: called with the bytes that are done and the bytes of all, for each time that all is read.

    Returns:
        Whether all rules hold, and each place where one does not.

    Raises:
        MismatchError: no rule is given, or one has no meaning.
        NoSuchParamError: nothing fits the selection.
        CorruptFileError: a file is damaged.

    Example:
        >>> paratree.check("model.safetensors", no_nan=True, finite_in="float16").passed  # doctest: +SKIP
        True
    """
    no_nan, no_inf = _rules.flag(NO_NAN, no_nan), _rules.flag(NO_INF, no_inf)
    bound, target = _rules.magnitude(MAX_ABS, max_abs), _rules.range_of(finite_in)
    size, names = _rules.whole(EXPECT, expect), _rules.whole(EXPECT_TENSORS, expect_tensors)
    expected = _rules.hash_of(FINGERPRINT, fingerprint)
    given = {
        NO_NAN: no_nan, NO_INF: no_inf, MAX_ABS: bound is not None, FINITE_IN: target is not None,
        EXPECT: size is not None, EXPECT_TENSORS: names is not None,
        SAME_AS: same_as is not None, FINGERPRINT: expected is not False,
    }  # fmt: skip
    rules = tuple(rule for rule, is_given in given.items() if is_given)
    if not rules:
        raise MismatchError("there is nothing to check; say what must hold, for example that no value is NaN")
    check_workers(threads, executor, progress)
    how: dict[str, Any] = {"threads": threads, "executor": executor, "progress": progress}
    select, kinds = selector_of(select), kinds_of(kind)
    may_be_empty = 0 in (size, names)
    failures: list[Failure] = []
    hashes = hint = None
    with ExitStack() as stack:
        tree = stack.enter_context(opened(source))
        chosen = selected(tree, select, kinds)
        if _OF_VALUES & set(rules):
            table = stats(chosen, kind=KINDS, histogram=False, **how)
            seen = [row for row in table if row.kind != OTHER or row.problem is None]
            failures += _of_values(table, seen, rules, bound, target, every_kind=kinds is not None)
            if not may_be_empty:
                failures += _of_nothing(seen, rules, every_kind=kinds is not None)
        numbers, unknown = _numbers(chosen, kinds)
        failures += _of_numbers(numbers, unknown, {EXPECT: size, EXPECT_TENSORS: names})
        if {SAME_AS, FINGERPRINT} & set(rules):
            hashes = hashing.fingerprint(chosen, **how)
        if hashes is not None and same_as is not None:
            second = selected(stack.enter_context(opened(same_as)), select, kinds)
            other = hashing.fingerprint(second, **how)
            differing = dict(differences(chosen, hashes, second, other))
            failures += [Failure(SAME_AS, name, fact) for name, fact in differing.items()]
            hint = hint_of_differences(differing, chosen, second)
            if not (hashes.params or hashes.problems or other.params or other.problems or may_be_empty):
                failures.append(Failure(SAME_AS, None, _NOTHING))
    if hashes is not None and expected is not False:
        unlike = [*_of_fingerprint(hashes, expected, same_as is not None)]
        failures += unlike
        if unlike and isinstance(expected, str):
            hint = hint or hint_of_hash(chosen, hashes, expected)
    known = numbers if not unknown else {EXPECT_TENSORS: numbers[EXPECT_TENSORS]}
    counted = {rule: known[rule] for rule in rules if rule in known}
    return Check(tree.source, len(chosen), rules, tuple(failures), hashes, counted, hint)


def _of_nothing(seen: Iterable[ParamStats], rules: tuple[str, ...], *, every_kind: bool) -> Iterator[Failure]:
    """Yield a failure for each rule that has nothing to look at."""
    rows = list(seen)
    if not any(row.size or row.problem for row in rows):
        yield from (Failure(rule, None, _NOTHING) for rule in rules if rule in _OF_VALUES)
    elif not any(row.problem or has_range(row, every_kind=every_kind) for row in rows):
        yield from (Failure(rule, None, _NO_FLOATS) for rule in rules if rule in _OF_RANGE)


def _of_values(
    table: Stats,
    seen: Iterable[ParamStats],
    rules: tuple[str, ...],
    max_abs: float | None,
    target: Target | None,
    *,
    every_kind: bool,
) -> Iterator[Failure]:
    found = {(finding.name, finding.what): finding for finding in table.findings}
    for row in seen:
        if row.tied_with is not None:
            continue
        if row.problem is not None:
            yield Failure(rules[0], row.name, f"not read: {row.problem}")
            continue
        ranged = has_range(row, every_kind=every_kind)
        for what, rule in (("nan", NO_NAN), ("inf", NO_INF)):
            if (bad := found.get((row.name, what))) and (rule in rules or (ranged and target is not None)):
                rule = rule if rule in rules else FINITE_IN
                yield Failure(rule, row.name, bad.text, count=bad.count, index=bad.index)
        if ranged:
            yield from _of_range(row, max_abs, target)


def _of_range(row: ParamStats, max_abs: float | None, target: Target | None) -> Iterator[Failure]:
    largest = inf if row.inf else row.absmax
    if max_abs is not None and largest is not None and largest > max_abs:
        fact = f"its largest magnitude is {largest:.9g}, above {max_abs:.9g}"
        yield Failure(MAX_ABS, row.name, fact, bound=max_abs, found=largest)
    if target is not None and row.absmax is not None and row.absmax >= target.overflow:
        fact = f"its largest magnitude, {row.absmax:.9g}, overflows {target.dtype}: that ends at"
        fact = f"{fact} {target.largest:.9g}"
        yield Failure(FINITE_IN, row.name, fact, bound=target.largest, found=row.absmax)


def _numbers(tree: ParamTree, kinds: Iterable[str] | None) -> tuple[dict[str, int], int]:
    """Return how many values and names there are, and of how many parameters the size is not known."""
    counted = {PARAMETER} if kinds is None else set(kinds)
    totals = [total for name, total in tree.totals.items() if name in counted]
    size, unknown = sum(total.size for total in totals), sum(total.unknown for total in totals)
    return {EXPECT: size, EXPECT_TENSORS: len(tree)}, unknown


def _of_numbers(
    numbers: Mapping[str, int], unknown: int, expected: Mapping[str, int | None]
) -> Iterator[Failure]:
    for rule, noun in ((EXPECT, "parameters"), (EXPECT_TENSORS, "tensors")):
        number, wanted = numbers[rule], expected[rule]
        if wanted is not None and rule == EXPECT and unknown:
            fact = f"{unknown} parameters are of unknown size"
            yield Failure(rule, None, fact, count=unknown, bound=wanted)
        elif wanted is not None and number != wanted:
            fact = f"there are {number} {noun}, not {wanted}"
            yield Failure(rule, None, fact, bound=wanted, found=number)


def _of_fingerprint(found: Fingerprint, expected: str | bool, unread_is_told: bool) -> Iterator[Failure]:
    if not unread_is_told:
        for name, problem in found.problems.items():
            yield Failure(FINGERPRINT, name, f"not read: {problem}")
    if isinstance(expected, str) and found.hash not in (None, expected):
        yield Failure(FINGERPRINT, None, f"it is {found.hash}, not {expected}")
