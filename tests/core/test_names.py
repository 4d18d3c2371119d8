"""What a name says."""

import pytest

from paratree.core.names import join, kind_of, role_of, split


def test_both_separators_split_and_the_dot_joins():
    assert split("encoder/0.weight") == ["encoder", "0", "weight"]
    assert join(("encoder", "0", "weight")) == "encoder.0.weight"


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("dense.weight", "weight"),
        ("dense.kernel", "weight"),
        ("dense/kernel", "weight"),
        ("embed.embedding", "weight"),
        ("linear.w", "weight"),
        ("lstm.weight_ih_l0_reverse", "weight"),
        ("lstm.weight_hh_l1", "recurrent_weight"),
        ("lstm.bias_hh_l1", "bias"),
        ("gru.recurrent_kernel", "recurrent_weight"),
        ("norm.beta", "bias"),
        ("norm.gamma", "scale"),
        ("LayerNorm.GAMMA", "scale"),
        ("norm.moving_variance", "running_var"),
        ("norm.num_batches_tracked", "counter"),
        ("cls_token", None),
        ("weights_of_all", None),
        ("", None),
    ],
)
def test_the_role_of_a_name(name, role):
    assert role_of(name) == role


@pytest.mark.parametrize(
    ("name", "dtype", "kind"),
    [
        ("dense.weight", "float32", "parameter"),
        ("dense.weight", "complex64", "parameter"),
        ("dense.weight", "bfloat16", "parameter"),
        ("dense.qweight", "int32", "parameter"),
        ("dense.weight", "uint8", "parameter"),
        ("norm.running_mean", "float32", "buffer"),
        ("norm.num_batches_tracked", "int64", "buffer"),
        ("embeddings.position_ids", "int64", "buffer"),
        ("attn.mask", "bool", "buffer"),
        ("names", "object", "parameter"),
    ],
)
def test_the_kind_of_a_tensor_that_does_not_say_it(name, dtype, kind):
    assert kind_of(name, dtype) == kind
