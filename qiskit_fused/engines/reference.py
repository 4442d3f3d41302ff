# SPDX-License-Identifier: Apache-2.0
"""The reference engine: the definition of values and gradients, one original gate at a time, with NumPy.

The engine is slow and meant to be obviously right; tests compare the fast engines with it. A row of angles sets the
gates U_1 ... U_G of a circuit, and observable k is a sum of terms. The states and the value are

    psi_0 = |0...0> or an initial state,    psi_g = U_g psi_(g-1),    value = <psi_G| O_k |psi_G>.

Gradients follow from the adjoint states, which start from the final state and go back gate by gate:

    lambda_G = O_k psi_G,    lambda_(g-1) = U_g^dagger lambda_g.

An angle v of gate g has a generator A, defined by ``d U_g / dv = -i/2 A U_g``. Its complex derivative is

    2 <psi_G| O_k |d psi_G / dv> = -i <lambda_g| A - mean(A) |psi_g>,    mean(A) = trace(A) / 2**num_qubits.

The mean of a generator moves the global phase of the state alone, so the definition leaves it out. Final states, and
their cotangents, have the global phase of gates without these means (see `global_phase`). An angle is an
offset plus a coefficient times a column; the derivative for a column sums coefficient times derivative over its angles.
The gradient of the value is the real part of this sum, and an ``imaginary`` gradient is the imaginary part.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_fused.common.bits import spread
from qiskit_fused.engines.evaluation import Evaluation, empty_evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import Request
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.lowering.gate_table import apply_gate, gate_generators, gate_matrix
from qiskit_fused.options.method import REVERSE
from qiskit_fused.program.observables import Observables, TermMasks
from qiskit_fused.program.program import Gate, Program


class ReferenceEngine:
    """The slow engine of the tests. It holds one state of a row, and uncomputes it under every method."""

    def evaluate(
        self, plan: FusedProgram, observables: Observables, request: Request, watch: Watch | None = None
    ) -> Evaluation:
        """Evaluate pairs of rows and observables (see `Engine.evaluate`)."""
        program, pairs = plan.program, request.pairs
        terms = observables.restrict(program.wires)
        evaluation, rows = empty_evaluation(request, plan.num_qubits), _simulated_rows(request)
        if evaluation.gradients is not None:
            evaluation.gradients.fill(0.0)  # of rows without pairs
        steps = _Steps(watch, len(program.gates) * _count_sweeps(request, len(rows)))
        for row in rows:
            columns, pairs_of_row = request.columns[row], np.flatnonzero(pairs.row == row)
            psi = final_state(program, columns, request.dtype, steps, _initial_state(plan, request, row))
            lams = [apply_observable(terms, observable, psi) for observable in pairs.observable[pairs_of_row]]
            evaluation.values[pairs_of_row] = [np.vdot(psi, lam).real for lam in lams]
            if evaluation.final_states is not None:
                evaluation.final_states[row] = psi[_final_order(plan)] * _factor_of_gates(plan, columns).conjugate()
            if request.gradient is not None:
                lams = _adjoint_states(plan, request, row, pairs_of_row, psi, lams)
                derivatives, initial_lams = _pull_back(program, columns, psi, lams, steps)
                places = [row] if request.gradients_are_per_row else pairs_of_row
                _store_gradients(evaluation, plan, request, places, derivatives, initial_lams)
        evaluation.stats = _stats(request, len(rows))
        return evaluation


# The mathematics: one row, and states on the wires of the program.


def final_state(
    program: Program,
    columns: np.ndarray,
    dtype: str = "complex128",
    steps: _Steps | None = None,
    initial: np.ndarray | None = None,
) -> np.ndarray:
    """Return ``psi_G = U_G ... U_1 psi_0``, complex (2**num_qubits,), on the wires `Program.wires`.

    Args:
        program: the circuit.
        columns: float64 (C,), the columns of one row.
        dtype: number format of the amplitudes.
        steps: counts the gates.
        initial: psi_0, (2**num_qubits,); None is the initial state of the program, by default ``|0...0>``.
    """
    if initial is None:
        initial = program.initial_state
    if initial is not None:
        psi = initial.astype(dtype)
    else:
        psi = np.zeros(1 << program.num_qubits, dtype=dtype)
        psi[0] = 1.0
    for gate in program.gates:
        psi = apply_gate(psi, gate_matrix(gate, angle_values(gate, columns)), gate)
        if steps is not None:
            steps.count(1)
    return psi


def angle_values(gate: Gate, columns: np.ndarray) -> list[float]:
    """Return ``offset + coefficient * column`` for each angle of a gate, in radians, for one row of columns (C,)."""
    return [
        angle.offset + (angle.coefficient * float(columns[angle.column]) if angle.column >= 0 else 0.0)
        for angle in gate.angles
    ]


def apply_observable(terms: TermMasks, observable: int, psi: np.ndarray) -> np.ndarray:
    """Return ``(O psi)[i] = sum_t c_t [(i & care_t) == value_t] (-1)^popcount(i & z_t) psi[i ^ x_t]``.

    The projector onto outcome k is ``(P_k psi)[i] = [outcome[i] == k] psi[i]``.
    """
    if terms.outcome is not None:
        return np.where(terms.outcome == observable, psi, 0)
    indices = np.arange(len(psi), dtype=np.uint64)
    result = np.zeros_like(psi)
    for term in np.flatnonzero(terms.observable == observable):
        coefficient = terms.real[term] + 1j * terms.imag[term]
        sign = 1.0 - 2.0 * parity(indices & terms.z[term])
        selected = (indices & terms.care[term]) == terms.value[term]
        result += (coefficient * sign * selected).astype(psi.dtype) * psi[indices ^ terms.x[term]]
    return result


def parity(words: np.ndarray) -> np.ndarray:
    """Return popcount modulo 2 of uint64 words."""
    for shift in (32, 16, 8, 4, 2, 1):
        words = words ^ (words >> np.uint64(shift))
    return words & np.uint64(1)


def _pull_back(
    program: Program, columns: np.ndarray, psi: np.ndarray, lams: list[np.ndarray], steps: _Steps
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Pull psi_G and the adjoint states lambda_G back to the start of the circuit, and sum the derivatives.

    Returns:
        The derivatives, complex128 (len(lams), C): for each adjoint state and each column, the sum over the angles v of
        the column of ``coefficient * -i <lambda_g| A - mean(A) |psi_g>``. Then the adjoint states lambda_0.
    """
    derivatives = np.zeros((len(lams), len(columns)), dtype=complex)
    for gate in reversed(program.gates):
        values = angle_values(gate, columns)
        for angle, generator in zip(gate.angles, gate_generators(gate, values)):
            if angle.column >= 0:
                moved = _apply_generator(generator, gate, psi)
                overlaps = [np.vdot(lam, moved) for lam in lams]
                derivatives[:, angle.column] += angle.coefficient * -1j * np.array(overlaps)
        inverse = gate_matrix(gate, values).conj().T
        psi = apply_gate(psi, inverse, gate)
        lams = [apply_gate(lam, inverse, gate) for lam in lams]
        steps.count(1 + len(lams))
    return derivatives, lams


def _apply_generator(generator: np.ndarray, gate: Gate, psi: np.ndarray) -> np.ndarray:
    """Return ``(A - mean(A)) psi``. The generator of a controlled gate is zero where a control is not in its state."""
    mean = np.trace(generator).real / len(generator) / 2 ** len(gate.controls)
    return apply_gate(psi, generator, gate, elsewhere=0.0) - psi.dtype.type(mean) * psi


# The bookkeeping: which rows are simulated, which adjoint states a row has, and where its gradients are stored.


class _Steps:
    """Counts the gates applied to states, and reports them to a watch."""

    def __init__(self, watch: Watch | None = None, total: int = 0):
        self._watch, self._total, self._done = watch, total, 0

    def count(self, number: int) -> None:
        self._done += number
        if self._watch is not None and self._watch(self._done, self._total):
            raise RuntimeError("the evaluation was cancelled.")


def _simulated_rows(request: Request) -> list[int]:
    """Return the rows that have pairs; all rows if the request has final states or their cotangents."""
    if request.boundary.final or request.boundary.final_cotangents is not None:
        return list(range(request.num_rows))
    return np.unique(request.pairs.row).tolist()


def _count_sweeps(request: Request, num_rows: int) -> int:
    """Count how often a state goes through all gates: psi forward, and with gradients psi and each lambda back."""
    if request.gradient is None:
        return num_rows
    return 2 * num_rows + (num_rows if request.gradients_are_per_row else request.num_pairs)


def _initial_state(plan: FusedProgram, request: Request, row: int) -> np.ndarray | None:
    """Return the initial state of a row on all wires of the program, or None if the request has no initial states.

    Wires that the plan leaves out are in |0>.
    """
    initial = request.boundary.initial
    if initial is None:
        return None
    state = initial[row if len(initial) > 1 else 0]
    psi = np.zeros(1 << plan.program.num_qubits, dtype=state.dtype)
    psi[_initial_order(plan)] = state
    return psi


def _adjoint_states(
    plan: FusedProgram,
    request: Request,
    row: int,
    pairs_of_row: np.ndarray,
    psi: np.ndarray,
    applied: list[np.ndarray],
) -> list[np.ndarray]:
    """Return the adjoint states lambda_G of one row.

    Without cotangents these are ``O_k psi_G``, one for each pair. Cotangents w of pairs make one adjoint state, ``sum_k
    w_k O_k psi_G``. A cotangent G of the final state makes ``G / 2``, because ``lambda_G = O psi_G`` stands for the
    derivative ``2 Re <lambda_G|d psi_G>``, and G stands for ``Re <G|d psi_G>``.

    Args:
        plan: the fused program.
        request: all rows and pairs.
        row: the row.
        pairs_of_row: the indices of its pairs.
        psi: psi_G.
        applied: ``O_k psi_G`` for each pair of the row.
    """
    if request.cotangents is not None:
        weights = request.cotangents[pairs_of_row].astype(psi.real.dtype)
        return [np.sum([weight * state for weight, state in zip(weights, applied)], axis=0)]
    final_cotangents = request.boundary.final_cotangents
    if final_cotangents is None:
        return applied
    lam = np.zeros_like(psi)
    lam[_final_order(plan)] = final_cotangents[row] / 2 * _factor_of_gates(plan, request.columns[row])
    return [lam]


def _factor_of_gates(plan: FusedProgram, columns: np.ndarray) -> complex:
    """Return the factor of modulus 1 by which the gates differ from the traceless runs and terms of a plan."""
    return complex(plan.phase_of_gates.factors(columns[None])[0])


def _store_gradients(
    evaluation: Evaluation,
    plan: FusedProgram,
    request: Request,
    places: list[int] | np.ndarray,
    derivatives: np.ndarray,
    initial_lams: list[np.ndarray],
) -> None:
    """Write the gradients of one row to their places, which are its row or the indices of its pairs.

    The gradient of the initial state is ``G = 2 lambda_0``, so that ``d value = Re sum conj(G) d psi_0``.
    """
    evaluation.gradients[places] = derivatives.imag if request.imaginary else derivatives.real
    if evaluation.state_gradients is not None:
        factor = 2j if request.imaginary else 2
        order = _initial_order(plan)
        evaluation.state_gradients[places] = [factor * lam[order] for lam in initial_lams]


def _initial_order(plan: FusedProgram) -> np.ndarray:
    """Return int (2**num_qubits of the plan,): amplitude i of a plan's initial state is amplitude order[i] of psi_0."""
    qubit_of_bit = [int(np.flatnonzero(plan.start_bits == bit)[0]) for bit in range(plan.num_qubits)]
    return spread(qubit_of_bit)


def _final_order(plan: FusedProgram) -> np.ndarray:
    """Return int (2**num_qubits of the plan,): amplitude i of a plan's final state is amplitude order[i] of psi_G."""
    bits = plan.wires[plan.wires >= 0]
    return spread(plan.program.wires[plan.wires >= 0][np.argsort(bits)].tolist())


def _stats(request: Request, num_rows: int) -> dict[str, Any]:
    stats = {"device": "reference", "kernels": "numpy", "dtype": request.dtype, "rows": num_rows, "sweeps": 1}
    if request.gradient is not None:
        stats |= {"sweeps": 3, "method": REVERSE.name, "states": 1}
    return stats
