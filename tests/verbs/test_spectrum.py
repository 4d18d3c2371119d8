"""Singular values: NumPy's are the truth, and matrices of known rank and tail."""

import json
from math import inf, sqrt
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import paratree as pt
from paratree.core.dtypes import numpy_dtype
from paratree.core.param import Param
from paratree.render import spectrum as render
from paratree.verbs._power_law import power_law
from tests.verbs.held import tree_of

FINITE = st.floats(-1e6, 1e6, width=32)


class Held:
    """An array in memory."""

    problem = storage = None

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype.name

    def read(self, index=...):
        return self.values[index]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def with_singular_values(values, rows, columns):
    left = np.linalg.qr(normal(rows, len(values)))[0]
    return left * values @ np.linalg.qr(normal(columns, len(values), seed=1))[0].T


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=9), elements=FINITE)
)
def test_every_matrix_has_the_singular_values_of_numpy(array):
    matrix = array.reshape(array.shape[0], int(np.prod(array.shape[1:]))).astype(np.float64)
    found = pt.spectrum(array)
    assert found.is_exact
    assert (found.rows, found.columns) == matrix.shape
    exact = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(found.values, exact, rtol=1e-9, atol=1e-12 * np.linalg.norm(matrix))
    assert found.frobenius == pytest.approx(float(np.linalg.norm(matrix)))
    if found.spectral:
        assert 1 - 1e-9 <= found.stable_rank <= min(matrix.shape) + 1e-9
        assert 1 - 1e-9 <= found.effective_rank <= min(matrix.shape) + 1e-9


def test_figures_of_a_known_spectrum():
    found = pt.spectrum(with_singular_values(np.array([4.0, 2.0, 1.0, 1.0]), 6, 5))
    assert found.values.tolist() == pytest.approx([4, 2, 1, 1, 0], abs=1e-12)
    assert found.stable_rank == pytest.approx(22 / 16)
    assert (found.rank, found.condition) == (4, inf)
    assert found.effective_rank == pytest.approx(2**1.75)  # shares 1/2, 1/4, 1/8, 1/8


def test_an_orthogonal_matrix_has_full_rank_by_every_measure():
    found = pt.spectrum(np.linalg.qr(normal(30, 30))[0])
    assert found.stable_rank == pytest.approx(30)
    assert found.effective_rank == pytest.approx(30)
    assert (found.rank, found.condition) == (30, pytest.approx(1))


@pytest.mark.parametrize(
    ("array", "values", "condition"),
    [
        (np.zeros((3, 4)), [0, 0, 0], inf),
        (np.zeros((0, 4)), [], None),
        (np.zeros((4, 0)), [], None),
        (np.zeros(0), [], None),
        (np.zeros(()), [0], inf),
        (3.0, [3], 1),
        ([3.0, 4.0], [5], 1),
        ([[3.0], [4.0]], [5], 1),
        ([[3.0, 4.0]], [5], 1),
        ([[1e300, 0], [0, 1e300]], [1e300, 1e300], 1),
        ([[1e-320, 0], [0, 1e-320]], [1e-320, 1e-320], 1),
        ([[3j, 0], [0, 4]], [4, 3], pytest.approx(4 / 3)),
        (np.array([[True, False], [False, True]]), [1, 1], 1),
        (np.eye(2, dtype=ml_dtypes.bfloat16), [1, 1], 1),
        (np.eye(2, dtype=ml_dtypes.float8_e4m3fn), [1, 1], 1),
        (np.eye(2, dtype=ml_dtypes.int4), [1, 1], 1),
    ],
)
def test_what_is_no_usual_matrix(array, values, condition):
    found = pt.spectrum(array)
    assert found.values.tolist() == pytest.approx(values, rel=1e-3)
    assert found.condition == condition
    if not any(values):
        assert (found.stable_rank, found.effective_rank, found.rank, found.tail) == (0, 0, 0, None)


@pytest.mark.parametrize(
    ("layout", "rows", "row_axis"),
    [
        ("height width in out", 7, "out"),
        ("in out height width", 3, "out"),
        ("vocabulary dimension", 2, "first"),
        (None, 2, "first"),
    ],
)
def test_the_rows_are_the_outputs_where_the_layout_tells(layout, rows, row_axis):
    values = normal(2, 3, 5, 7)
    found = pt.spectrum(Param("conv.kernel", Held(values), layout=layout))
    axis = (layout or "").split().index("out") if row_axis == "out" else 0
    matrix = np.moveaxis(values, axis, 0).reshape(rows, -1)
    assert (found.rows, found.columns, found.row_axis) == (*matrix.shape, row_axis)
    np.testing.assert_allclose(found.values, np.linalg.svd(matrix, compute_uv=False))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([[1, 2, np.nan], [np.inf, 0, 0]], "the array: 2 of 6 values are NaN or infinite, the first at "
         "[0, 2]; a spectrum is of finite values"),
        ([[1e308, 1e308], [1e308, 1e308]], "the array: its norm is beyond float64; divide the values"),
        (["a"], "the array: str32 is not a dtype of numbers"),
        ([None], "the array: object is not a dtype of numbers"),
    ],
)  # fmt: skip
def test_what_has_no_spectrum(array, message):
    with pytest.raises(pt.MismatchError) as error:
        pt.spectrum(array)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("m.pt", "'m.pt' is a path; give one parameter of it: paratree.open('m.pt')[name]"),
        (Path("a\x1b"), r"'a\x1b' is a path; give one parameter of it"),
        (None, "give a parameter or an array of numbers, not an object of type NoneType"),
        ({"w": 1.0}, "give a parameter or an array of numbers, not an object of type dict"),
        (tree_of(w=normal(2, 2), b=normal(2)), "net: a spectrum is of one parameter, and there are 2 here; "
         "give one, as paratree.open(source)['w']"),
        (tree_of(), "net: a spectrum is of one parameter, and there are 0 here"),
    ],
)  # fmt: skip
def test_what_is_no_parameter(given, message):
    with pytest.raises(pt.MismatchError) as error:
        pt.spectrum(given)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Creating an ndarray from ragged")  # NumPy before 1.24
def test_rows_of_several_lengths():
    with pytest.raises(pt.MismatchError, match=r"array of numbers, not .* list|object is not a dtype of"):
        pt.spectrum([[1, 2], [3]])


@pytest.mark.parametrize("option", ["exact_below", "seed"])
@pytest.mark.parametrize("value", [-1, 1.5, "x", True, None])
def test_options_without_meaning(option, value):
    with pytest.raises(pt.MismatchError, match=f"{option} is a whole number, at least 0, not {value!r}"):
        pt.spectrum(np.eye(2), **{option: value})


def test_a_tree_of_one_parameter_is_that():
    assert pt.spectrum(tree_of(w=np.diag([2.0, 1.0]))).values.tolist() == [2, 1]


def _is_that_of(given, expected):
    found, exact = pt.spectrum(given), np.linalg.svd(expected, compute_uv=False)
    np.testing.assert_allclose(found.values, exact, rtol=1e-6)
    assert found.name == ""


def test_tensors_of_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    for dtype in (torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.complex64):
        _is_that_of(torch.diag(torch.tensor([4.0, 2.0])).to(dtype), np.diag([4.0, 2.0]))
    for matrix in (torch.nn.Parameter(torch.eye(3, 4)), torch.eye(3, 4).bfloat16().requires_grad_()):
        _is_that_of(matrix, np.eye(3, 4))
    _is_that_of(torch.ones(4, requires_grad=True), np.ones((4, 1)))
    _is_that_of(torch.tensor(2.0), np.full((1, 1), 2.0))
    net = torch.nn.Linear(3, 2)
    _is_that_of(net.weight, net.weight.detach().numpy())
    with pytest.raises(pt.MismatchError, match="Linear: a spectrum is of one parameter, and there are 2"):
        pt.spectrum(net)
    with pytest.raises(pt.MismatchError, match="not an object of type list"):
        pt.spectrum(list(net.parameters()))
    for tensor in (torch.empty(2, 2, device="meta"), torch.eye(2).to_sparse()):
        with pytest.raises(pt.UnreadableError, match="parameter: "):
            pt.spectrum(tensor)


def test_arrays_of_jax_and_flax():
    jax = pytest.importorskip("jax", reason="jax is not installed here")
    for dtype in ("float32", "bfloat16"):
        _is_that_of(jax.numpy.eye(3, 4, dtype=dtype), np.eye(3, 4))
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed here")
    kernel = nnx.Linear(3, 4, rngs=nnx.Rngs(0)).kernel
    _is_that_of(kernel, np.asarray(kernel[...]))


def test_arrays_of_tensorflow_and_keras():
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed here")
    for tensor in (tf.eye(3), tf.eye(3, dtype=tf.bfloat16), tf.Variable(tf.eye(3))):
        _is_that_of(tensor, np.eye(3))
    keras = pytest.importorskip("keras", reason="keras is not installed here")
    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    _is_that_of(layer.kernel, layer.get_weights()[0])


def test_arrays_of_mxnet():
    mx = pytest.importorskip("tests.mxnet_numpy", reason="mxnet is not installed here").mxnet
    for array in (mx.nd.eye(3), mx.nd.eye(3).astype("float16"), mx.np.eye(3)):
        _is_that_of(array, np.eye(3))
    layer = mx.gluon.nn.Dense(3)
    with pytest.raises(pt.UnreadableError, match="not initialised yet"):
        pt.spectrum(layer.weight)
    layer.initialize()
    layer(mx.nd.ones((1, 4)))
    _is_that_of(layer.weight, pt.open(layer)["weight"].value)


@settings(max_examples=8)
@given(st.integers(0, 99), st.sampled_from([(300, 200), (200, 300)]), st.booleans())
def test_what_is_approximated_is_within_its_errors(seed, shape, is_complex):
    matrix = normal(*shape, seed=seed) * np.geomspace(1, 1e-3, shape[1])
    if is_complex:
        matrix = matrix + 1j * normal(*shape, seed=seed + 1) * np.geomspace(1, 1e-3, shape[1])
    found, exact = pt.spectrum(matrix, exact_below=0, seed=seed), pt.spectrum(matrix)
    assert not found.is_exact
    assert len(found.values) == len(found.errors) == 128
    nearest = np.abs(exact.values[None, :] - found.values[:, None]).min(axis=1)
    assert (nearest <= found.errors + 1e-12).all()
    assert (np.abs(found.values - exact.values[:128]) <= found.errors + 1e-12).all()
    assert found.stable_rank == pytest.approx(exact.stable_rank, rel=1e-6)
    assert (found.effective_rank, found.rank, found.condition) == (None, None, None)


def test_the_seed_decides():
    matrix = normal(200, 200)
    first, again, other = (pt.spectrum(matrix, exact_below=0, seed=seed) for seed in (1, 1, 2))
    assert (first.values == again.values).all()
    assert (first.values != other.values).any()


def test_exact_below_counts_values():
    matrix = normal(150, 150)
    assert pt.spectrum(matrix, exact_below=22501).is_exact
    assert not pt.spectrum(matrix, exact_below=22500).is_exact
    assert pt.spectrum(normal(144, 300), exact_below=0).is_exact  # the method would need all of its columns


def test_a_matrix_is_multiplied_in_blocks(monkeypatch):
    matrix = normal(200, 300)
    whole = pt.spectrum(matrix, exact_below=0)
    monkeypatch.setattr("paratree.verbs.spectrum._BLOCK", 7 * 300)
    parts = pt.spectrum(matrix, exact_below=0)
    np.testing.assert_allclose(parts.values, whole.values, rtol=1e-9)
    assert parts.frobenius == pytest.approx(whole.frobenius)


@pytest.mark.parametrize("alpha", [2.0, 2.5, 3.5, 6.0])
def test_a_sampled_power_law_gives_its_exponent_back(alpha):
    uniform = np.random.default_rng(7).random(5000)
    law = power_law(np.log(4.0) - np.log1p(-uniform) / (alpha - 1))
    assert abs(law.alpha - alpha) < 4 * law.error
    assert law.error < 0.1 * alpha
    assert law.distance < 0.02
    assert 4.0 <= law.x_min < 10


def test_the_tail_begins_where_the_law_does():
    uniform = np.random.default_rng(3).random(4000)
    body, tail = np.linspace(0.01, 1, 4000), (1 - uniform) ** (-1 / 1.5)  # alpha 2.5 from 1 on
    law = power_law(np.log(np.concatenate([body, tail])))
    assert law.x_min == pytest.approx(1, rel=0.3)
    assert law.alpha == pytest.approx(2.5, abs=0.1)


def test_the_tail_of_a_spectrum_is_of_its_eigenvalues():
    eigenvalues = (1 - (np.arange(300) + 0.5) / 300) ** (-1 / 2.0)  # alpha 3
    found = pt.spectrum(np.diag(np.sqrt(eigenvalues)))
    assert found.tail.alpha == pytest.approx(3, rel=0.05)
    assert pt.spectrum(np.eye(20)).tail is None
    assert pt.spectrum(np.diag(np.arange(1.0, 10))).tail is None


def test_the_text_of_a_spectrum():
    values = normal(4, 3, 2).astype(np.float32)
    found = pt.spectrum(Param("conv.weight", Held(values)))
    lines = render.lines(found, width=80)
    view = "as 4 × 6, the first axis against the rest"
    assert lines[0] == f"conv.weight: 4 × 3 × 2 float32 · {view} · 4 singular values, exact"
    assert lines[2] == f"spectral norm     {found.spectral:.6g}"
    assert lines[-1].split()[1][0] == "█"
    assert lines[-1].split()[1][-1] == "▁"
    assert len(render.lines(pt.spectrum(np.diag([2.0, 1.0, 0.0])))[-1].split()[1]) == 2
    assert render.lines(pt.spectrum(np.eye(2)))[0] == "the array: 2 × 2 float64 · 2 singular values, exact"


@pytest.mark.parametrize("width", [1, 20, 30, 50, 79])
def test_a_spectrum_on_a_narrow_screen(width):
    found = pt.spectrum(Param("encoder.layers.0.attention.self.query.weight", Held(normal(60, 60))))
    lines, whole = render.lines(found, width=width), render.lines(found)
    assert max(map(len, lines[:-1])) <= width
    assert len(lines[-1]) <= max(width, 24)  # bars are not cut to less than eight
    words = "".join("".join(lines[:-1]).replace(":", "").split())
    assert words == "".join("".join(whole[:-1]).replace(":", "").split())


def test_the_json_of_a_spectrum():
    document = json.loads(render.json(pt.spectrum(normal(200, 150), exact_below=0), "net"))
    assert (document["exact"], len(document["singular_values"]), len(document["errors"])) == (False, 128, 128)
    assert document["condition"] is None
    document = json.loads(render.json(pt.spectrum(np.diag([1.0, 0.0])), "net"))
    assert (document["singular_values"], document["condition"]) == ([1, 0], "Infinity")
    assert document["frobenius_norm"] == pytest.approx(sqrt(1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_the_rank_of_a_product_is_that_of_numpy(dtype):
    rng = np.random.default_rng(1)
    product = (rng.standard_normal((200, 5)) @ rng.standard_normal((5, 100))).astype(np.float64)
    parts = (rng.standard_normal((200, 5)).astype(dtype), rng.standard_normal((5, 100)).astype(dtype))
    for matrix in (product, parts[0] @ parts[1]):
        found = pt.spectrum(matrix)
        assert found.rank == np.linalg.matrix_rank(matrix) == 5
        assert found.condition == np.inf
        assert found.tail is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_no_power_law_is_fitted_to_rounding(dtype):
    turned, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((64, 64)))
    assert pt.spectrum(turned.astype(numpy_dtype(dtype))).tail is None
    assert pt.spectrum(np.eye(300, dtype=numpy_dtype(dtype)), exact_below=10).tail is None
