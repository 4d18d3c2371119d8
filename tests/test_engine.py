from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratree.core.errors import MismatchError
from paratree.engine import blocks_of, check_workers, cores, run


@given(st.lists(st.lists(st.integers(0, 7), max_size=4).map(tuple), max_size=3), st.integers(1, 40))
def test_blocks_are_the_array_in_row_major_order(shapes, most):
    arrays = [np.arange(prod(shape)).reshape(shape) for shape in shapes]
    found = list(blocks_of(shapes, most))
    for item, array in enumerate(arrays):
        mine = [block for block in found if block.item == item]
        parts = [array[block.index].ravel() for block in mine]
        assert np.array_equal(np.concatenate(parts) if parts else array.ravel(), array.ravel())
        assert [part.size for part in parts] == [block.size for block in mine]
        assert all(part.size <= most and part[0] == b.start for part, b in zip(parts, mine, strict=True))
    assert [block.item for block in found] == sorted(block.item for block in found)


def test_an_array_that_fits_is_one_block():
    assert [block.index for block in blocks_of([(2, 3), (0, 5), ()])] == [..., ...]


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_results_come_in_order(threads):
    assert list(run(lambda n: n * n, range(50), threads=threads)) == [n * n for n in range(50)]


def test_few_tasks_are_in_flight():
    taken = 0

    def tasks():
        nonlocal taken
        for n in range(100):
            taken += 1
            yield n

    for done, _ in enumerate(run(lambda n: n, tasks(), threads=3)):
        assert taken <= done + 1 + 2 * 3


def test_an_error_ends_the_run_and_leaves_no_thread():
    def work(n):
        time.sleep(0.001)
        if n == 7:
            raise ValueError("seven")
        return n

    before = threading.active_count()
    with pytest.raises(ValueError, match="seven"):
        list(run(work, range(10_000), threads=2))
    assert threading.active_count() == before


def test_stopping_early_leaves_no_thread():
    before = threading.active_count()
    found = run(lambda n: n, range(10_000), threads=2)
    assert next(found) == 0
    found.close()
    assert threading.active_count() == before


def test_another_executor_is_used_and_kept():
    with ThreadPoolExecutor(1, "theirs") as executor:
        names = set(run(lambda _: threading.current_thread().name, range(9), executor=executor))
        assert names == {"theirs_0"}
        assert executor.submit(int).result() == 0


def test_cores_are_those_of_the_process():
    assert cores() >= 1


@pytest.mark.parametrize("threads", [0, -1, "x", 2.0, True])
def test_what_is_no_number_of_threads_is_refused(threads):
    with pytest.raises(MismatchError, match="threads is a number of threads, at least 1, or None, not"):
        next(run(str, [1], threads=threads))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"executor": "ray"}, "executor is a concurrent.futures.Executor, not an object of type str"),
        ({"progress": True}, "progress is a function of two numbers of bytes, not an object of type bool"),
    ],
)
def test_what_cannot_run_or_tell_is_refused(wrong, message):
    with pytest.raises(MismatchError, match=message):
        check_workers(**{"threads": None, "executor": None, **wrong})
