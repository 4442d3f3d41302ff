# SPDX-License-Identifier: Apache-2.0
"""The reference engine: one original gate at a time, with NumPy. Slow and meant to be obviously right.

Values: ``psi = U_G ... U_1 psi_0``, ``value = <psi|O|psi>``. Gradients (adjoint): with ``lam = O psi`` and both pulled
back gate by gate, an angle v of gate g with ``dU_g/dv = -i/2 G U_g`` adds

    2 <psi|O|d psi/dv> = -i <lam_g| G - mean(G) |psi_g>

to its column, where ``psi_g, lam_g`` are the states just after gate g; the mean drops global phases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_fused.common.bits import spread
from qiskit_fused.engines.interface import NO_STATES, Ends, Evaluation, Watch
from qiskit_fused.lowering.gate_table import apply_gate, gate_generators, gate_matrix
from qiskit_fused.options.method import REVERSE, Method
from qiskit_fused.program.program import Gate, Program

if TYPE_CHECKING:
    from qiskit_fused.fusion.fused_program import FusedProgram
    from qiskit_fused.program.observables import Observables, TermMasks


class ReferenceEngine:
    """The oracle of the test-suite. It uncomputes, whatever the method."""

    def evaluate(
        self,
        plan: FusedProgram,
        observables: Observables,
        columns: np.ndarray,
        pairs: tuple[np.ndarray, np.ndarray],
        *,
        gradient: bool = False,
        imaginary: bool = False,
        cotangents: np.ndarray | None = None,
        sum_columns: np.ndarray | None = None,
        dtype: str = "complex128",
        method: Method = REVERSE,
        ends: Ends = NO_STATES,
        meanwhile: Callable[[], Any] | None = None,
        watch: Watch | None = None,
    ) -> Evaluation:
        """Evaluate pairs of rows and observables (see `Engine.evaluate`)."""
        program = plan.program
        terms = observables.restrict(program.wires)
        row_of, observable_of = (np.asarray(part, dtype=np.int64) for part in pairs)
        values = np.zeros(len(row_of))
        by_row = cotangents is not None or ends.final_cotangents is not None
        num_gradients = len(columns) if by_row else len(row_of)
        gradients = np.zeros((num_gradients, columns.shape[1])) if gradient else None
        of_states, final_states = None, None
        if gradient and ends.initial_gradients:
            of_states = np.zeros((num_gradients, 1 << plan.num_qubits), dtype=np.complex128)
        if ends.final:
            final_states = np.zeros((len(columns), 1 << plan.num_qubits), dtype=np.complex128)
        takes_all = ends.final or ends.final_cotangents is not None
        rows = np.arange(len(columns)) if takes_all else np.unique(row_of)
        num_adjoint_states = len(rows) if by_row else len(row_of)
        steps = _Steps(watch, len(program.gates) * (len(rows) + gradient * (len(rows) + num_adjoint_states)))
        for row in rows:
            start = None
            if ends.initial is not None:
                start = _all_qubits(plan, ends.initial[row if len(ends.initial) > 1 else 0])
            psi = final_state(program, columns[row], dtype, steps, start)
            if final_states is not None:
                final_states[row] = psi[_final_order(plan)]
            mine = np.flatnonzero(row_of == row)
            lams = [apply_observable(terms, observable, psi) for observable in observable_of[mine]]
            values[mine] = [np.vdot(psi, lam).real for lam in lams]
            if gradients is not None:
                out = mine
                if cotangents is not None:
                    weighted = [weight * lam for weight, lam in zip(cotangents[mine].astype(psi.real.dtype), lams)]
                    out, lams = np.array([row]), [np.sum(weighted, axis=0)]
                elif ends.final_cotangents is not None:
                    lam = np.zeros_like(psi)
                    lam[_final_order(plan)] = ends.final_cotangents[row] / 2
                    out, lams = np.array([row]), [lam]
                derivatives, lams = _pull_back(program, columns[row], psi, lams, steps)
                gradients[out] = derivatives.imag if imaginary else derivatives.real
                if of_states is not None:
                    seen = spread(_simulated(plan))
                    of_states[out] = [(2j if imaginary else 2) * lam[seen] for lam in lams]
        stats = {
            "device": "reference",
            "kernels": "numpy",
            "dtype": dtype,
            "rows": len(rows),
            "sweeps": 1 + 2 * bool(gradient),
        } | ({"method": REVERSE.name, "states": 1} if gradient else {})
        return Evaluation(values, gradients, stats, meanwhile() if meanwhile else None, of_states, final_states)


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


def _all_qubits(plan: FusedProgram, state: np.ndarray) -> np.ndarray:
    """Return a start state of the plan's bits with all other active qubits in |0>."""
    psi = np.zeros(1 << plan.program.num_qubits, dtype=state.dtype)
    psi[spread(_simulated(plan))] = state
    return psi


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
