"""The tables of layouts."""

import pytest

from paratree.core.layout import KERAS, TORCH, layout_of


@pytest.mark.parametrize("table", [TORCH, KERAS], ids=["torch", "keras"])
def test_no_layout_names_an_axis_twice(table):
    every = [
        words.split() for names in table.values() for axes in names.values() for words in axes.split("|")
    ]
    assert len(every) > 40
    assert all(axes and len(set(axes)) == len(axes) for axes in every)


@pytest.mark.parametrize(
    ("classes", "name", "ndim", "expected"),
    [
        (["Linear", "Module"], "weight", 2, "out in"),
        (["LazyLinear", "LazyModuleMixin", "Linear"], "weight", 2, "out in"),
        (["Linear"], "weight", 3, None),
        (["Linear"], "scale", 1, None),
        (["__main__.Linear", "Module"], "weight", 2, None),
        (["Conv1d"], "weight", 3, "out in length"),
        (["transformers.Conv1D"], "weight", 2, "in out"),
        ([], "weight", 2, None),
    ],
)
def test_the_nearest_class_with_the_name_decides(classes, name, ndim, expected):
    assert layout_of(TORCH, classes, name, ndim) == expected
