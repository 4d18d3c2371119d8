"""Plain text, as it goes into a pipe."""

import pytest

from paratree.render import results
from paratree.render.text import COLUMNS, columns, foot, lines, one_line
from paratree.verbs.formats import formats
from paratree.verbs.show import show
from paratree.verbs.ties import ties
from tests.render.hostile import CONTROLS, NAMES
from tests.verbs.trees import checkpoint, listed, transformer, tree_of

# ruff: noqa: E501 -- tables as wide as they are

TRANSFORMER = """\
net: test · 23 tensors · 212 k parameters (276 k with ties expanded) · 848 kB (1.1 MB) · float32 (22), int64 (1)

name                                            shape      dtype    params    bytes  tied with
model.embed.weight                              1000 × 64  float32  64.0 k   256 kB  lm_head.weight
model.position_ids                              1 × 512    int64    buffer   4.1 kB
model.layers.{0..3}.self_attn.q_proj.weight ×4  64 × 64    float32  16.4 k  65.5 kB
model.layers.{0..3}.self_attn.q_proj.bias ×4    64         float32   256     1.0 kB
model.layers.{0..3}.mlp.up.weight ×4            256 × 64   float32  65.5 k   262 kB
model.layers.{0..3}.mlp.down.weight ×4          64 × 256   float32  65.5 k   262 kB
model.layers.{0..3}.norm.weight ×4              64         float32   256     1.0 kB
lm_head.weight                                  1000 × 64  float32       –        –  model.embed.weight

23 of 23 readable · 1 tied group · 20 tensors folded into 5 rows (--all lists every tensor)
beside the parameters: 1 buffer, 4.1 kB"""

CHECKPOINT = """\
run/step_2000.pt: PyTorch zip · 2 tensors · 40 parameters · 160 B · float32

name            shape  dtype    params  bytes
model.0.weight  8 × 4  float32      32  128 B
model.0.bias    8      float32       8   32 B

5 of 5 readable, 3 of them hidden · no ties · 1 frozen
beside the parameters: 2 optimizer states, 256 B hidden (--kind state), \
1 other tensor, 16 B hidden (--kind other)
meta: epoch = 3, optimizer.param_groups.0.lr = 0.0003"""


def test_a_transformer():
    assert "\n".join(lines(show(transformer()))) == TRANSFORMER


def test_a_training_checkpoint():
    assert "\n".join(lines(show(checkpoint()))) == CHECKPOINT


def test_subtrees():
    assert lines(show(transformer(), depth=3))[2:7] == [
        "name                    shape          dtype    params   bytes  tied with",
        "model.embed.weight      1000 × 64      float32  64.0 k  256 kB  lm_head.weight",
        "model.position_ids      1 × 512        int64    buffer  4.1 kB",
        "model.layers.{0..3}.**  4 × 5 tensors  float32   148 k  592 kB",
        "lm_head.weight          1000 × 64      float32       –       –  model.embed.weight",
    ]


def test_a_selection_says_how_much_of_the_whole_it_is():
    text = "\n".join(lines(show(transformer(), select="**.norm.*")))
    assert text.startswith("net: test · 4 of 23 tensors · 256 parameters · 1.0 kB · float32\n")
    assert "no ties" in text


def test_hints_are_for_the_command_line_only():
    assert "--" not in "\n".join(foot(show(checkpoint())))
    assert "--" not in "\n".join(lines(show(transformer()), hints=False))


def test_an_empty_tree():
    assert lines(show(tree_of())) == ["net: test · 0 tensors", "", "nothing to read · no ties"]


def test_what_is_not_known_and_what_cannot_be_read():
    tree = tree_of(
        listed("0.w", (None, 4), problem="not initialised yet; run a batch"),
        listed("1.w", (), "odd"),
        *[listed(f"{word}.x", problem=f"reason {word}") for word in "abcdefg"],
        notes=["two members were skipped", "a\x1bb"],
    )
    text = "\n".join(lines(show(tree)))
    assert "0.w   ? × 4   float32       ?      ?" in text
    assert "1.w   scalar  odd           1      ?" in text
    assert "1 of 9 readable" in text
    assert "1 of unknown size" in text
    assert "not readable: 1 tensor: not initialised yet; run a batch" in text
    assert "not readable: 3 more reasons" in text
    assert "note: two members were skipped\nnote: a\\x1bb" in text


def test_many_dtypes_and_many_meta_values_are_cut():
    dtypes = ["float32", "float16", "int8", "int16", "int32", "int64"]
    tree = tree_of(*[listed(f"{d}.weight", dtype=d) for d in dtypes], meta={str(i): i for i in range(9)})
    text = lines(show(tree))
    assert text[0].endswith("float32 (1), float16 (1), int8 (1), int16 (1), 2 more")
    assert text[-1] == "meta: 0 = 0, 1 = 1, 2 = 2, 3 = 3, 4 = 4, 5 = 5, … 3 more (--json has all)"
    assert one_line(tree).endswith("float32, float16, int8, int16, …>")


def test_a_shared_block_is_tied_with_itself():
    tree = tree_of(
        *[listed(f"l.{i}.w", memory=1) for i in range(4)], *[listed("a", memory=2), listed("b", memory=2)]
    )
    text = "\n".join(lines(show(tree)))
    assert "l.{0..3}.w ×4  4      float32       4   16 B  one another" in text
    rows = lines(show(tree_of(*[listed(name, memory=1) for name in "abcd"])))
    assert rows[3].endswith("b and 2 more")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (
            transformer(),
            "<ParamTree net: 21 parameters, 212 k values (1 of 22 names tied), 1 buffer, float32>",
        ),
        (
            checkpoint(),
            "<ParamTree step_2000.pt: 2 parameters, 40 values, 2 optimizer states, 1 other tensor, float32>",
        ),
        (tree_of(), "<ParamTree net: 0 parameters>"),
        (tree_of(listed("m", (1,), "int64", "buffer")), "<ParamTree net: 0 parameters, 1 buffer, int64>"),
        (tree_of(listed("a", (1,))), "<ParamTree net: 1 parameter, 1 value, float32>"),
        (
            transformer()["model.layers.0"],
            "<ParamTree net 'model.layers.0': 5 parameters, 37.0 k values, float32>",
        ),
    ],
)
def test_one_line(tree, said):
    assert one_line(tree) == repr(tree) == said


def test_columns_align_units_and_wide_characters():
    table = [("name", "bytes"), ("層", "7 B"), ("é", "1.5 kB"), ("x" * 200, "–"), ("e\u0301", "12.0 MB")]
    assert columns(table, ["bytes"]) == [
        "name    bytes",
        "層       7 B",
        "é      1.5 kB",
        "x" * 200 + "        –",
        "e\u0301     12.0 MB",
    ]


def test_hostile_names_stay_on_their_line():
    tree = tree_of(*[listed(name, dtype=name) for name in NAMES], *[listed(f"a{c}b") for c in CONTROLS])
    for text in (lines(show(tree, fold=False)), lines(show(tree)), [one_line(tree)]):
        assert all(line.isprintable() for line in text)
    assert len(lines(show(tree, fold=False))[3:-2]) >= len(tree)


def test_ties():
    two = [listed(name, (10,), memory=name[0]) for name in ("a.x", "b.x", "a.y", "b.y", "a.\x1b")]
    assert results.ties(ties(tree_of(*two))) == [
        "net: 2 tied groups · 80 B instead of 200 B",
        "",
        "1  10 float32 · 40 B once, 120 B expanded",
        "   a.x",
        "   a.y",
        "   a.\\x1b",
        "",
        "2  10 float32 · 40 B once, 80 B expanded",
        "   b.x",
        "   b.y",
    ]
    assert results.ties(ties(tree_of("a"))) == ["net: no ties"]
    odd = tree_of(listed("a", dtype="odd", memory=1), listed("b", dtype="odd", memory=1))
    assert "1  4 odd · of unknown size" in results.ties(ties(odd))


def test_formats():
    head, *rows = results.formats(formats())
    assert head.split() == ["NAME", "SUFFIXES", "READS", "LAZY", "TIES", "WRITES", "AS", "NEEDS"]
    safetensors = next(row for row in rows if row.startswith("safetensors"))
    assert ".safetensors .safetensors.index.json" in safetensors
    assert safetensors.split()[-2:] == ["safetensors", "-"]
    assert next(row for row in rows if row.startswith("Paddle")).split()[-2:] == ["no", "-"]


def test_the_heads_are_what_they_are_named():
    assert COLUMNS == ("name", "shape", "dtype", "params", "bytes", "tied with")
