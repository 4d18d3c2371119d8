"""What each use of a parameter adds to its gradient, told apart in the jaxpr of the loss."""

from functools import partial

import numpy as np
import pytest

import paratree as pt

jax = pytest.importorskip("jax", reason="could not import jax; these tests need it")

jnp = jax.numpy
KEY = jax.random.key(0)
W = jax.random.normal(KEY, (4, 4))
X = jax.random.normal(jax.random.key(1), (3, 4))


def uses_of(loss, *batch, params=None, name="w"):
    """Return by what the parameter is used, after a check against JAX's own gradient."""
    params = {"w": W, "b": jnp.ones(4)} if params is None else params
    found = pt.gradients(params, loss, *batch, per_use=True)
    theirs = jax.grad(loss)(params, *batch)
    for key, gradient in theirs.items():
        size = np.abs(np.asarray(gradient)).max()
        total = sum((use.gradient for use in found.uses[key]), np.zeros_like(gradient))
        np.testing.assert_array_equal(found[key], gradient)
        np.testing.assert_allclose(total, gradient, rtol=0, atol=1e-6 * size)
    return [use.by for use in found.uses[name]]


def test_each_operand_is_a_use():
    assert uses_of(lambda p, x: (x @ p["w"] @ p["w"]).sum(), X) == ["dot_general", "dot_general"]
    assert uses_of(lambda p: (p["w"] * p["w"]).sum()) == ["mul", "mul"]
    assert uses_of(lambda p, x: (x + p["b"]).sum(), X) == [], "the loss does not use w"


def test_what_each_use_adds_is_the_gradient_by_that_use_alone():
    def loss(p, x):
        return jnp.tanh(jnp.tanh(x @ p["w"]) @ p["w"]).sum()

    found = pt.gradients({"w": W}, loss, X, per_use=True)
    first, second = jax.grad(lambda v, w: jnp.tanh(jnp.tanh(X @ v) @ w).sum(), argnums=(0, 1))(W, W)
    np.testing.assert_allclose(found.uses["w"][0].gradient, first, rtol=1e-6)
    np.testing.assert_allclose(found.uses["w"][1].gradient, second, rtol=1e-6)
    assert (first != second).any(), "the comparison means something"


def test_uses_inside_a_jitted_function_are_told_apart():
    @jax.jit
    def twice(w, x):
        return jax.jit(lambda w, x: x @ w)(w, x) @ w

    assert uses_of(lambda p, x: twice(p["w"], x).sum(), X) == ["dot_general", "dot_general"]


def test_uses_inside_a_checkpoint_are_told_apart():
    layer = jax.checkpoint(lambda w, x: jnp.sin(x @ w) @ w)
    assert uses_of(lambda p, x: layer(p["w"], x).sum(), X) == ["dot_general", "dot_general"]


def test_a_jitted_loss_and_a_partial_are_looked_into():
    loss = jax.jit(partial(lambda scale, p, x: scale * (x @ p["w"]).sum(), 2.0))
    assert uses_of(loss, X) == ["dot_general"]


def test_a_transpose_a_cast_and_a_broadcast_are_no_uses_of_their_own():
    assert uses_of(lambda p, x: (x @ p["w"].T).sum(), X) == ["dot_general"]
    assert uses_of(lambda p, x: (x.astype("bfloat16") @ p["w"].astype("bfloat16")).sum(), X) == [
        "dot_general"
    ]
    assert uses_of(lambda p, x: (x * p["b"][None, :]).sum(), X, name="b") == ["mul"]


def test_one_transpose_used_twice_is_two_uses():
    def loss(p, x):
        turned = p["w"].T
        return (x @ turned @ turned).sum()

    assert uses_of(loss, X) == ["dot_general", "dot_general"]


def test_a_parameter_that_a_jitted_function_hands_through_keeps_its_uses():
    hand_through = jax.jit(lambda w, x: (w, x + 1, w.T))

    def loss(p, x):
        w, x, turned = hand_through(p["w"], x)
        return (x @ w @ turned).sum()

    assert uses_of(loss, X) == ["dot_general", "dot_general"]


def test_a_loop_takes_its_parameter_as_one_use():
    def loss(p, x):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ p["w"]), None), x, None, length=3)[0].sum()

    assert uses_of(loss, X) == ["scan"]
    assert uses_of(
        lambda p, x: jax.lax.cond(x.sum() > 0, lambda w: (x @ w).sum(), lambda w: w.sum(), p["w"]), X
    ) == ["cond"]


def test_a_function_with_a_derivative_of_its_own_is_one_use_and_keeps_that():
    @jax.custom_vjp
    def clipped(w):
        return w * w

    clipped.defvjp(lambda w: (w * w, w), lambda w, g: (jnp.clip(2 * w * g, -0.1, 0.1),))
    assert uses_of(lambda p: clipped(p["w"]).sum()) == ["custom_vjp_call"]
    found = pt.gradients({"w": W}, lambda p: clipped(p["w"]).sum(), per_use=True)
    assert np.abs(found["w"]).max() == np.float32(0.1)
    assert uses_of(lambda p: jax.nn.relu(p["w"]).sum()) == ["custom_jvp_call"]


def test_vmap_and_einsum():
    assert uses_of(lambda p, x: jax.vmap(lambda row: row @ p["w"])(x).sum(), X) == ["dot_general"]
    assert uses_of(lambda p, x: jnp.einsum("bi,ij,jk->bk", x, p["w"], p["w"]).sum(), X) == ["dot_general"] * 2


def test_a_look_up_is_a_gather():
    assert (
        uses_of(lambda p, i: p["w"][i].sum() + jnp.take(p["w"], i, 0).sum(), jnp.array([0, 2]))
        == ["gather"] * 2
    )


def test_a_parameter_that_is_the_loss_is_read():
    found = pt.gradients({"s": jnp.array(2.0)}, lambda p: p["s"], per_use=True)
    assert (found.loss, found["s"], [(u.by, u.gradient) for u in found.uses["s"]]) == (
        2.0,
        1.0,
        [("read", 1.0)],
    )
    found = pt.gradients({"s": jnp.ones((1, 1))}, lambda p: p["s"].reshape(()), per_use=True)
    assert found["s"].tolist() == [[1.0]]


def test_a_parameter_that_is_not_used_has_zeros():
    found = pt.gradients({"w": W, "unused": jnp.ones(2)}, lambda p: p["w"].sum(), per_use=True)
    assert (found["unused"].tolist(), found.uses["unused"]) == ([0.0, 0.0], ())
    constant = pt.gradients({"w": W}, lambda p: 1.5, per_use=True)
    assert (constant.loss, constant["w"].any()) == (1.5, False)


def test_names_of_one_array_have_the_sum_of_their_uses():
    def loss(p, x):
        return (jnp.tanh(x @ p["a"]) @ p["b"]).sum()

    found = pt.gradients({"a": W, "b": W}, loss, X, per_use=True)
    apart = jax.grad(loss)({"a": W, "b": W + 0}, X)
    assert found["a"] is found["b"]
    np.testing.assert_allclose(found["a"], apart["a"] + apart["b"], rtol=1e-6)
    np.testing.assert_allclose(found.uses["b"][0].gradient, apart["a"], rtol=1e-6)
    np.testing.assert_allclose(found.uses["b"][1].gradient, apart["b"], rtol=1e-6)


def test_integers_are_handed_to_the_loss_as_they_are_and_have_no_gradient():
    found = pt.gradients({"w": W, "n": jnp.array(3), "k": 2}, lambda p: p["w"].sum() * p["n"] * p["k"])
    assert [*found] == ["w"]
    assert (found["w"] == 6).all()


def test_a_loss_that_looks_at_values_has_gradients_and_no_uses():
    def loss(p):
        total = p["w"].sum()
        return total if total > 0 else -total

    assert np.abs(pt.gradients({"w": W}, loss)["w"]).max() == 1
    with pytest.raises(pt.UnsupportedError, match=r"the loss asks for values .* leave out per_use=True"):
        pt.gradients({"w": W}, loss, per_use=True)


def test_complex_parameters_have_the_gradient_of_jax():
    params = {"z": jnp.array([1 + 2j, 3 - 1j])}
    loss = lambda p: (jnp.abs(p["z"] * p["z"]) ** 2).sum()  # noqa: E731
    found = pt.gradients(params, loss, per_use=True)
    np.testing.assert_array_equal(found["z"], jax.grad(loss)(params)["z"])
    np.testing.assert_allclose(sum(use.gradient for use in found.uses["z"]), found["z"], rtol=1e-5)


def test_random_numbers_are_the_same_for_the_sum_and_for_the_uses():
    def loss(p, key):
        kept = jax.random.bernoulli(key, 0.5, (3, 4))
        return jnp.where(kept, X, 0) @ p["w"] @ p["b"]

    assert uses_of(lambda p, key: loss(p, key).sum(), KEY) == ["dot_general"]


def test_effects_in_the_loss_do_not_stand_in_the_way():
    def loss(p, x):
        jax.debug.callback(lambda total: None, p["w"].sum())
        return (x @ p["w"]).sum()

    assert "dot_general" in uses_of(loss, X)


def test_the_loss_is_called_with_the_whole_source_in_its_own_type():
    seen = []

    def loss(source):
        seen.append((type(source), [*source], type(source["layers"])))
        return source["layers"][0].sum()

    pt.gradients({"layers": (W,), "a": jnp.array(1)}, loss, per_use=True)
    assert set(map(str, seen)) == {str((dict, ["layers", "a"], tuple))}
