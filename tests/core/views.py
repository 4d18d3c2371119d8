"""Random sets of arrays over shared memory, and which of them are one: by construction, not by our code."""

from math import prod
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

STORE = 24  # values in each piece of memory


class View(NamedTuple):
    """An array over a piece of memory: where it begins and how it steps, in values."""

    store: int
    offset: int
    shape: tuple
    strides: tuple

    @property
    def size(self):
        return prod(self.shape)

    def places(self):
        """Return, for each value of the array, its place in the memory."""
        places = np.full(self.shape, self.offset)
        for axis, (length, step) in enumerate(zip(self.shape, self.strides, strict=True)):
            places += (step * np.arange(length)).reshape([-1] + [1] * (len(self.shape) - axis - 1))
        return places


@st.composite
def views(draw):
    """Draw an array that lies inside one of three pieces of memory: any strides, overlaps and repeats too."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    strides, left = [], STORE - 1
    for length in shape:
        step = draw(st.integers(0, min(left // (length - 1), 8) if length > 1 else 8))
        left -= step * max(length - 1, 0)
        strides.append(step)
    return View(draw(st.integers(0, 2)), draw(st.integers(0, left)), shape, tuple(strides))


@st.composite
def families(draw):
    """Draw a list of views in which twins, and near-twins, are common."""
    chosen = draw(st.lists(views(), min_size=1, max_size=8))
    for _ in range(draw(st.integers(0, 4))):
        twin = draw(st.sampled_from(chosen))
        change = draw(st.sampled_from(["none", "store", "free stride", "flat"]))
        if change == "store":
            twin = twin._replace(store=(twin.store + 1) % 3)
        elif change == "free stride":  # the stride along an axis of one value takes it nowhere
            free = tuple(s if n > 1 else s + 1 for n, s in zip(twin.shape, twin.strides, strict=True))
            twin = twin._replace(strides=free)
        elif change == "flat" and np.array_equal(twin.places().ravel(), twin.offset + np.arange(twin.size)):
            twin = twin._replace(shape=(twin.size,), strides=(1,))
        chosen.insert(draw(st.integers(0, len(chosen))), twin)
    return chosen


def truth(family):
    """Return the groups of positions in ``family`` that are one array: same values at the same places."""
    groups = {}
    for position, view in enumerate(family):
        if view.size:
            key = (view.store, view.shape, view.places().tobytes())
            groups.setdefault(key, []).append(position)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)
