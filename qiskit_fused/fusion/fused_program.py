# SPDX-License-Identifier: Apache-2.0
"""FusedProgram: the arrays of a circuit from which every engine runs it.

A fused program is *phases* and *layers* in turn: phase 0, layer 0, phase 1, ..., phase D. A phase is any number of
commuting diagonal gates, executed as one complex multiplication per amplitude. A layer is at most one rotation ``Ry``
per qubit, and dense gates on other qubits. Each rotation is the middle of a *run*: the gates of one qubit between two
terms, multiplied into ``Rz(phi) Ry(beta) Rz(lambda)`` when the angles are known. Diagonal gates at either end of a run
are terms of the phases beside it.

The class holds the data and the few properties that every engine needs. Each engine has its own module for the costs
of a fused program, and `qiskit_fused.inspection.plan.Plan` shows a fused program to people.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.program.amplitude_encoding import Starts
from qiskit_fused.program.global_phase import PhaseSum, means_of_generators
from qiskit_fused.program.program import OpKind, Program

_EXACT = CONSTANTS.smallest_sine  # a constant's sine or cosine below this value counts as 0
_OBJECT_BYTES = 6000  # bytes of the Python objects of one fused program, without its arrays


@dataclass(frozen=True, eq=False)
class FusedProgram:
    """A circuit as engines run it. Two fused programs are equal only if they are the same object.

    Attributes:
        program: the program that was fused.
        num_qubits: n, number of simulated qubits: the qubits that some observable can see.
        wires: int array (num_circuit_qubits,), bit of each circuit qubit in the final state, -1 where the qubit is
            not simulated.
        num_layers: D, number of layers of rotations, dense gates and linear maps.
        initial_state: complex128 (2**n,), the state that all rows start in; None for ``|0...0>``.
        starts: makes the start state of each row from the row's columns; None if all rows start alike.
        start_bits: int64, bit of each active qubit of the program at the start, -1 where it is not simulated.
        support: uint8 (num_circuit_qubits,), the action of the observables on each circuit qubit: 0 none, 1 a
            diagonal, 2 any other. None if no gate was left out.
        phase: 0 or pi, a global phase in radians: the ops of the program are ``exp(i phase)`` times the runs and terms,
            if no gate was left out.
        ops_of_maps: number of ops of the program that the linear maps replace.
        extra_phase: radians, the phase that an engine adds to the phase of final states. It is 0 except for the result
            of `rotations_and_terms`, whose rotations and terms differ from dense gates by a phase.

    The arrays of the R runs and T terms have the dtypes and meanings of the arrays of ``program.ops``:

    * ``leaf_kind``, ``leaf_column``, ``leaf_coefficient``, ``leaf_offset``, ``leaf_quaternion``: the gates of all runs.
    * ``run_begin``: int32 (R + 1,), leaves of run ``r`` are ``run_begin[r]:run_begin[r + 1]``.
    * ``run_qubit``, ``run_layer``: int32 (R,), sorted by layer, then by qubit.
    * ``term_phase``: int32 (T,), ascending, and the other term arrays, with masks over the n bits.
    * ``dense_layer``: int32 (M,), ascending, the layers of the M dense gates; ``dense_targets``, ``dense_care`` and
      ``dense_value``: uint64 (M,), masks over the n bits: the matrix acts on the targets where ``(i & care) == value``.
      ``dense_matrices``: the M matrices; bit j of a row is the j-th lowest target. No dense gate is in layer 0.
    * ``map_layer``: int32 (K,), ascending, the layers of the K linear maps, and ``map_number``: int32 (K,), the number
      of each map among the L different maps ``map_columns``: uint64 (L, n). A map moves amplitude ``i`` to the XOR of
      the columns ``b`` over the set bits ``b`` of ``i``. Bit ``b`` is the highest bit of column ``b``. No map is in
      layer 0, a layer has at most one map, and its rotations act on other bits.
    """

    program: Program
    num_qubits: int
    wires: np.ndarray
    num_layers: int
    leaf_kind: np.ndarray
    leaf_column: np.ndarray
    leaf_coefficient: np.ndarray
    leaf_offset: np.ndarray
    leaf_quaternion: np.ndarray
    run_begin: np.ndarray
    run_qubit: np.ndarray
    run_layer: np.ndarray
    term_phase: np.ndarray
    term_column: np.ndarray
    term_coefficient: np.ndarray
    term_offset: np.ndarray
    term_care: np.ndarray
    term_value: np.ndarray
    term_sign: np.ndarray
    dense_layer: np.ndarray
    dense_targets: np.ndarray
    dense_care: np.ndarray
    dense_value: np.ndarray
    dense_matrices: tuple[np.ndarray, ...]
    map_layer: np.ndarray
    map_number: np.ndarray
    map_columns: np.ndarray
    initial_state: np.ndarray | None
    starts: Starts | None
    start_bits: np.ndarray
    support: np.ndarray | None
    phase: float = 0.0
    ops_of_maps: int = 0
    extra_phase: float = 0.0

    @property
    def takes_states(self) -> bool:
        """Whether each row starts in its own state of the simulated qubits."""
        return self.starts is not None or self.program.any_start

    @property
    def starts_at_zero(self) -> bool:
        """Whether all rows start in ``|0...0>``."""
        return self.initial_state is None and not self.takes_states

    @cached_property
    def phase_of_gates(self) -> PhaseSum:
        """The phase by which the gates of the program differ from the traceless runs and terms.

        The gates are ``exp(i phase)`` times the traceless runs and terms, if no gate was left out.
        """
        assert self.program.phase is not None
        means = means_of_generators(self.term_care, self.term_value, self.term_sign)
        return self.program.phase.left_out.plus(self.sum_of_terms(-0.5 * means)).plus_constant(self.phase)

    @cached_property
    def phase_of_circuit(self) -> PhaseSum:
        """The phase by which the circuit differs from its traceless form, without `GlobalPhase.expressions`."""
        assert self.program.phase is not None
        return self.program.phase.of_circuit.plus(self.phase_of_gates)

    def sum_of_terms(self, factor: np.ndarray) -> PhaseSum:
        """Return the sum of the angles of the terms times factors (T,), which are 0 or powers of 2 with signs."""
        return PhaseSum.of(self.term_column, factor * self.term_coefficient, factor * self.term_offset)

    @property
    def num_runs(self) -> int:
        """Number of runs; each run is executed as one rotation."""
        return len(self.run_qubit)

    @cached_property
    def work(self) -> float:
        """Work of a sweep for each amplitude, in rotations: two for a multiply-add of a dense gate, eight for a map."""
        return self.num_runs + float(self.dense_multiply_adds.sum()) * 2 + 8 * len(self.map_layer)

    @cached_property
    def dense_multiply_adds(self) -> np.ndarray:
        """For each dense gate, float64 (M,), the mean number of complex multiply-adds for an amplitude."""
        targets, controls = (np.bitwise_count(masks).astype(float) for masks in (self.dense_targets, self.dense_care))
        return 2.0 ** (targets - controls)

    @cached_property
    def is_real(self) -> bool:
        """Whether states stay real up to a global phase for all angles; real states halve memory and work."""
        if self.takes_states or (self.initial_state is not None and self.initial_state.imag.any()):
            return False
        if (self.term_column >= 0).any() or any(matrix.imag.any() for matrix in self.dense_matrices):
            return False
        others = np.flatnonzero(self.leaf_kind != OpKind.RY)
        if len(others):
            is_constant = self.leaf_kind[others] == OpKind.SU2
            constants, turns = others[is_constant], others[~is_constant]
            half = self.leaf_offset[turns] / 2
            rest = np.minimum(np.abs(np.sin(half)), np.abs(np.cos(half)))
            if (self.leaf_column[turns] >= 0).any() or (rest >= _EXACT).any():
                return False
            a, b, c, d = np.abs(self.leaf_quaternion[constants].T) < _EXACT
            if not ((b & d) | (a & c)).all():
                return False
        is_sign = np.abs(np.sin(self.term_offset / 2)) < _EXACT
        if is_sign.all():
            return True
        few = (self.term_care == 0) & (np.bitwise_count(self.term_sign) <= 2)
        return bool((is_sign | (few & (np.abs(np.cos(self.term_offset / 2)) < _EXACT))).all())

    def stays_real(self, *, imaginary: bool = False, final_states: bool = False) -> bool:
        """Return whether an evaluation may hold its amplitudes as real numbers.

        Args:
            imaginary: whether gradients are 2 Im <psi|O|d psi>; their adjoint states lam are not real.
            final_states: whether final states go out, whose global phase is complex, or their cotangents come in.
        """
        return not imaginary and not final_states and self.is_real

    @cached_property
    def single_axis(self) -> np.ndarray:
        """Which runs, bool (R,), hold only RX or only RY gates: the gradients of such a run need one sum, not three."""
        first = self.leaf_kind[self.run_begin[:-1]]
        rest = np.repeat(first, np.diff(self.run_begin))
        differs = (self.leaf_kind != rest) | ~np.isin(self.leaf_kind, (OpKind.RX, OpKind.RY))
        return np.add.reduceat(differs, self.run_begin[:-1]) == 0 if self.num_runs else np.zeros(0, bool)

    @property
    def num_bytes(self) -> int:
        """Estimated bytes of the arrays and of the engine's data made from them: the object's weight in a cache."""
        start = 8 * (len(self.wires) + len(self.start_bits))
        start += 0 if self.initial_state is None else self.initial_state.nbytes
        ops = 181 * len(self.leaf_kind) + 84 * self.num_runs + 152 * len(self.term_phase)
        # The engine holds a copy of each matrix, and the matrix with its inverse in both number formats.
        ops += 5 * sum(matrix.nbytes for matrix in self.dense_matrices)
        ops += (1 << 19) * len(self.map_columns)  # the lists of blocks of a map and its inverse, in both number formats
        return start + ops + 1200 * (self.num_layers + 1) + _OBJECT_BYTES

    def __getstate__(self) -> dict[str, object]:
        """Return the fields for pickling, without the cached properties."""
        return {part.name: getattr(self, part.name) for part in fields(self)}
