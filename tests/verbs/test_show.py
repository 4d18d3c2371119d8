"""What a listing says: rows, totals, ties, what is hidden, what cannot be read."""

import re

import pytest

from paratree.core.names import natural
from paratree.verbs.show import plain_values, show
from tests.verbs.trees import checkpoint, listed, transformer, tree_of


def names(listing):
    return [row.name for row in listing.rows]


def test_a_transformer_folds_into_one_row_for_each_part_of_a_block():
    listing = show(transformer())
    assert names(listing) == [
        "model.embed.weight",
        "model.position_ids",
        "model.layers.{0..3}.self_attn.q_proj.weight",
        "model.layers.{0..3}.self_attn.q_proj.bias",
        "model.layers.{0..3}.mlp.up.weight",
        "model.layers.{0..3}.mlp.down.weight",
        "model.layers.{0..3}.norm.weight",
        "lm_head.weight",
    ]
    assert [row.tensors for row in listing.rows] == [1, 1, 4, 4, 4, 4, 4, 1]
    assert listing.rows[2].size == 4 * 64 * 64
    assert listing.rows[2].nbytes == 4 * 64 * 64 * 4
    assert listing.dtypes == (("float32", 22), ("int64", 1))
    assert (listing.listed, listing.of, len(listing.params)) == (23, 23, 23)


def test_the_rows_sum_up_to_the_total():
    tree = transformer()
    for depth in (None, 1, 2, 3, 9):
        for fold in (True, False):
            rows = show(tree, depth=depth, fold=fold).rows
            assert sum(row.size for row in rows if row.kind == "parameter") == tree.size
            assert sum(row.nbytes for row in rows if row.kind == "parameter") == tree.nbytes
            assert sum(row.tensors for row in rows) == len(tree)


def test_every_row_selects_what_it_stands_for():
    tree = transformer()
    for depth in (None, 1, 2, 3):
        listing = show(tree, depth=depth)
        found = [name for row in listing.rows for name in tree.select(row.name)]
        assert sorted(found) == sorted(tree)


def test_a_tie_is_counted_in_its_first_row():
    first, *_, last = show(transformer()).rows
    assert (first.tie, first.tied_with, first.repeats, first.size) == (1, "lm_head.weight", False, 64_000)
    assert (last.tie, last.tied_with, last.repeats, last.size) == (1, "model.embed.weight", True, 0)
    assert show(transformer()).ties == (("model.embed.weight", "lm_head.weight"),)


def test_a_selection_still_says_whom_it_is_tied_with():
    listing = show(transformer(), select="lm_head.*")
    (row,) = listing.rows
    assert (row.tied_with, row.repeats, row.size) == ("model.embed.weight", False, 64_000)
    assert (len(listing.params), listing.of) == (1, 23)
    assert show(transformer(), select="**.norm.*").ties == ()


def test_blocks_that_share_their_weights_fold_and_count_once():
    tree = tree_of(*[listed(f"layers.{i}.w", (10,), memory="one") for i in range(12)])
    (row,) = show(tree).rows
    assert (row.name, row.tensors, row.size, row.tied_with, row.tied_more) == (
        "layers.{0..11}.w",
        12,
        10,
        None,
        0,
    )


def test_a_folded_row_is_tied_with_a_name_outside_of_it():
    params = [listed(f"layers.{i}.w", (10,), memory="one") for i in range(3)]
    more = [listed(name, (10,), memory="one") for name in ("head", "tail")]
    rows = show(tree_of(*params, *more)).rows
    assert [(row.name, row.tied_with, row.tied_more) for row in rows] == [
        ("layers.{0..2}.w", "head", 1),
        ("head", "layers.0.w", 3),
        ("tail", "layers.0.w", 3),
    ]
    rows = show(tree_of(more[0], *params)).rows
    assert [(row.name, row.tied_with, row.size) for row in rows] == [
        ("head", "layers.0.w", 10),
        ("layers.{0..2}.w", "head", 0),
    ]


def test_blocks_tied_differently_stay_apart():
    params = [listed(f"{side}.{i}.w", memory=i) for side in ("encoder", "decoder") for i in range(2)]
    assert names(show(tree_of(*params))) == ["encoder.0.w", "encoder.1.w", "decoder.0.w", "decoder.1.w"]


def test_state_is_hidden_beside_a_model_unless_selected():
    listing = show(checkpoint())
    assert names(listing) == ["model.0.weight", "model.0.bias"]
    assert listing.hidden == ("state", "other")
    assert listing.totals["state"].nbytes == 256
    assert listing.frozen == 1
    assert listing.values == (("epoch", "3"), ("optimizer.param_groups.0.lr", "0.0003"))
    assert names(show(checkpoint(), kind="state")) == [
        "optimizer.state.0.exp_avg",
        "optimizer.state.0.exp_avg_sq",
    ]
    assert names(show(checkpoint(), select=["optimizer.**", "rng"]))[-1] == "rng"
    alone = checkpoint().select(kind=["state", "other"])
    assert (len(show(alone).rows), show(alone).hidden) == (3, ())


def test_depth_collapses_to_subtrees():
    rows = show(transformer(), depth=3).rows
    assert [(row.name, row.tensors, row.blocks, row.shape) for row in rows] == [
        ("model.embed.weight", 1, 1, (1000, 64)),
        ("model.position_ids", 1, 1, (1, 512)),
        ("model.layers.{0..3}.**", 20, 4, None),
        ("lm_head.weight", 1, 1, (1000, 64)),
    ]
    rows = show(transformer(), depth=1).rows
    assert [(row.name, row.dtypes) for row in rows] == [
        ("model.**", ("float32", "int64")),
        ("lm_head.weight", ("float32",)),
    ]
    assert rows[1].repeats


def test_a_tensor_is_not_mixed_with_the_subtree_of_its_name():
    tree = tree_of("a", "a.x", "a.y", "b/x", "b/y")
    assert names(show(tree, depth=1)) == ["a", "a.**", "b/**"]
    assert [list(tree.select(name)) for name in ("a", "a.**", "b/**")] == [
        ["a"],
        ["a.x", "a.y"],
        ["b/x", "b/y"],
    ]


def test_a_subtree_without_parameters_has_the_kind_of_its_tensors():
    tree = tree_of(listed("a.mean", kind="buffer"), listed("a.var", kind="buffer"), "b.w", "b.v")
    first, second = show(tree, depth=1).rows
    assert (first.kind, first.size, second.kind) == ("buffer", 8, "parameter")


def test_sorting():
    tree = tree_of(listed("b.10", (2,)), listed("b.9", (3,)), listed("a", (1,)))
    assert names(show(tree, sort="name", fold=False)) == ["a", "b.9", "b.10"]
    assert names(show(tree, sort="size", fold=False)) == ["b.9", "b.10", "a"]
    assert list(show(tree, sort="size").params) == ["b.9", "b.10", "a"]
    assert list(show(tree, sort="name").params) == ["a", "b.9", "b.10"]
    assert names(show(tree, fold=False)) == ["b.10", "b.9", "a"]


def test_natural_order_of_odd_names():
    ordered = ["", "9", "10", "a", "a.2", "a.2.b", "a.10", "b", "٣"]
    assert sorted(set(ordered), key=natural) == ordered
    assert natural("1" * 5000)


@pytest.mark.parametrize("wrong", [{"sort": "dtype"}, {"depth": 0}, {"depth": -1}])
def test_wrong_options(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        show(transformer(), **wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "model"}, "net: no parameter 'model'; it is a subtree: 'model.**' selects"),
        ({"select": "embed.weight"}, "did you mean 'model.embed.weight'?"),
        ({"select": ["x", "lm_head.weigth"]}, "did you mean 'lm_head.weight'?"),
        ({"select": re.compile("nothing")}, "net: nothing fits the selection"),
        ({"select": lambda param: False}, "net: nothing fits the selection"),
        ({"kind": "state"}, "nothing here is of kind state; there are: parameter (22), buffer (1)"),
        ({"kind": ["state", "other"]}, "nothing here is of kind state, other; there are"),
        ({"select": "nope", "kind": "buffer"}, "no parameter 'nope'"),
    ],
)
def test_a_selection_of_nothing_says_why(options, message):
    listing = show(transformer(), **options)
    assert message in listing.nothing
    assert listing.rows == ()


def test_an_empty_tree_is_no_failed_selection():
    assert show(tree_of()).nothing is None
    assert show(transformer()).nothing is None


def test_sizes_that_are_not_known_yet():
    tree = tree_of(listed("0.w", (None, 4)), listed("0.b", (4,)), listed("1.w", (2, 2), "float3"))
    rows = show(tree).rows
    assert [(row.size, row.nbytes) for row in rows] == [(None, None), (4, 16), (4, None)]
    (lazy, _) = show(tree, depth=1).rows
    assert (lazy.size, lazy.nbytes) == (None, None)
    assert show(tree).totals["parameter"].unknown == 1


def test_what_cannot_be_read_is_grouped_by_reason():
    tree = tree_of(
        "a",
        listed("b", problem="it is an object"),
        listed("c", problem="it is an object"),
        listed("d", problem="lazy"),
    )
    assert show(tree).unreadable == (("it is an object", 2), ("lazy", 1))
    tree = tree_of(*[listed(f"0.{n}", problem=f"0.{n}: run the model: net(X)") for n in "abc"])
    assert show(tree).unreadable == (("run the model: net(X)", 3),)


def test_a_subtree_is_listed_by_its_own_names():
    listing = show(transformer()["model.layers.1"])
    assert listing.prefix == "model.layers.1"
    assert names(listing)[0] == "self_attn.q_proj.weight"


class Odd:
    """A key or a value that is no plain one."""


def test_plain_values_of_the_top_come_first():
    meta = {
        "deep": {"lr": 0.1, "deeper": {"x": 1}},
        "epoch": 3,
        "ok": True,
        "none": None,
        "nan": float("nan"),
    }
    values, more = plain_values(meta)
    assert values == (
        ("epoch", "3"),
        ("ok", "True"),
        ("none", "None"),
        ("nan", "nan"),
        ("deep.lr", "0.1"),
        ("deep.deeper.x", "1"),
    )
    assert more == 0


def test_plain_values_leave_out_what_is_long_or_no_value():
    meta = {
        "text": "x" * 41,
        "list": [1, 2],
        "odd": Odd(),
        "big": 1 << 20_000,
        Odd(): 1,
        1 << 20_000: 2,
        7: 8,
    }
    values, more = plain_values(meta)
    assert values == (("Odd", "1"), ("int", "2"), ("7", "8"))
    assert more == 4
    assert plain_values("x") == ((("", "x"),), 0)


def test_plain_values_of_a_bomb_are_bounded():
    bomb = "x"
    for _ in range(60):
        bomb = {"a": bomb, "b": bomb}
    values, more = plain_values(bomb)
    assert values == ()
    assert more > 0
    assert plain_values({str(i): i for i in range(10**5)})[1] > 900


def test_a_tied_weight_does_not_unfold_its_block():
    tied = [listed(f"{side}.{i}.q", memory=f"q{i}") for side in ("enc", "dec") for i in range(4)]
    plain = [listed(f"{side}.{i}.b") for side in ("enc", "dec") for i in range(4)]
    found = names(show(tree_of(*tied, *plain)))
    assert found == [*(param.name for param in tied), "enc.{0..3}.b", "dec.{0..3}.b"]


def test_sorted_by_name_is_folded_as_sorted():
    tree = tree_of("layer.10.w", *(f"layer.{i}.w" for i in range(10)))
    assert names(show(tree, sort="name")) == ["layer.{0..10}.w"]
