# SPDX-License-Identifier: Apache-2.0
"""Real functions of parameters as tapes: lists of steps that are evaluated and differentiated over whole batches.

A step is a leaf, ``("affine", ((column, coefficient), ...), offset)``, or ``(operation, argument, ...)``. Arguments are
the numbers of earlier steps. The last step is the result. A step that is used twice is stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

Step = tuple
Tape = tuple[Step, ...]

_DISTANCES = (1e-20, 1e-40, 1e-80)  # distances from a singular point at which `Group._limits` takes derivatives
_MAX_NUMBERS = 1 << 21  # bound of the numbers in the results of all steps for one block of rows: 16 MiB of float64


def _no_derivative(x: np.ndarray) -> np.ndarray:
    return np.full(np.shape(x), np.nan)


def _times_log(result: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return d x^y / d y = x^y log x. It is 0 where x^y is 0, because 0^y is 0 for all y > 0."""
    return np.where(result == 0, 0.0, result * np.log(x))


def _of_abs(x: np.ndarray) -> np.ndarray:
    """Return the derivative of abs, which is 0 at 0. A complex abs has no derivative."""
    return _no_derivative(x) if np.iscomplexobj(x) else np.sign(x)


def _of_sign(x: np.ndarray) -> np.ndarray:
    """Return the derivative of sign: 0, and NaN at 0, where sign jumps."""
    return _no_derivative(x) if np.iscomplexobj(x) else np.where(x == 0, np.nan, 0.0)


def _of_conjugate(x: np.ndarray) -> np.ndarray:
    return _no_derivative(x) if np.iscomplexobj(x) else np.ones(np.shape(x))


# The NumPy function of each operation.
FUNCTIONS: dict[str, Callable] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "power": np.power,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "arcsin": np.arcsin,
    "arccos": np.arccos,
    "arctan": np.arctan,
    "exp": np.exp,
    "log": np.log,
    "abs": np.abs,
    "sign": np.sign,
    "conjugate": np.conjugate,
}

# The derivatives of each operation with respect to its arguments, as functions of (*arguments, result).
_DERIVATIVES: dict[str, tuple[Callable, ...]] = {
    "add": (lambda x, y, r: 1.0, lambda x, y, r: 1.0),
    "subtract": (lambda x, y, r: 1.0, lambda x, y, r: -1.0),
    "multiply": (lambda x, y, r: y, lambda x, y, r: x),
    "divide": (lambda x, y, r: 1 / y, lambda x, y, r: -r / y),
    "power": (lambda x, y, r: y * np.power(x, y - 1), lambda x, y, r: _times_log(r, x)),
    "sin": (lambda x, r: np.cos(x),),
    "cos": (lambda x, r: -np.sin(x),),
    "tan": (lambda x, r: 1 + r * r,),
    "arcsin": (lambda x, r: 1 / np.sqrt(1 - x * x),),
    "arccos": (lambda x, r: -1 / np.sqrt(1 - x * x),),
    "arctan": (lambda x, r: 1 / (1 + x * x),),
    "exp": (lambda x, r: r,),
    "log": (lambda x, r: 1 / x,),
    "abs": (lambda x, r: _of_abs(x),),
    "sign": (lambda x, r: _of_sign(x),),
    "conjugate": (lambda x, r: _of_conjugate(x),),
}


def _rate(factor: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return ``factor * rate``, and 0 where the rate is 0, also if the factor is not finite there."""
    return np.where(rate == 0, 0.0, factor * rate)


def _power_rates(x: np.ndarray, y: np.ndarray, r: np.ndarray, dx: np.ndarray, dy: np.ndarray, dr: np.ndarray) -> tuple:
    """Return the rates of the derivatives ``y x^(y-1)`` and ``x^y log x`` of a power."""
    second = np.where(y * (y - 1) == 0, 0.0, y * (y - 1) * np.power(x, y - 2))
    below = np.power(x, y - 1)
    mixed = below + y * _times_log(below, x)  # a limit at x = 0, as in `_times_log`
    return _rate(second, dx) + _rate(mixed, dy), _rate(mixed, dx) + _rate(_times_log(_times_log(r, x), x), dy)


# The rates at which the derivatives of `_DERIVATIVES` change along a direction, as functions of (*arguments, result,
# *rates of the arguments, rate of the result).
_RATES: dict[str, Callable[..., tuple]] = {
    "add": lambda x, y, r, dx, dy, dr: (0.0, 0.0),
    "subtract": lambda x, y, r, dx, dy, dr: (0.0, 0.0),
    "multiply": lambda x, y, r, dx, dy, dr: (dy, dx),
    "divide": lambda x, y, r, dx, dy, dr: (-dy / y**2, (r * dy / y - dr) / y),
    "power": _power_rates,
    "sin": lambda x, r, dx, dr: (-r * dx,),
    "cos": lambda x, r, dx, dr: (-r * dx,),
    "tan": lambda x, r, dx, dr: (2 * r * dr,),
    "arcsin": lambda x, r, dx, dr: (x * dx / (1 - x * x) ** 1.5,),
    "arccos": lambda x, r, dx, dr: (-x * dx / (1 - x * x) ** 1.5,),
    "arctan": lambda x, r, dx, dr: (-2 * x * dx / (1 + x * x) ** 2,),
    "exp": lambda x, r, dx, dr: (dr,),
    "log": lambda x, r, dx, dr: (-dx / x**2,),
    "abs": lambda x, r, dx, dr: (_of_sign(x) * dx,),
    "sign": lambda x, r, dx, dr: (_of_sign(x) * dx,),
    "conjugate": lambda x, r, dx, dr: (0.0 * _of_conjugate(x),),
}


def shape_of(tape: Tape) -> Tape:
    """Return the tape without the numbers of its leaves. Tapes with equal shapes can be evaluated together."""
    return tuple(_leaf_shape(step) if step[0] == "affine" else step for step in tape)


def _leaf_shape(leaf: Step) -> Step:
    is_complex = any(isinstance(number, complex) for number in (leaf[2], *(factor for _, factor in leaf[1])))
    return "affine", len(leaf[1]), is_complex


@dataclass(frozen=True, eq=False)
class _Leaf:
    columns: np.ndarray  # int (terms, E)
    coefficients: np.ndarray  # (terms, E)
    offsets: np.ndarray  # (E,)
    entries: np.ndarray  # int (terms, E), the number of the derivative to which each term contributes


class Group:
    """E tapes of one shape. Each number of a leaf is an array (E,) over the tapes.

    Attributes:
        members: int (E,), the numbers of these tapes among all expressions.
        entry_member, entry_column: int (J,), the tape and the parameter of each derivative that is not always 0, sorted
            by parameter.
    """

    def __init__(self, members: np.ndarray, tapes: list[Tape]):
        self.members = members
        self._steps = shape_of(tapes[0])
        # reverse accumulation skips constant arguments
        self._varies = [step[0] != "affine" or step[1] > 0 for step in self._steps]
        places = [place for place, step in enumerate(self._steps) if step[0] == "affine"]
        parts = [_leaf_arrays([tape[place] for tape in tapes]) for place in places]
        keys = [columns * len(tapes) + np.arange(len(tapes)) for columns, _, _ in parts]
        unique = np.unique(np.fromiter(chain.from_iterable(key.ravel() for key in keys), dtype=np.intp))
        self.entry_column, self.entry_member = np.divmod(unique, len(tapes))
        self._leaves = {
            place: _Leaf(*part, np.searchsorted(unique, key)) for place, part, key in zip(places, parts, keys)
        }

    def blocks(self, num_rows: int, num_gradients: int = 0) -> Iterator[slice]:
        """Yield blocks of rows whose intermediate results stay below `_MAX_NUMBERS`.

        Args:
            num_rows: number of rows of the batch.
            num_gradients: number of gradients that each row pulls back, 0 for values alone.
        """
        numbers = len(self._steps) * len(self.members) + num_gradients * len(self.entry_column)
        size = max(_MAX_NUMBERS // numbers, 1)
        for begin in range(0, num_rows, size):
            yield slice(begin, min(begin + size, num_rows))

    def values(self, values: np.ndarray) -> np.ndarray:
        """Return the values (B, E) of the tapes at parameter values (B, P).

        A row whose real steps give NaN is evaluated again in complex numbers, as Qiskit does: sqrt(-1)**2 is -1.
        """
        result = self._results(values)[-1]
        rows = np.flatnonzero(np.isnan(result).any(axis=1))
        if len(rows) and not np.iscomplexobj(result):
            complex_values = self._results(values[rows] + 0j)[-1]
            result = result.astype(complex)
            result[rows] = np.where(np.isnan(complex_values), result[rows], complex_values)
        return result

    def jacobian(self, values: np.ndarray) -> np.ndarray:
        """Return the derivatives (B, J) at parameter values (B, P).

        If the rules of differentiation give no finite number, the derivative is its limit near the point if there is
        one (see `_limits`), else NaN.
        """
        derivatives = self._derivatives(values, self._results(values))
        wrong = ~np.isfinite(derivatives)
        if wrong.any():  # roots of negative numbers have complex steps, and may have finite real derivatives
            rows = np.flatnonzero(wrong.any(axis=1))
            part = self._derivatives(values[rows], self._results(values[rows] + 0j))
            derivatives[rows] = np.where(wrong[rows], part, derivatives[rows])
            wrong = ~np.isfinite(derivatives)
        for entry in np.flatnonzero(wrong.any(axis=0)).tolist():
            rows = np.flatnonzero(wrong[:, entry])
            derivatives[rows, entry] = self._limits(values[rows], entry)
        return derivatives

    def jacobian_rates(self, values: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return the rates (B, J) at which the derivatives change at values (B, P) along directions (B, P).

        A rate is NaN if the rules of differentiation give no finite real number.
        """
        rates = self._rates(values, directions, self._results(values))
        wrong = ~np.isfinite(rates)
        if wrong.any():
            rows = np.flatnonzero(wrong.any(axis=1))
            part = self._rates(values[rows], directions[rows], self._results(values[rows] + 0j))
            rates[rows] = np.where(wrong[rows], part, rates[rows])
        return rates

    def add_gradients(self, target: np.ndarray, gradients: np.ndarray, jacobian: np.ndarray) -> None:
        """Add gradients (B, K, E) with respect to the tapes, times the Jacobian (B, J), to ``target`` (B, K, P)."""
        if not len(self.entry_column):
            return
        parts = gradients[..., self.entry_member] * jacobian[:, None, :]
        columns, starts = np.unique(self.entry_column, return_index=True)
        target[..., columns] += np.add.reduceat(parts, starts, axis=-1)

    def _results(self, values: np.ndarray, nudge: tuple[np.ndarray, float] | None = None) -> list[np.ndarray]:
        """Return the result (B, E) of every step.

        Args:
            values: (B, P).
            nudge: parameters (E,) and a distance, which is added to these parameters after each leaf is computed. A
                leaf that is 0 then becomes as small as the distance, which would vanish beside the parameter's value.
        """
        results: list[np.ndarray] = []
        with np.errstate(all="ignore"):
            for place, (operation, *arguments) in enumerate(self._steps):
                if operation != "affine":
                    results.append(FUNCTIONS[operation](*[results[argument] for argument in arguments]))
                    continue
                leaf = self._leaves[place]
                result = np.broadcast_to(leaf.offsets, (len(values), len(self.members)))
                for columns, coefficients in zip(leaf.columns, leaf.coefficients):
                    result = result + values[:, columns] * coefficients
                if nudge is not None:
                    for columns, coefficients in zip(leaf.columns, leaf.coefficients):
                        result = result + np.where(columns == nudge[0], nudge[1] * coefficients, 0.0)
                results.append(result)
        return results

    def _derivatives(self, values: np.ndarray, results: list[np.ndarray]) -> np.ndarray:
        """Return the derivatives (B, J) by reverse accumulation along the tape; NaN for a complex derivative."""
        adjoints: list = [None] * len(results)
        adjoints[-1] = np.ones((len(values), len(self.members)))
        is_complex = any(map(np.iscomplexobj, results))
        derivatives = np.zeros((len(values), len(self.entry_column)), dtype=complex if is_complex else float)
        with np.errstate(all="ignore"):
            for place in range(len(results) - 1, -1, -1):
                operation, *arguments = self._steps[place]
                adjoint, adjoints[place] = adjoints[place], None
                if operation == "affine":
                    leaf = self._leaves[place]
                    for entries, coefficients in zip(leaf.entries, leaf.coefficients):
                        derivatives[:, entries] += adjoint * coefficients
                    continue
                inputs = [results[argument] for argument in arguments]
                for argument, derivative in zip(arguments, _DERIVATIVES[operation]):
                    if self._varies[argument]:
                        part = adjoint * derivative(*inputs, results[place])
                        adjoints[argument] = part if adjoints[argument] is None else adjoints[argument] + part
        return _real(derivatives)

    def _rates(self, values: np.ndarray, directions: np.ndarray, results: list[np.ndarray]) -> np.ndarray:
        """Return the rates of `_derivatives` (B, J) along directions (B, P), by tangents of its two passes."""
        shape = len(values), len(self.members)
        tangents: list[Any] = []
        adjoints: list[Any] = [None] * len(results)
        adjoints[-1] = np.ones(shape), np.zeros(shape)
        rates = np.zeros((len(values), len(self.entry_column)), dtype=complex)
        with np.errstate(all="ignore"):
            for place, (operation, *arguments) in enumerate(self._steps):
                tangent = np.zeros(shape)
                if operation == "affine":
                    leaf = self._leaves[place]
                    for columns, coefficients in zip(leaf.columns, leaf.coefficients):
                        tangent = tangent + directions[:, columns] * coefficients
                else:
                    inputs = [results[argument] for argument in arguments]
                    for argument, derivative in zip(arguments, _DERIVATIVES[operation]):
                        if self._varies[argument]:
                            tangent = tangent + _rate(derivative(*inputs, results[place]), tangents[argument])
                tangents.append(tangent)
            for place in range(len(results) - 1, -1, -1):
                operation, *arguments = self._steps[place]
                if adjoints[place] is None:
                    continue
                adjoint, adjoint_rate = adjoints[place]
                if operation == "affine":
                    leaf = self._leaves[place]
                    for entries, coefficients in zip(leaf.entries, leaf.coefficients):
                        rates[:, entries] += adjoint_rate * coefficients
                    continue
                inputs = [results[argument] for argument in arguments]
                derivatives = [derivative(*inputs, results[place]) for derivative in _DERIVATIVES[operation]]
                changes = _RATES[operation](
                    *inputs, results[place], *(tangents[argument] for argument in arguments), tangents[place]
                )
                for argument, derivative, change in zip(arguments, derivatives, changes):
                    if self._varies[argument]:
                        first, rate = adjoint * derivative, adjoint_rate * derivative + adjoint * change
                        if adjoints[argument] is not None:
                            first, rate = first + adjoints[argument][0], rate + adjoints[argument][1]
                        adjoints[argument] = first, rate
        return _real(rates)

    def _limits(self, values: np.ndarray, entry: int) -> np.ndarray:
        """Return the limit (B,) of a derivative as its parameter approaches its value; NaN without a limit.

        The derivative is computed at the tiny `_DISTANCES` on both sides. A side has a limit if the derivatives at two
        distances agree and the function is continuous; for example, the limit is 1 for the square of a root at 0. The
        limits of all sides on which the function is defined must agree. There is no limit if the function jumps, has a
        corner or grows without bound, or if float64 cannot tell the point from its neighbours (arcsin at 1).
        """
        only = self._single(int(self.entry_member[entry]))
        column = self.entry_column[entry : entry + 1]
        (position,) = np.flatnonzero(only.entry_column == column)
        value_at_point = _real(only._results(values)[-1][:, 0])
        two_sided, is_known = np.full(len(values), np.nan), np.zeros(len(values), bool)
        for side in (1.0, -1.0):
            limit, previous, is_defined = np.full(len(values), np.nan), np.full(len(values), np.nan), is_known
            for distance in _DISTANCES:
                results = only._results(values, (column, side * distance))
                value, derivative = _real(results[-1][:, 0]), only._derivatives(values, results)[:, position]
                limit = np.where(_agree(value, value_at_point) & _agree(previous, derivative), derivative, limit)
                previous, is_defined = derivative, np.isfinite(value)
            limit = np.where(~is_known | _agree(two_sided, limit), limit, np.nan)
            two_sided, is_known = np.where(is_defined, limit, two_sided), is_known | is_defined
        return two_sided

    def _single(self, member: int) -> Group:
        """Return a group that holds one of the tapes alone."""
        tape = []
        for place, step in enumerate(self._steps):
            if step[0] == "affine":
                leaf = self._leaves[place]
                terms = zip(leaf.columns[:, member].tolist(), leaf.coefficients[:, member].tolist())
                step = "affine", tuple(terms), leaf.offsets[member].item()
            tape.append(step)
        return Group(self.members[member : member + 1], [tuple(tape)])


def _leaf_arrays(leaves: list[Step]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the columns (terms, E), the coefficients (terms, E) and the offsets (E,) of E leaves."""
    return (
        np.array([[column for column, _ in leaf[1]] for leaf in leaves], dtype=np.intp).T,
        np.array([[coefficient for _, coefficient in leaf[1]] for leaf in leaves]).T,
        np.array([leaf[2] for leaf in leaves]),
    )


def _real(numbers: np.ndarray) -> np.ndarray:
    """Return real numbers; NaN for a number with an imaginary part."""
    if not np.iscomplexobj(numbers):
        return numbers
    return np.where(np.abs(numbers.imag) <= 1e-10 * np.maximum(1.0, np.abs(numbers)), numbers.real, np.nan)


def _agree(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.abs(left - right) <= 1e-8 * np.maximum(1.0, np.abs(right))
