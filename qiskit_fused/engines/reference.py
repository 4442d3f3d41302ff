# SPDX-License-Identifier: Apache-2.0
"""The reference engine: one original gate at a time, with NumPy. Slow and meant to be obviously right.

Values: ``psi = U_G ... U_1 psi_0``, ``value = <psi|O|psi>``. Gradients (adjoint): with ``lam = O psi`` and both pulled
back gate by gate, an angle v of gate g with ``dU_g/dv = -i/2 G U_g`` adds

    2 <psi|O|d psi/dv> = -i <lam_g| G - mean(G) |psi_g>

to its column, where ``psi_g, lam_g`` are the states just after gate g; the mean drops global phases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qiskit_fused.common.bits import spread
from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import Request
from qiskit_fused.lowering.gate_table import apply_gate, gate_generators, gate_matrix
from qiskit_fused.options.method import REVERSE
from qiskit_fused.program.program import Gate, Program

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram
    from qiskit_fused.program.observables import Observables, TermMasks


class ReferenceEngine:
    """The oracle of the test-suite. It uncomputes, whatever the method."""

    def evaluate(
        self, plan: FusedProgram, observables: Observables, request: Request, watch: Watch | None = None
    ) -> Evaluation:
        """Evaluate pairs of rows and observables (see `Engine.evaluate`)."""
        program, columns, pairs = plan.program, request.columns, request.pairs
        terms = observables.restrict(program.wires)
        found, rows = _empty_evaluation(plan, request), _simulated_rows(request)
        steps = _Steps(watch, len(program.gates) * _count_sweeps(request, len(rows)))
        for row in rows:
            mine = np.flatnonzero(pairs.row == row)
            psi = final_state(program, columns[row], request.dtype, steps, _initial_state(plan, request, row))
            lams = [apply_observable(terms, observable, psi) for observable in pairs.observable[mine]]
            found.values[mine] = [np.vdot(psi, lam).real for lam in lams]
            if found.final_states is not None:
                found.final_states[row] = psi[_final_order(plan)]
            if request.gradient is None:
                continue
            place = [row] if request.gradients_are_per_row else mine
            lams = _adjoint_states(plan, request, row, mine, psi, lams)
            derivatives, lams = _pull_back(program, columns[row], psi, lams, steps)
            found.gradients[place] = derivatives.imag if request.imaginary else derivatives.real
            if found.state_gradients is not None:
                seen = spread(_simulated(plan))
                found.state_gradients[place] = [(2j if request.imaginary else 2) * lam[seen] for lam in lams]
        found.stats = {
            "device": "reference",
            "kernels": "numpy",
            "dtype": request.dtype,
            "rows": len(rows),
            "sweeps": 1,
        }
        if request.gradient is not None:
            found.stats |= {"sweeps": 3, "method": REVERSE.name, "states": 1}
        return found


def _empty_evaluation(plan: FusedProgram, request: Request) -> Evaluation:
    """Return an evaluation whose arrays are zeros; values and gradients of rows without pairs stay so."""
    found = Evaluation(np.zeros(request.num_pairs))
    if request.gradient is not None:
        found.gradients = np.zeros((request.num_gradients, request.num_columns))
    if request.wants_state_gradients:
        found.state_gradients = np.zeros((request.num_gradients, 1 << plan.num_qubits), dtype=np.complex128)
    if request.boundary.final:
        found.final_states = np.zeros((request.num_rows, 1 << plan.num_qubits), dtype=np.complex128)
    return found


def _simulated_rows(request: Request) -> list[int]:
    """Return the rows with pairs, or all where final states go in or come out."""
    if request.boundary.final or request.boundary.final_cotangents is not None:
        return list(range(request.num_rows))
    return np.unique(request.pairs.row).tolist()


def _count_sweeps(request: Request, num_rows: int) -> int:
    """Count the states that are swept over all gates: psi there, and with gradients psi and each lam back."""
    if request.gradient is None:
        return num_rows
    return 2 * num_rows + (num_rows if request.gradients_are_per_row else request.num_pairs)


def _initial_state(plan: FusedProgram, request: Request, row: int) -> np.ndarray | None:
    """Return the state of all active qubits that a row brings, with qubits that the plan leaves out in |0>."""
    given = request.boundary.initial
    if given is None:
        return None
    state = given[row if len(given) > 1 else 0]
    psi = np.zeros(1 << plan.program.num_qubits, dtype=state.dtype)
    psi[spread(_simulated(plan))] = state
    return psi


def _adjoint_states(
    plan: FusedProgram, request: Request, row: int, mine: np.ndarray, psi: np.ndarray, lams: list[np.ndarray]
) -> list[np.ndarray]:
    """Return what is pulled back: O psi of each pair, their weighted sum, or half the cotangent of the final state."""
    if request.cotangents is not None:
        weights = request.cotangents[mine].astype(psi.real.dtype)
        return [np.sum([weight * lam for weight, lam in zip(weights, lams)], axis=0)]
    cotangents = request.boundary.final_cotangents
    if cotangents is None:
        return lams
    lam = np.zeros_like(psi)  # lam = O psi makes 2 Re <lam|d psi>; a cotangent G of the state, Re <G|d psi>
    lam[_final_order(plan)] = cotangents[row] / 2
    return [lam]


class _Steps:
    """Tells a watch about gates applied to states."""

    def __init__(self, watch: Watch | None = None, total: int = 0):
        self._watch, self._total, self._done = watch, total, 0

    def count(self, number: int) -> None:
        self._done += number
        if self._watch is not None and self._watch(self._done, self._total):
            raise RuntimeError("the evaluation was cancelled.")


def _simulated(plan: FusedProgram) -> list[int]:
    """Return the active qubit of each bit of the plan."""
    return [int(np.flatnonzero(plan.start_bits == bit)[0]) for bit in range(plan.num_qubits)]


def _final_order(plan: FusedProgram) -> np.ndarray:
    """Return the amplitude of the program's final state that each amplitude of the plan's is."""
    bits = plan.wires[plan.wires >= 0]
    return spread(plan.program.wires[plan.wires >= 0][np.argsort(bits)].tolist())


def final_state(
    program: Program,
    columns: np.ndarray,
    dtype: str = "complex128",
    steps: _Steps | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Return the statevector (2**num_qubits,) for one row of columns (C,), on the wires `Program.wires`."""
    if start is None:
        start = program.initial_state
    if start is not None:
        psi = start.astype(dtype)
    else:
        psi = np.zeros(1 << program.num_qubits, dtype=dtype)
        psi[0] = 1.0
    for gate in program.gates:
        psi = apply_gate(psi, gate_matrix(gate, angle_values(gate, columns)), gate)
        if steps is not None:
            steps.count(1)
    return psi


def angle_values(gate: Gate, columns: np.ndarray) -> list[float]:
    """Return the angles of a gate in radians for one row of columns (C,)."""
    return [
        angle.offset + (angle.coefficient * float(columns[angle.column]) if angle.column >= 0 else 0.0)
        for angle in gate.angles
    ]


def apply_observable(terms: TermMasks, observable: int, psi: np.ndarray) -> np.ndarray:
    """Return ``(O psi)[i] = sum_t c_t [(i & care_t) == value_t] (-1)^popcount(i & z_t) psi[i ^ x_t]``."""
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
    """Return 2 <psi|O_k|d psi/d column>, complex (len(lams), C), and the lams at the start."""
    derivatives = np.zeros((len(lams), len(columns)), dtype=complex)
    for gate in reversed(program.gates):
        values = angle_values(gate, columns)
        for angle, generator in zip(gate.angles, gate_generators(gate, values)):
            if angle.column >= 0:
                mean = np.trace(generator).real / len(generator) / 2 ** len(gate.controls)
                moved = apply_gate(psi, generator, gate, elsewhere=0.0) - psi.dtype.type(mean) * psi
                overlaps = [np.vdot(lam, moved) for lam in lams]
                derivatives[:, angle.column] += angle.coefficient * -1j * np.array(overlaps)
        inverse = gate_matrix(gate, values).conj().T
        psi = apply_gate(psi, inverse, gate)
        lams = [apply_gate(lam, inverse, gate) for lam in lams]
        steps.count(1 + len(lams))
    return derivatives, lams
