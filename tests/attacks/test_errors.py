"""The hostile files once more, in this process: which error is raised, and what it carries."""

from __future__ import annotations

import pytest

import paratree as pt
from tests.attacks.harness import write
from tests.attacks.test_attacks import EVERY


@pytest.mark.parametrize("case", EVERY)
def test_the_error_says_where(case, tmp_path):
    path = write(case, "bad", tmp_path)
    with pytest.raises(pt.ParatreeError) as caught, pt.open(path) as tree:
        _ = tree[case.get].value
    assert str(caught.value).startswith((str(path), case.get or str(path)))
    if isinstance(caught.value, pt.CorruptFileError | pt.UnsafeFileError):
        assert caught.value.path == str(path)
        assert caught.value.reason in str(caught.value)
