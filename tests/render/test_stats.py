"""How statistics look."""

import numpy as np
import pytest

import paratree as pt
from paratree.render.stats import HEADS, cells
from tests.verbs.held import tree_of


@pytest.mark.parametrize(
    ("zeros", "nan", "text"),
    [
        (0, 0, "0"), (1, 0, "<0.1 %"), (99, 0, "<0.1 %"), (100, 0, "0.1 %"), (960, 0, "1 %"),
        (50_000, 0, "50 %"), (99_499, 0, "99 %"), (99_500, 0, "99.5 %"), (99_901, 0, "99.9 %"),
        (99_999, 0, "99.9 %"), (100_000, 0, "100 %"), (50_000, 50_000, "50 %"), (99_999, 1, "99.9 %"),
    ],
)  # fmt: skip
def test_zeros_are_a_part_of_all_values_and_not_rounded_to_all_or_none(zeros, nan, text):
    values = np.repeat(np.float32([0, np.nan, 1]), [zeros, nan, 100_000 - zeros - nan])
    row = pt.stats(tree_of(w=values))["w"]
    assert dict(zip(HEADS, cells(row), strict=True))["zeros"] == text
