"""Singular values of one parameter, and what they say about its rank and its tail."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import inf, prod
from typing import TYPE_CHECKING

import numpy as np

from paratree.core.dtypes import BLOCKS, finfo
from paratree.core.errors import MismatchError, UnknownSourceError, printable
from paratree.core.param import Param
from paratree.core.tree import ParamTree
from paratree.registry import array_of
from paratree.registry import open as open_source
from paratree.verbs._power_law import PowerLaw, power_law
from paratree.verbs.reading import place_of, spelled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Values = np.ndarray[Any, Any]

EXACT_BELOW = 1 << 22  # values: 2048 × 2048 takes seconds to a minute
_LARGEST = 128  # singular values that the randomised method returns
_MORE = 16  # that it finds besides, for the accuracy of the last ones
_ITERATIONS = 3
_BLOCK = 1 << 20  # values that are held as float64 at once


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """The singular values of a matrix, in float64.

    Attributes:
        name: name of the parameter; empty for an array.
        shape: its shape.
        dtype: its dtype.
        rows: number of rows of the matrix that it is seen as.
        columns: number of columns.
        row_axis: the axis that the rows are: ``"out"`` by the layout, or ``"first"``.
        values: singular values, the largest first; all of them if exact.
        errors: ``None`` if exact; else, for each value, how far off one of the matrix is at most.
        frobenius: root of the sum of the squares of the magnitudes.
        tail: the power law of the largest eigenvalues (squares of the singular values), as in C. H. Martin,
            M. W. Mahoney, Implicit self-regularization in deep neural networks, JMLR 22 (2021) 165;
            ``None`` for fewer than 10 of them above the rounding errors, or if they are all alike.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    rows: int
    columns: int
    row_axis: str
    values: Values
    errors: Values | None
    frobenius: float
    tail: PowerLaw | None

    @property
    def is_exact(self) -> bool:
        """Whether all singular values were computed."""
        return self.errors is None

    @property
    def spectral(self) -> float:
        """The largest singular value; 0 if there is none."""
        return float(self.values[0]) if self.values.size else 0.0

    @property
    def stable_rank(self) -> float:
        """The sum of the squares of all singular values over the largest square; 0 for a zero matrix."""
        return (self.frobenius / self.spectral) ** 2 if self.spectral else 0.0

    @property
    def rank(self) -> int | None:
        """Number of singular values above the rounding errors of the dtype; ``None`` if not exact.

        The limit is that of :func:`numpy.linalg.matrix_rank`: the largest value times the longer side times
        epsilon, of float32 for floats of at most 32 bits and of float64 for all others.
        """
        return len(_above(self.values, self._rounding)) if self.is_exact else None

    @property
    def _rounding(self) -> float:
        return _rounding(self.dtype, max(self.rows, self.columns))

    @property
    def effective_rank(self) -> float | None:
        """The exponential of the entropy of the singular values over their sum; ``None`` if not exact.

        O. Roy, M. Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.
        """
        if not self.is_exact or not self.spectral:
            return 0.0 if self.is_exact else None
        values = self.values[self.values > 0] / self.spectral
        shares = values / values.sum()
        return float(np.exp(-(shares * np.log(shares)).sum()))

    @property
    def condition(self) -> float | None:
        """The largest singular value over the smallest, infinite below full rank.

        ``None`` if not exact, or for a matrix without values.
        """
        if not self.is_exact or not self.values.size:
            return None
        return self.spectral / float(self.values[-1]) if self.rank == len(self.values) else inf

    def __repr__(self) -> str:
        how = "exact" if self.is_exact else "approximated"
        figures = f"spectral norm {self.spectral:.4g}, stable rank {self.stable_rank:.4g}"
        named = f" {printable(self.name)}" if self.name else ""
        return f"<Spectrum{named}: {self.rows} × {self.columns}, {len(self.values)} values {how}, {figures}>"


def spectrum(param: Param | Any, *, exact_below: int = EXACT_BELOW, seed: int = 0) -> Spectrum:
    """Compute the singular values of a parameter as a matrix: its output axis against all others.

    The rows are the axis that the layout calls ``out``, else the first; a vector is a column. Of a large
    matrix the 128 largest singular values are approximated, with a bound of the error of each: N. Halko,
    P.-G. Martinsson, J. A. Tropp, Finding structure with randomness, SIAM Review 53 (2011) 217-288,
    algorithm 4.4.

    Args:
        param: a parameter, or an array of finite numbers of any shape: of NumPy, PyTorch, JAX, TensorFlow,
            Keras or MXNet, or nested lists.
        exact_below: matrices of fewer values are decomposed exactly.
        seed: of the randomised method: the same gives the same figures.

    Returns:
        The singular values, and figures of them.

    Raises:
        MismatchError: a value is NaN or infinite, the norm would be, or what was given is no one array of
            numbers, as a path or a model.
        UnreadableError: the parameter has no values to read.

    Example:
        >>> spectrum([[3.0, 0.0], [0.0, 4.0]]).values
        array([4., 3.])
    """
    for option, value in (("exact_below", exact_below), ("seed", seed)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
            raise MismatchError(f"{option} is a whole number, at least 0, not {value!r:.80}")
    name, dtype, layout, array = _read(param)
    matrix, row_axis = _matrix(array, layout)
    scale = _largest_magnitude(matrix, array, name)
    errors = None
    if scale == 0:
        values = np.zeros(min(matrix.shape))
    elif matrix.size < exact_below or min(matrix.shape) <= _LARGEST + _MORE:
        values = np.linalg.svd(_wide(matrix) / scale, compute_uv=False)
    else:
        values, errors = _approximated(matrix, scale, seed)
    frobenius = _norm(matrix, scale) if scale else 0.0
    with np.errstate(over="ignore"):
        values, frobenius = values * scale, float(np.multiply(frobenius, scale))
        errors = None if errors is None else errors * scale
    if not np.isfinite(frobenius):
        raise MismatchError(f"{_called(name)}: its norm is beyond float64; divide the values")
    values.flags.writeable = False
    rounding = _rounding(dtype, max(matrix.shape))
    step = float(finfo(dtype).eps) if "float" in dtype else 0.0
    tail = power_law(2 * np.log(_above(values, rounding)), alike=2 * max(rounding, step))
    rows, columns = matrix.shape
    return Spectrum(name, array.shape, dtype, rows, columns, row_axis, values, errors, frobenius, tail)


def _read(given: Any) -> tuple[str, str, str | None, Values]:
    """Return the name, dtype, layout and values of a parameter, or of what can be taken for one."""
    param = given if isinstance(given, Param) else _live(given)
    if param is None:
        name, layout, array = "", None, _array(given)
        dtype = array.dtype.name
    else:
        name = param.name if param is given else ""
        dtype, layout, array = param.dtype, param.layout, param.value
    if not np.can_cast(array.dtype, np.complex128, "same_kind"):
        raise MismatchError(f"{_called(name)}: {dtype} is not a dtype of numbers")
    return name, dtype, layout, array


def _live(given: Any) -> Param | None:
    """Return the one parameter that a live object is; ``None`` for an array and what no framework opens.

    Raises:
        MismatchError: it is a path, or has several parameters.
    """
    if isinstance(given, str | os.PathLike):
        path = printable(os.fsdecode(given))
        raise MismatchError(f"'{path}' is a path; give one parameter of it: paratree.open('{path}')[name]")
    if isinstance(given, np.ndarray | np.generic | int | float | complex | list | tuple):
        return None
    try:
        tree = given if isinstance(given, ParamTree) else open_source(given)
    except UnknownSourceError:
        return None
    if len(tree) != 1:
        first = printable(next(iter(tree), "name"))
        raise MismatchError(
            f"{printable(tree.source)}: a spectrum is of one parameter, and there are {len(tree)} here; "
            f"give one, as paratree.open(source)['{first}']"
        )
    found: Param = next(iter(tree.values()))
    return found


def _array(given: Any) -> Values:
    """Return what NumPy, or the framework of the object, makes an array of it.

    Raises:
        MismatchError: there is none.
    """
    problem = ""
    try:
        array: Values = array_of(given, "the array")
        if array.dtype != object or isinstance(given, np.ndarray | list | tuple):
            return array
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        problem = f" ({printable(str(error))[:200]})"
    kind = type(given).__name__
    raise MismatchError(f"give a parameter or an array of numbers, not an object of type {kind}{problem}")


def _called(name: str) -> str:
    return printable(name) or "the array"


def _matrix(array: Values, layout: str | None) -> tuple[Values, str]:
    """Return an array as a matrix, and which axis its rows are."""
    axes = (layout or "").split()
    if array.ndim > 1 and len(axes) == array.ndim and "out" in axes:
        turned = np.moveaxis(array, axes.index("out"), 0)
        return turned.reshape(len(turned), prod(turned.shape[1:])), "out"
    lengths = array.shape or (1,)
    return array.reshape(lengths[0], prod(lengths[1:])), "first"


def _blocks(matrix: Values) -> Iterator[tuple[int, Values]]:
    """Yield rows of a matrix in double precision, with the number of the first."""
    step = max(_BLOCK // max(matrix.shape[1], 1), 1)
    for start in range(0, len(matrix), step):
        yield start, _wide(matrix[start : start + step])


def _wide(values: Values) -> Values:
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def _largest_magnitude(matrix: Values, array: Values, name: str) -> float:
    """Return the largest magnitude of a matrix.

    Raises:
        MismatchError: some value is NaN or infinite.
    """
    largest = 0.0
    for _, block in _blocks(matrix):
        if not np.isfinite(block).all():
            bad = np.flatnonzero(~np.isfinite(_wide(array)))
            first = spelled(place_of(int(bad[0]), array.shape))
            raise MismatchError(
                f"{_called(name)}: {bad.size} of {array.size} values are NaN or infinite, the first at "
                f"{first}; a spectrum is of finite values"
            )
        largest = max(largest, float(np.abs(block).max(initial=0.0)))
    return largest


def _norm(matrix: Values, scale: float) -> float:
    """Return the Frobenius norm of a matrix divided by ``scale``."""
    return float(np.sqrt(sum(float(np.linalg.norm(block / scale) ** 2) for _, block in _blocks(matrix))))


def _approximated(matrix: Values, scale: float, seed: int) -> tuple[Values, Values]:
    """Return the largest singular values of ``matrix / scale``, and a bound of the error of each.

    With u and v of length 1 and ``A* u = s v``, some singular value of A lies within ``|A v - s u| / √2`` of
    s: the residual of s as an eigenvalue of the Hermitian matrix of A and its adjoint.
    """
    started = np.random.default_rng(seed).standard_normal((matrix.shape[1], _LARGEST + _MORE))
    basis = _orthonormal(_times(matrix, started, scale))
    for _ in range(_ITERATIONS):
        basis = _orthonormal(_times(matrix, _orthonormal(_adjoint_times(matrix, basis, scale)), scale))
    projected = _adjoint_times(matrix, basis, scale).conj().T
    left, values, right = np.linalg.svd(projected, full_matrices=False)
    left, values, right = (basis @ left)[:, :_LARGEST], values[:_LARGEST], right[:_LARGEST].conj().T
    residuals = np.linalg.norm(_times(matrix, right, scale) - left * values, axis=0) / np.sqrt(2)
    return values, residuals


def _orthonormal(columns: Values) -> Values:
    return np.linalg.qr(columns)[0]


def _times(matrix: Values, right: Values, scale: float) -> Values:
    return np.concatenate([block / scale @ right for _, block in _blocks(matrix)])


def _adjoint_times(matrix: Values, left: Values, scale: float) -> Values:
    found = np.zeros((matrix.shape[1], left.shape[1]), left.dtype)
    for start, block in _blocks(matrix):
        found += (block / scale).conj().T @ left[start : start + len(block)]
    return found


def _rounding(dtype: str, side: int) -> float:
    """Return the size of rounding errors, as a part of the largest singular value."""
    is_short = dtype in BLOCKS or dtype == "complex64" or ("float" in dtype and dtype != "float64")
    return side * float(np.finfo(np.float32 if is_short else np.float64).eps)


def _above(values: Values, rounding: float) -> Values:
    """Return the singular values that stand out of the rounding errors."""
    return np.asarray(values[values > values.max(initial=0.0) * rounding])
