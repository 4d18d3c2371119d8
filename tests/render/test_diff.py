"""How a Diff looks: text, terminal, JSON."""

import doctest
import json
import re
from io import StringIO
from itertools import product

import numpy as np
import pytest
from rich.console import Console

import paratree as pt
from paratree.render import diff as render
from paratree.verbs import _axes, _figures, _matching, _proposing, _verdict
from tests.render.hostile import NAMES
from tests.verbs.held import held, tree_of

W = np.arange(6, dtype=np.float32).reshape(2, 3)


def tuned():
    """Return a model and what became of it."""
    a = tree_of(held("m", W, "state"), **{"body.w": W, "head.w": W + 1, "head.b": W[0], "gone": W, "t": W})
    head, bias = W + 1, W[0].copy()
    head[1, 2], bias[1:] = 8.0, np.nan
    return a, tree_of(**{"body.w": W, "head.w": head, "head.b": bias, "t": W.T, "new": W})


def test_a_change_just_beyond_the_tolerance_is_told_from_it():
    for change, text in ((0.00100004, "0.00100004"), (0.002, "0.002"), (0.0010000000001, "0.0010000000001")):
        found = pt.diff(tree_of(a=np.zeros(2)), tree_of(a=np.full(2, change)), atol=0.001)
        assert f" {text} " in render.lines(found)[4]


def test_text():
    assert render.lines(pt.diff(*tuned()).sorted("change")) == [
        "3 of 4 tensors differ; the other is equal to the last bit; 1 is only in the second (new); "
        "1 is only in the first (gone).",
        "net → net",
        "",
        "name    what                       changed  max |Δ|  at      rel. L2  cosine",
        "head.b  float32                     2 of 3        –                –       –",
        "    ✗ NaN: 0 → 2, 2 new, first at [1]",
        "head.w  float32                     1 of 6        2  [1, 2]     0.21   0.990",
        "t       2 × 3 → 3 × 2                    –        –                –       –",
        "    the values are equal to the last bit when transposed",
        "gone    only in the first, 2 × 3         –        –                –       –",
        "new     only in the second, 2 × 3        –        –                –       –",
        "",
        "1 optimizer state left out (--kind state) · 1 row not listed (--all)",
    ]


def test_all_lists_what_is_equal_and_the_tolerance_is_said():
    found = pt.diff(tree_of(a=W, b=W), tree_of(a=W, b=W * np.float32(1.001)), rtol=0.01)
    text = "\n".join(render.lines(found, everything=True))
    assert "bit-equal" in text
    assert "within tolerance" in text
    assert "beyond" in text
    assert "tolerance: |Δ| ≤ 0 + 0.01 |a|" in text


def test_ties_are_told():
    a = tree_of(held("embed", W, memory=1), held("head", W, memory=1))
    assert "tied in the first only: embed = head; apart in the second" in render.lines(
        pt.diff(a, tree_of(embed=W, head=W))
    )
    same = render.lines(pt.diff(a, a))
    assert same == [
        "The one tensor is equal to the last bit.",
        "net → net",
        "",
        "1 tied name compared once, with its group",
    ]
    npz = render.lines(pt.diff(a, tree_of(embed=W, head=W, format="NumPy npz")))
    assert npz[-1].endswith("apart in the second, whose format records no ties")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_a_terminal_of_any_width(width):
    console = Console(width=width, force_terminal=True, color_system=None, record=True, file=StringIO())
    console.print(render.table(pt.diff(*tuned()), hints=True))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    for fact in ("head.w", "NaN: 0 → 2", "only in the first, 2 × 3", "2 × 3 → 3 × 2"):
        assert fact in text


def test_names_that_are_cut_are_told_apart():
    names = [f"encoder.layer.{i}.attention.self.query_and_key_and_value.projection.weight" for i in range(3)]
    console = Console(width=60, file=StringIO())
    console.print(pt.diff(tree_of(**dict.fromkeys(names, W)), tree_of(**dict.fromkeys(names, W + 1))))
    text = console.file.getvalue()
    assert all(text.count(f"{i}.attention") == 1 for i in range(3)), text


@pytest.mark.parametrize("width", [50, 80])
@pytest.mark.parametrize("of", ["stats", "diff"])
def test_names_that_their_column_has_no_room_for_have_lines_of_their_own(width, of):
    parts = product(range(3), ("atom", "bond"), ("core", "gate"), (0, 1), ("weight", "bias"))
    tails = [f"{i}.twoBody_{a}_x.mlp_{m}.layers.{j}.{w}" for i, a, m, j, w in parts]
    tree, other = (tree_of(**{f"model.atom_conv_layers.{tail}": w for tail in tails}) for w in (W, W + 1))
    console = Console(width=width, file=StringIO())
    console.print(pt.stats(tree) if of == "stats" else pt.diff(tree, other))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for tail in tails:
        assert sum(tail in line for line in lines) == 1, lines


def test_a_screen_of_30_columns():
    console = Console(width=30, file=StringIO())
    names = ("encoder.layers.0.attention.self.key.weight", "encoder.layers.0.attention.self.value.weight")
    long = np.arange(12_000.0)
    console.print(pt.diff(*(tree_of(**dict.fromkeys(names, w)) for w in (long, long + 1))))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 30
    assert "rel. L2" not in text
    assert len(re.findall("12.0 k of 12.0 k\n", text)) == 2


def test_a_diff_shows_itself_in_rich():
    console = Console(width=100, record=True, file=StringIO())
    console.print(pt.diff(*tuned()))
    assert "3 of 4 tensors differ" in console.export_text()


@pytest.mark.parametrize("name", NAMES)
def test_names_cannot_act_on_a_terminal(name):
    found = pt.diff(tree_of(**{name: W}), tree_of(**{name: W + 1}))
    assert "\x1b" not in "\n".join(render.lines(found)) + render.as_json(found)


def test_a_name_of_no_character_is_seen():
    text = render.lines(pt.diff(tree_of(**{"": W}), tree_of(**{"": W + 1})))
    assert text[4].startswith('""    float32')
    assert '"name": ""' in render.as_json(pt.diff(tree_of(**{"": W}), tree_of(**{"": W + 1})))


def test_large_whole_numbers_are_short_in_text_and_exact_in_json():
    a, b = np.array([0, 1], np.int64), np.array([2**62 + 1, 1], np.int64)
    found = pt.diff(tree_of(n=a), tree_of(n=b))
    assert "4.61e+18" in render.lines(found)[4]
    assert json.loads(render.as_json(found))["rows"][0]["max_abs"] == 2**62 + 1
    small = pt.diff(tree_of(n=a), tree_of(n=a + 123456))
    assert " 123456 " in render.lines(small)[4]


def test_reshaped_values_in_order_are_told():
    text = render.lines(pt.diff(tree_of(w=W), tree_of(w=W.reshape(6))))
    assert text[4].startswith("w     2 × 3 → 6")
    assert text[5] == "    reshaped, values equal in order"


def test_values_that_lie_as_they_should_not_are_told():
    square = np.random.default_rng(0).random((4, 4))
    a, b = held("w", square, layout="out in"), held("w", square, layout="in out")
    text = "\n".join(render.lines(pt.diff(tree_of(a), tree_of(b))))
    assert "the values are equal to the last bit when compared as they lie" in text


def test_rows_are_left_out_only_where_a_proposal_explains_most_of_them():
    a, b = {f"m.{i}.w": W + i for i in range(3)}, {f"{i}.w": W + i for i in range(3)}
    assert [line for line in render.lines(pt.diff(tree_of(**a), tree_of(**b))) if "only in the" in line] == []
    others = {f"x{i}": W for i in range(7)}
    text = "\n".join(render.lines(pt.diff(tree_of(**a, **others), tree_of(**b))))
    assert text.count("only in the first, 2 × 3") == 10
    assert "3 more names match" in text


def test_a_proposal_in_json():
    found = json.loads(render.as_json(pt.diff(tree_of(**{"m.kernel": W}), tree_of(weight=W.T))))
    assert found["proposal"] == {
        "strip": ["m."],
        "rename": {"**.kernel": "**.weight"},
        "names": 1,
        "left": [0, 0],
    }


def test_json_is_one_document_of_all_rows():
    found = json.loads(render.as_json(pt.diff(*tuned())))
    assert (found["schema"], found["same"], len(found["rows"])) == (1, False, 6)
    assert found["statuses"] == {"bit-equal": 1, "different": 2, "removed": 1, "reshaped": 1, "added": 1}
    assert found["hidden"] == {"state": 1}
    row = next(row for row in found["rows"] if row["name"] == "head.w")
    assert (row["changed"], row["where"], row["max_abs"]) == (1, [1, 2], 2.0)


def test_infinite_figures_have_names_in_json():
    found = pt.diff(tree_of(w=np.zeros(2)), tree_of(w=np.ones(2)))
    assert json.loads(render.as_json(found))["rows"][0]["relative_l2"] == "Infinity"


@pytest.mark.parametrize("module", [render, _axes, _figures, _matching, _proposing, _verdict])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
