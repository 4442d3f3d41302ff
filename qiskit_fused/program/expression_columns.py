# SPDX-License-Identifier: Apache-2.0
"""Evaluate and differentiate the columns of a program that are not affine in one parameter, over a whole batch.

Expressions of the same shape, such as all ``2 (pi - x_i) (pi - x_j)`` of a ZZFeatureMap, are one `tapes.Group`. They
are evaluated together, in blocks of rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qiskit_fused.common.row_errors import RowError, shifted
from qiskit_fused.program.tapes import Group, Tape, shape_of

_IMAGINARY_TOLERANCE = 1e-10  # relative bound of an imaginary part that is a rounding error, as in (1j * x) * 1j


class CompiledExpressions:
    """The expression columns of a program (see `program.Expressions`).

    Args:
        tapes: one tape for each column.
        origins: for each column, its expression and its gate as text, for error messages.
        names: the names of the P parameters.

    Attributes:
        num_expressions: E, the number of columns.
        uses: bool (P,), the parameters on which some expression depends.
    """

    def __init__(self, tapes: Sequence[Tape], origins: Sequence[str], names: Sequence[str]) -> None:
        self.num_expressions = len(tapes)
        self._origins, self._names = tuple(origins), tuple(names)
        by_shape: dict[Tape, list[int]] = {}
        for index, tape in enumerate(tapes):
            by_shape.setdefault(shape_of(tape), []).append(index)
        self._groups = [Group(np.array(members), [tapes[index] for index in members]) for members in by_shape.values()]
        self.uses = np.zeros(len(names), bool)
        for group in self._groups:
            self.uses[group.entry_column] = True

    def evaluate(self, values: np.ndarray) -> np.ndarray:
        """Map parameter values (B, P) to expression values (B, E).

        Raises:
            RowError: if a value is not finite or not real.
        """
        values = np.asarray(values, dtype=np.float64)
        columns = np.empty((len(values), self.num_expressions))
        for group in self._groups:
            for rows in group.blocks(len(values)):
                with shifted(rows.start):
                    columns[rows, group.members] = self._angles(group, group.values(values[rows]))
        return columns

    def depend_on(self, parameters: np.ndarray) -> np.ndarray:
        """Return, bool (E,), which expressions depend on some parameter of ``parameters``, bool (P,)."""
        depends = np.zeros(self.num_expressions, bool)
        for group in self._groups:
            np.logical_or.at(depends, group.members[group.entry_member], parameters[group.entry_column])
        return depends

    def pull_back(self, values: np.ndarray, gradients: np.ndarray, unseen: np.ndarray | None = None) -> np.ndarray:
        """Map gradients (B, K, P + E) with respect to columns to gradients (B, K, P) with respect to parameters.

        Args:
            values: parameter values (B, P).
            gradients: gradients with respect to columns.
            unseen: bool (E,), expressions on which the results do not depend. Their derivatives do not matter.

        A gradient is NaN if an expression has no finite derivative with respect to the parameter. A caller that needs
        this gradient calls `check_derivatives` for the error. The gradient is NaN even if the gradient with respect to
        the expression is 0: the expectation value ``cos(sqrt(x))`` has the derivative -1/2 at x = 0, but its factors
        there are the derivatives 0 of the cosine and infinity of the root.
        """
        num_parameters = len(self._names)
        if not self.num_expressions:
            return gradients
        values = np.asarray(values, dtype=np.float64)
        result = np.array(gradients[..., :num_parameters])
        for group in self._groups:
            for rows in group.blocks(len(values), gradients.shape[1]):
                jacobian = group.jacobian(values[rows])
                if unseen is not None:
                    jacobian[:, unseen[group.members[group.entry_member]]] = 0.0
                group.add_gradients(result[rows], gradients[rows][..., num_parameters + group.members], jacobian)
        return result

    def jacobian(self, values: np.ndarray) -> np.ndarray:
        """Return the derivatives of the expressions, float64 (B, E, P), at parameter values (B, P).

        A derivative is NaN if an expression has no finite derivative with respect to a parameter on which it depends.
        """
        result = np.zeros((len(values), self.num_expressions, len(self._names)))
        for group in self._groups:
            for rows in group.blocks(len(values)):
                entries = group.members[group.entry_member], group.entry_column
                result[rows, entries[0], entries[1]] = group.jacobian(values[rows])
        return result

    def rates(self, values: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return first and second derivatives of the expressions along directions, float64 (B, E) each.

        Args:
            values: parameter values x (B, P).
            directions: v, float64 (B, P).

        Returns:
            ``dc_e(x + t v)/dt`` and ``d^2c_e(x + t v)/dt^2`` at t = 0. Derivatives that are not finite count as 0.
        """
        first, second = np.zeros((2, len(values), self.num_expressions))
        for group in self._groups:
            for rows in group.blocks(len(values)):
                along = directions[rows][:, group.entry_column]
                members = group.members[group.entry_member]
                parts = group.jacobian(values[rows]), group.jacobian_rates(values[rows], directions[rows])
                for result, part in zip((first, second), parts):
                    product = np.where(np.isfinite(part), part, 0.0) * along
                    np.add.at(result[rows].T, members, product.T)
        return first, second

    def pull_back_rates(
        self, values: np.ndarray, directions: np.ndarray, gradients: np.ndarray, unseen: np.ndarray
    ) -> np.ndarray:
        """Return ``sum_e g_e d^2 c_e/dx_p dx_q v_q``, float64 (B, K, P), the second-order part of the chain rule.

        Args:
            values: parameter values x (B, P).
            directions: v, float64 (B, P).
            gradients: g, gradients with respect to columns, (B, K, P + E). The part of parameters does not count.
            unseen: bool (E,), expressions on which the results do not depend. Their derivatives do not matter.

        Raises:
            RowError: if an expression has no finite second derivative. The error names the row of ``values``.
        """
        num_parameters = len(self._names)
        result = np.zeros((len(values), gradients.shape[1], num_parameters))
        for group in self._groups:
            for rows in group.blocks(len(values), gradients.shape[1]):
                rates = group.jacobian_rates(values[rows], directions[rows])
                rates[:, unseen[group.members[group.entry_member]]] = 0.0
                self._check_rates(group, rates, values, rows.start)
                group.add_gradients(result[rows], gradients[rows][..., num_parameters + group.members], rates)
        return result

    def _check_rates(self, group: Group, rates: np.ndarray, values: np.ndarray, start: int) -> None:
        """Raise a RowError if a rate (b, J) of rows from ``start`` on is not finite."""
        if np.isfinite(rates).all():
            return
        row, entry = np.argwhere(~np.isfinite(rates))[0].tolist()
        origin, column = self._origins[group.members[group.entry_member[entry]]], group.entry_column[entry]
        name, value = self._names[column], values[start + row, column]
        raise RowError(
            f"the angle {origin} has no finite second derivative with respect to '{name}' in ",
            start + row,
            f" of the parameter values, where '{name}' is {value}; move it away from there.",
        )

    def check_derivatives(self, values: np.ndarray, row: int, column: int) -> None:
        """Raise an error if an expression has no finite derivative in a row with respect to a parameter.

        Args:
            values: parameter values (B, P).
            row: the number of the row.
            column: the column of the parameter.

        Raises:
            RowError: if an expression has no finite derivative.
        """
        for group in self._groups:
            jacobian = group.jacobian(np.asarray(values[row : row + 1], dtype=np.float64))[0]
            for entry in np.flatnonzero((group.entry_column == column) & ~np.isfinite(jacobian)):
                origin = self._origins[group.members[group.entry_member[entry]]]
                name, value = self._names[column], values[row, column]
                raise RowError(
                    f"the angle {origin} has no finite derivative with respect to '{name}' in ",
                    row,
                    f" of the parameter values, where '{name}' is {value}; move it away from there, or leave '{name}' "
                    "out of the parameters to differentiate.",
                )

    def _angles(self, group: Group, result: np.ndarray) -> np.ndarray:
        """Return values of expressions as real angles in radians; raise a RowError for a value that is no angle."""
        if np.iscomplexobj(result):
            wrong = ~(np.abs(result.imag) <= _IMAGINARY_TOLERANCE * np.maximum(1.0, np.abs(result)))
            self._refuse(wrong & np.isfinite(result), group, result, "an angle must be real")
            result = result.real
        self._refuse(~np.isfinite(result), group, result, "an angle must be a finite number")
        return result

    def _refuse(self, wrong: np.ndarray, group: Group, result: np.ndarray, rule: str) -> None:
        if wrong.any():
            row, member = np.argwhere(wrong)[0].tolist()
            before = f"the angle {self._origins[group.members[member]]} is {result[row, member]} for "
            raise RowError(before, row, f" of the parameter values; {rule}")
