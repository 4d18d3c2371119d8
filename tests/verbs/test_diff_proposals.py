"""What diff proposes so that more names match: prefixes, frameworks' words, one prefix for another."""

import shlex
from itertools import permutations

import numpy as np
import pytest

import paratree as pt
from paratree import cli
from paratree.render import diff as render
from tests import weights
from tests.verbs.held import held, tree_of, write

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def helped(a, b):
    """Return a proposal, when it has been seen to do what it says."""
    found = pt.diff(a, b)
    made = found.proposal
    mended = pt.diff(a, b, strip=made.prefixes, rename=made.rename)
    apart = sum(row.status in ("added", "removed") for row in found)
    assert apart - sum(row.status in ("added", "removed") for row in mended) == 2 * made.names
    return made, mended


def model(norm="weight", kernel="weight", bias="bias", embed="weight", stats=("running_mean", "running_var")):
    """Return a network of two blocks in the words of a framework."""
    turn = (lambda w: w.T) if kernel == "kernel" else lambda w: w
    rng = np.random.default_rng(0)
    arrays = {f"embed.{embed}": rng.random((7, 4), np.float32)}
    for i in range(2):
        arrays[f"block.{i}.dense.{kernel}"] = turn(rng.random((4, 4), np.float32))
        arrays[f"block.{i}.dense.bias"] = rng.random(4, np.float32)
        arrays[f"block.{i}.up.{kernel}"] = turn(rng.random((6, 4), np.float32))
        for name in (norm, bias, *stats):
            arrays[f"block.{i}.norm.{name}"] = rng.random(4, np.float32)
    return arrays


TORCH = {}
KERAS = {
    "norm": "gamma", "kernel": "kernel", "bias": "beta", "embed": "embeddings",
    "stats": ("moving_mean", "moving_variance"),
}  # fmt: skip
FLAX = {"norm": "scale", "kernel": "kernel", "embed": "embedding", "stats": ("mean", "var")}


@pytest.mark.parametrize(("first", "second"), [*permutations([TORCH, KERAS, FLAX], 2)])
@pytest.mark.parametrize(("mine", "yours"), [("", ""), ("", "net."), ("model.", ""), ("model.", "net.")])
def test_the_words_of_a_framework_are_renamed(first, second, mine, yours):
    a = tree_of(**{mine + name: values for name, values in model(**first).items()})
    b = tree_of(**{yours + name: values for name, values in model(**second).items()})
    made, mended = helped(a, b)
    assert mended.same, made
    assert len(made.prefixes) + len(made.rename) <= 8
    assert len(made.prefixes) < 2


def test_one_rule_for_all_kernels():
    a = tree_of(**{f"{i}.kernel": normal(3, 4) for i in range(9)}, **{"0.bias": normal(4)})
    b = tree_of(**{f"{i}.weight": normal(4, 3) for i in range(9)}, **{"0.bias": normal(4)})
    made, _ = helped(a, b)
    assert (made.names, made.prefixes, made.rename) == (9, (), {"**.kernel": "**.weight"})
    assert render.lines(pt.diff(a, b))[-1] == "9 more names match renamed: --map '**.kernel=**.weight'"
    python = render.lines(pt.diff(a, b), hints=False)[-1]
    assert python == "9 more names match renamed: rename={'**.kernel': '**.weight'}"


def test_a_rule_leaves_names_alone_that_match():
    a = tree_of(**{"a.kernel": normal(4, 4), "x.kernel": normal(2), "b.kernel": normal(4, 4)})
    b = tree_of(**{"a.weight": normal(4, 4), "x.kernel": normal(2), "b.weight": normal(4, 4)})
    made, mended = helped(a, b)
    assert made.rename == {"a.kernel": "a.weight", "b.kernel": "b.weight"}
    assert {row.name: row.other for row in mended}["x.kernel"] == "x.kernel"


def test_words_without_a_layer():
    made, _ = helped(tree_of(kernel=normal(3, 4)), tree_of(weight=normal(4, 3)))
    assert made.rename == {"kernel": "weight"}


def test_names_with_slashes():
    a, b = {"enc/0/kernel": normal(3, 4), "enc/1/kernel": normal(3, 4)}, {}
    for name, values in a.items():
        b[name.replace("/", ".").replace("kernel", "weight")] = values.T
    made, mended = helped(tree_of(**a), tree_of(**b))
    assert (made.rename, mended.same) == ({"**/kernel": "**/weight"}, True)


@pytest.mark.parametrize("shape", [(3, 5), (4,), (4, 3, 1)])
def test_shapes_that_do_not_fit_are_no_counterpart(shape):
    assert (
        pt.diff(tree_of(**{"a.kernel": normal(3, 4)}), tree_of(**{"a.weight": normal(*shape)})).proposal
        is None
    )


def test_layouts_that_are_known_decide_what_fits():
    a = tree_of(held("a.kernel", normal(5, 3, 4), layout="length in out"))
    assert pt.diff(a, tree_of(held("a.weight", normal(4, 3, 5), layout="out in length"))).proposal is not None
    assert pt.diff(a, tree_of(held("a.weight", normal(3, 4, 5), layout="out in length"))).proposal is None


def test_too_many_rules_are_no_line_to_read():
    one, other = ({f"{part}.{i}.scale": normal(3) for i in range(20)} for part in "ab")
    a = tree_of(**one, **other)
    b = tree_of(**{name.replace("scale", "weight"): values for name, values in one.items()}, **other)
    assert pt.diff(a, b).proposal is None


def test_one_prefix_for_another_is_one_rule():
    names = ("layers.0.w", "layers.1.w", "layers.1.b")
    a = tree_of(**{f"model.{name}": normal(3) for name in names}, head=normal(2))
    b = tree_of(**{f"encoder.{name}": normal(3) for name in names}, head=normal(2))
    made, _ = helped(a, b)
    assert (made.prefixes, made.rename, made.names) == ((), {"model.**": "encoder.**"}, 3)


def test_one_prefix_for_another_where_some_names_match():
    a = tree_of(**{"m.body.w": normal(3), "m.body.b": normal(3), "m.head.w": normal(2)})
    b = tree_of(**{"n.body.w": normal(3), "n.body.b": normal(3), "m.head.w": normal(2)})
    made, _ = helped(a, b)
    assert (made.prefixes, made.rename, made.names) == ((), {"m.body.**": "n.body.**"}, 2)


def test_a_proposal_adds_to_the_options_that_were_given():
    a = tree_of(**{"m.a.kernel": normal(3, 4), "m.b": normal(2)})
    b = tree_of(**{"a.weight": normal(4, 3), "c": normal(2)})
    found = pt.diff(a, b, strip="m.", rename={"m.b": "c"})
    assert found.proposal.prefixes == ("m.",)
    assert found.proposal.rename == {"m.b": "c", "**.kernel": "**.weight"}
    assert pt.diff(a, b, strip=found.proposal.prefixes, rename=found.proposal.rename).proposal is None
    assert pt.diff(a, b, strip="m.", rename=lambda name: name.replace("m.b", "c")).proposal is None


def test_following_proposals_ends_and_what_is_left_is_said():
    a = tree_of(**{"x.a.w": normal(3), "x.a.b": normal(2), "y.c": normal(4), "gone": normal(7)})
    b = tree_of(**{"p.a.w": normal(3), "p.a.b": normal(2), "q.c": normal(4), "new": normal(8)})
    found = pt.diff(a, b)
    assert (found.proposal.names, found.proposal.left) == (2, (2, 2))
    line = "2 more names match renamed (2 of the first and 2 of the second still match nothing): "
    assert any(text.startswith(line) for text in render.lines(found))
    steps = 0
    while (made := found.proposal) is not None:
        found, steps = pt.diff(a, b, strip=made.prefixes, rename=made.rename), steps + 1
    assert steps == 2
    assert [row.name for row in found if row.other in (None, row.name)] == ["gone", "new"]


@pytest.mark.parametrize("prefix", ["", "net.", "net/"])
@pytest.mark.parametrize("numbers", [(1, 3, 4, 5), (2, 5, 6, 9)])
def test_layers_that_count_otherwise_are_renumbered(prefix, numbers, tmp_path, capsys):
    """A layer more in front: 3 and 4 are in both, and are others in each."""
    layers = [(30, 20), (30, 30), (30,), (5, 30)]
    end = "/" if "/" in prefix else "."
    one = {f"{prefix}{i}{end}weight": normal(*s) for i, s in zip((0, 2, 3, 4), layers, strict=True)}
    one |= {f"{prefix}{i}{end}bias": normal(s[0]) for i, s in zip((0, 2, 3, 4), layers, strict=True)}
    to = dict(zip("0234", map(str, numbers), strict=True))
    other = {name.replace(n := name[len(prefix)], to[n]): values for name, values in one.items()}
    found = pt.diff(tree_of(**one), tree_of(**other))
    rules = {f"{prefix}{i}{end}**": f"{prefix}{j}{end}**" for i, j in to.items()}
    assert dict(found.proposal.rename) == rules
    assert pt.diff(tree_of(**one), tree_of(**other), rename=rules).same
    paths = [str(write(tmp_path / f"{n}.safetensors", v)) for n, v in (("a", one), ("b", other))]
    assert cli.main(["diff", *paths]) in (1, 2)
    line = capsys.readouterr().out.splitlines()[-1]
    assert cli.main(["diff", *paths, *shlex.split(line.partition(": ")[2])]) == 0


def test_layers_of_other_shapes_or_another_number_are_not_renumbered():
    a = {f"{i}.w": normal(i + 2) for i in range(4)}
    for b in (
        {f"{i + 1}.w": normal(9 - i) for i in range(4)},
        {f"{i + 1}.w": normal(i + 2) for i in range(5)},
    ):
        made = pt.diff(tree_of(**a), tree_of(**b)).proposal
        assert made is None or len(made.rename) < 4


def test_no_proposal_that_makes_two_names_one():
    a = tree_of(**{"m.a.w": normal(3), "a.w": normal(2)})
    assert pt.diff(a, tree_of(**{"n.a.w": normal(3), "b.a.w": normal(2)})).proposal is not None
    assert pt.diff(a, tree_of(**{"n.x.w": normal(4)})).proposal is None


@pytest.mark.parametrize("prefixes", [("module.", ""), ("a b/", "x'y/")])
def test_the_line_of_the_command_can_be_pasted(tmp_path, capsys, prefixes):
    first, second = prefixes
    arrays = {"0.kernel": normal(3, 4), "1.kernel": normal(3, 4), "1.bias": normal(4)}
    one = write(tmp_path / "a.safetensors", {first + name: values for name, values in arrays.items()})
    turned = {second + n.replace("kernel", "weight"): v.T for n, v in arrays.items()}
    other = write(tmp_path / "b.safetensors", turned)
    assert cli.main(["diff", str(one), str(other)]) == 2
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("3 more names match")
    assert cli.main(["diff", str(one), str(other), *shlex.split(line.partition(": ")[2])]) == 0


def test_layers_that_keras_counts_otherwise_are_proposed_in_their_order():
    first = {"dense_1.kernel": np.ones((3, 3)), "dense_2.kernel": np.zeros((3, 3))}
    second = {"dense.kernel": np.ones((3, 3)), "dense_1.kernel": np.zeros((3, 3))}
    a, b = tree_of(**first), tree_of(format="Keras on JAX", **second)
    proposal = pt.diff(a, b).proposal
    assert proposal.rename == {"dense_1.**": "dense.**", "dense_2.**": "dense_1.**"}
    assert pt.diff(a, b, rename=proposal.rename).same
    assert "dense_1.**" not in pt.diff(a, tree_of(**second)).proposal.rename  # of no Keras
    second["dense_1.kernel"] = np.zeros((4, 4))
    other = pt.diff(a, tree_of(format="Keras on JAX", **second)).proposal
    assert "dense_1.**" not in other.rename  # they do not fit in order


def test_names_that_are_not_compared_do_not_count():
    ours = {f"then__{name}": normal(3, 2) for name in ("encoder.0.w", "encoder.1.w", "decoder.w")}
    constants = [held(f"c.{i}", normal(1), "other") for i in range(9)]
    theirs = {name.removeprefix("then__"): w for name, w in ours.items()}
    others = [held(f"{i}", normal(1), "other") for i in range(9)]
    a, b = tree_of(*constants, **ours), tree_of(*others, **theirs)
    for first, second in ((a, b), (b, a)):
        made, mended = helped(first, second)
        assert (made.prefixes, made.rename, made.names, made.left) == (("then__",), {}, 3, (0, 0))
        assert mended.same
    only = tree_of(*constants, w=normal(4)), tree_of(*others, v=normal(5))
    assert pt.diff(*only).proposal is None
    assert pt.diff(*only, kind="other").proposal.names == 9


def test_a_proposal_is_for_what_is_selected():
    names = ("l0.w", "l1.w", "l2.w")
    a = tree_of(**{f"module.{name}": normal(3, 2) for name in names})
    b = tree_of(**{name: normal(3, 2) for name in names})
    assert pt.diff(a, b, select="l0.**").proposal.names == 1
    assert pt.diff(a, b, select="**.l0.**").proposal.names == 1
    assert pt.diff(a, b).proposal.names == 3


def test_a_proposal_of_two_exports_of_one_network():
    a, b = (weights.path(name) for name in ("silero-vad.onnx", "silero-vad-half.onnx"))
    made, mended = helped(a, b)
    assert (made.prefixes, made.names) == (("If_0_then_branch__Inline_0__",), 15)
    assert sum(row.other is not None and row.name != row.other for row in mended) == 15
