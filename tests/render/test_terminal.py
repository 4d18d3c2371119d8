"""The table on a terminal: fits every width, keeps names data."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from paratree.render.terminal import all_shortened, formats, shortened, table, told_apart
from paratree.verbs.formats import FormatFacts
from paratree.verbs.formats import formats as known
from paratree.verbs.show import show
from tests.render.hostile import NAMES
from tests.verbs.trees import checkpoint, listed, transformer, tree_of

# ruff: noqa: E501 -- tables as wide as they are

WIDE = """\
net   test · 23 tensors · 212 k parameters (276 k with ties expanded) · 848 kB (1.1 MB) · float32 (22), int64 (1)

  name                                            shape      dtype    params    bytes  tied
  model.embed.weight                              1000 × 64  float32  64.0 k   256 kB  ⛓ 1
  model.position_ids                              1 × 512    int64    buffer   4.1 kB
  model.layers.{0..3}.self_attn.q_proj.weight ×4  64 × 64    float32  16.4 k  65.5 kB
  model.layers.{0..3}.self_attn.q_proj.bias ×4    64         float32   256     1.0 kB
  model.layers.{0..3}.mlp.up.weight ×4            256 × 64   float32  65.5 k   262 kB
  model.layers.{0..3}.mlp.down.weight ×4          64 × 256   float32  65.5 k   262 kB
  model.layers.{0..3}.norm.weight ×4              64         float32   256     1.0 kB
  lm_head.weight                                  1000 × 64  float32       –        –  ⛓ 1 = model.embed.weight

23 of 23 readable · 1 tied group · 20 tensors folded into 5 rows
beside the parameters: 1 buffer, 4.1 kB
"""


def printed(tree, width, **options):
    console = Console(width=width, force_terminal=False, color_system=None, record=True, file=io.StringIO())
    console.print(table(show(tree, **options)))
    return "".join(line.rstrip() + "\n" for line in console.export_text().splitlines())


def test_wide():
    assert printed(transformer(), 140) == WIDE


def test_narrow():
    lines = printed(transformer(), 40).splitlines()
    assert lines[:8] == [
        "net",
        "test · 23 tensors · 212 k parameters",
        "(276 k with ties expanded) · 848 kB (1.1",
        "MB) · float32 (22), int64 (1)",
        "",
        "  name                     shape    tied",
        "  model.embed.weight       1000×64  ⛓ 1",
        "  model.position_ids       1×512",
    ]
    assert "  lm_head.weight           1000×64  ⛓ 1" in lines


@pytest.mark.parametrize("width", [1, 2, 8, 20, 40, 60, 80, 100, 140, 300])
def test_no_line_is_wider_than_the_terminal(width):
    trees = (transformer(), checkpoint(), tree_of(), tree_of(*[listed(name, dtype=name) for name in NAMES]))
    for tree in trees:
        assert all(cell_len(line) <= width for line in printed(tree, width).splitlines())


def test_a_wider_terminal_shows_no_less():
    sizes = [len(re.sub(r"\s", "", printed(transformer(), width))) for width in (40, 60, 80, 100, 140, 200)]
    assert sizes == sorted(sizes)
    assert sizes[-2] == sizes[-1]


def test_a_name_is_cut_in_its_middle_and_keeps_its_number():
    (row,) = [line for line in printed(transformer(), 50).splitlines() if "q_proj.weight" in line]
    assert "…" in row
    assert "weight ×4" in row


@given(st.text("ab.{}層", max_size=60), st.integers(1, 70), st.integers(0, 60))
def test_a_shortened_name_fits_and_is_made_of_both_ends(name, width, common):
    short = shortened(name, width, min(common, len(name)))
    assert cell_len(short) <= width
    if cell_len(name) <= width:
        assert short == name
    else:
        start, _, tail = short.partition("…")
        assert name.startswith(start.rstrip())
        assert name.endswith(tail)
        assert tail or width < 4


def test_names_that_would_be_cut_alike_are_told_apart():
    ways = [f"bidirectional.{way}_layer.lstm_cell.kernel" for way in ("forward", "backward")]
    seen = printed(tree_of(*ways, "out.kernel"), 40)
    rows = [line.split()[0] for line in seen.splitlines() if "kernel" in line]
    assert len(set(rows)) == 3
    assert any("forw" in row for row in rows)
    assert all(row.endswith("kernel") for row in rows)
    assert all(cell_len(line) <= 40 for line in seen.splitlines())


@given(st.lists(st.text("ab._", min_size=1, max_size=30), min_size=2, unique=True), st.integers(3, 20))
def test_names_told_apart_differ_and_fit(names, width):
    cut = told_apart(names, width)
    assert len(cut) == len(names)
    if any(cut):
        assert len(set(cut)) == len(cut)
        assert all(cell_len(text) <= width for text in cut)


def test_what_a_row_shares_with_the_row_before_is_dim():
    console = Console(width=100, force_terminal=True, color_system="standard", file=io.StringIO())
    with console.capture() as captured:
        console.print(table(show(transformer())))
    text = captured.get()
    assert "\x1b[2mmodel\x1b[0m.position_ids" in text
    assert "\x1b[36m{0..3}\x1b[0m" in text
    assert "\x1b[35m" in text


def test_hostile_names_do_not_act():
    tree = tree_of(*[listed(name, dtype=name, problem=name) for name in NAMES], source=NAMES[0], notes=NAMES)
    console = Console(width=300, force_terminal=True, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(table(show(tree)))
    lines = re.sub("\x1b\\[[0-9;]*m", "", captured.get()).splitlines()
    assert all(line.isprintable() for line in lines)
    text = "\n".join(lines)
    for name in (
        "[bold red]markup[/bold red]",
        ":smile:",
        "<script>alert(1)</script>",
        r"\x1b[31mred\x1b[0m",
    ):
        assert name in text


def test_the_display_method_of_a_tree():
    console = Console(width=140, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(transformer())
    assert "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n" == WIDE


def test_what_cannot_be_read_stands_out():
    console = Console(width=100, force_terminal=True, color_system="standard", file=io.StringIO())
    with console.capture() as captured:
        console.print(table(show(tree_of(listed("a", problem="odd")), kind="parameter"), hints=True))
    assert "\x1b[33mnot readable: 1 tensor: odd\x1b[0m" in captured.get()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_formats(width):
    console = Console(width=width, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(formats(known()))
    text = captured.get()
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    if width >= 80:
        assert ".safetensors.index.json" in text
        firsts = [line for line in text.splitlines() if not line.startswith(" ")]
        assert len(firsts) == 1 + len(known())


def test_a_format_in_the_table():
    facts = FormatFacts(
        "Some", (".some", ".other"), "all of it", "yes; in blocks", "no: written twice", True, "x", "so"
    )
    plain = FormatFacts("Other format", (), "a part", "yes", "hard links")
    console = Console(width=60, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(formats([facts, plain]))
    assert [line.rstrip() for line in captured.get().splitlines()] == [
        "NAME          SUFFIXES      LAZY  TIES  WRITES AS  NEEDS",
        "Some          .some .other  yes   no    so         x",
        "              all of it · lazy: in blocks · ties: written",
        "              twice",
        "Other format  a folder      yes   yes   no         -",
        "              a part · ties: hard links",
    ]


@pytest.mark.parametrize("width", [24, 30, 36])
def test_all_names_cut_to_a_width_are_told_apart(width):
    names = [f"model.transformer.layers.{i}.attention.query_key_value_projection" for i in range(12)]
    cut = all_shortened(names, width)
    assert len(set(cut)) == 12
    assert all(len(text) <= width for text in cut)
    assert [re.findall("[0-9]+", text) for text in cut] == [[str(i)] for i in range(12)]
    assert all_shortened(["a", "a", "b"], width) == ["a", "a", "b"]
