# SPDX-License-Identifier: Apache-2.0
"""The `Program`: a circuit as data, for every engine and device.

A Program holds the circuit twice. `gates` are the original gates, for the reference engine. `ops` is the normal form
for all fast engines: one-qubit rotations (leaves), commuting diagonal terms, and dense gates, which are constant
matrices on several qubits.

Conventions (used everywhere):

* amplitude ``i`` of a statevector has qubit ``q`` in state ``(i >> q) & 1``, as in Qiskit;
* an *angle* is a number in radians, ``coefficient * columns[column] + offset``; ``column == -1`` is a constant;
* *columns* are the Qiskit parameters of the circuit, in ``circuit.parameters`` order, followed by the values of all
  expressions that are not affine in a single parameter (see `Expressions`);
* gates and ops leave out global phases, which `Program.phase` records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from itertools import chain, pairwise
from typing import NamedTuple, Protocol

import numpy as np

from qiskit_fused.common.forks import cached_property
from qiskit_fused.common.native import CONSTANTS
from qiskit_fused.common.text import count_text
from qiskit_fused.program.amplitude_encoding import Encoding, Starts
from qiskit_fused.program.global_phase import GlobalPhase

MAX_QUBITS = 64
"""Largest number of qubits whose masks are 64-bit words. The masks of wider programs are Python integers."""


class OpKind(IntEnum):
    """The kinds of ops of the normal form.

    ``RX, RY, RZ``: ``exp(-i angle/2 P)`` on one qubit. ``SU2``: a constant one-qubit matrix, given as the unit
    quaternion ``(a, b, c, d)`` of ``a - i (b X + c Y + d Z)``. ``RV``: ``exp(-i/2 (x X + y Y + z Z))`` whose
    ``x, y, z`` are the three consecutive columns that start at ``column``. ``TERM``: the diagonal
    ``exp(-i/2 angle [(i & care) == value] (-1)^popcount(i & sign))``. ``DENSE``: a constant unitary matrix on the
    qubits of ``sign``, where ``(i & care) == value``. ``MAP``: a linear map of the index, see `fusion.linear_maps`; no
    program has maps.
    """

    RX = CONSTANTS.leaf_rx
    RY = CONSTANTS.leaf_ry
    RZ = CONSTANTS.leaf_rz
    SU2 = CONSTANTS.leaf_su2
    RV = CONSTANTS.leaf_rv
    TERM = RV + 1
    DENSE = RV + 2
    MAP = RV + 3


class Angle(NamedTuple):
    """``coefficient * columns[column] + offset`` radians; ``column`` is -1 for a constant."""

    column: int = -1
    coefficient: float = 0.0
    offset: float = 0.0


class Gate(NamedTuple):
    """An original gate: a matrix of the gate table (or ``matrix``) on ``qubits``, under ``controls``.

    ``qubits[0]`` is the least significant bit of the matrix, as in Qiskit. Bit ``j`` of ``ctrl_state`` is the state
    that ``controls[j]`` must be in.
    """

    name: str
    qubits: tuple[int, ...]
    angles: tuple[Angle, ...] = ()
    controls: tuple[int, ...] = ()
    ctrl_state: int = 0
    matrix: np.ndarray | None = None

    def on(self, places: Mapping[int, int] | Sequence[int]) -> Gate:
        """Return the same gate on other qubits: qubit q becomes qubit ``places[q]``."""
        qubits, controls = (tuple([places[qubit] for qubit in part]) for part in (self.qubits, self.controls))
        return self._replace(qubits=qubits, controls=controls)


@dataclass(frozen=True)
class Ops:
    """The normal form as parallel arrays of length ``len(kind)``, in circuit order.

    Masks are uint64; in programs of more than `MAX_QUBITS` qubits they are Python integers, in arrays of dtype object.
    """

    kind: np.ndarray  # uint8, an OpKind
    qubit: np.ndarray  # int32, the target of a leaf, -1 for other ops
    column: np.ndarray  # int32, -1 for a constant angle
    coefficient: np.ndarray  # float64, radians per unit of the column
    offset: np.ndarray  # float64, radians
    care: np.ndarray  # masks of the bits that a term reads, or of the controls of a dense gate; 0 for a leaf
    value: np.ndarray  # masks of the bits that must be 1, a subset of care, 0 for a leaf
    sign: np.ndarray  # masks of the bits whose parity is the sign of a term, or of a dense gate's targets; 0 for a leaf
    quaternion: np.ndarray  # float64 (len, 4), (1, 0, 0, 0) unless the op is an SU2
    # The matrix of each dense gate in turn, complex128 (2**k, 2**k). Bit j of a row is the j-th lowest bit of ``sign``.
    matrices: tuple[np.ndarray, ...] = ()

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, chosen: np.ndarray | slice) -> Ops:
        """Return the ops with the chosen numbers."""
        matrices: tuple[np.ndarray, ...] = ()
        if self.matrices:
            is_dense = self.kind == OpKind.DENSE
            numbers = (np.cumsum(is_dense) - 1)[chosen][is_dense[chosen]]
            matrices = tuple([self.matrices[number] for number in numbers.tolist()])
        return Ops(**{name: getattr(self, name)[chosen] for name in _ARRAYS_OF_OPS}, matrices=matrices)

    def with_small_constants(self) -> Ops:
        """Return the same ops with constant angles of at most one turn.

        An op is ``exp(-i angle/2 g)`` with eigenvalues -1, 0 and 1 of g, so it does not change if its angle changes by
        two turns. Fusion adds constant angles, and a sum of large angles would be rounded like its largest partial sum.
        """
        is_large = (self.column < 0) & (np.abs(self.offset) > 2 * np.pi)
        if not is_large.any():
            return self
        half = np.where(is_large, self.offset / 2, 0.0)
        return replace(self, offset=np.where(is_large, 2 * np.arctan2(np.sin(half), np.cos(half)), self.offset))

    @staticmethod
    def joined(parts: Sequence[Ops]) -> Ops:
        """Return the ops of all parts, one part after the other."""
        arrays = {name: np.concatenate([getattr(ops, name) for ops in parts]) for name in _ARRAYS_OF_OPS}
        return Ops(**arrays, matrices=tuple(chain.from_iterable(ops.matrices for ops in parts)))

    def varies(self, columns: np.ndarray) -> np.ndarray:
        """Return, bool (number of ops,), which ops depend on some column of ``columns``, bool (C,)."""
        padded = np.append(columns, [False] * 3)  # entry -1 is for constant angles, whose column is -1
        varies: np.ndarray = padded[self.column]
        for further in (1, 2):
            varies = varies | ((self.kind == OpKind.RV) & padded[self.column + further])
        return varies


_ARRAYS_OF_OPS = [part.name for part in fields(Ops) if part.name != "matrices"]


class Expressions(Protocol):
    """The E columns that are not plain parameters, evaluated and differentiated over a whole batch."""

    num_expressions: int
    uses: np.ndarray  # bool (P,), the parameters on which some expression depends

    def evaluate(self, values: np.ndarray) -> np.ndarray:
        """Map parameter values (B, P) to expression values (B, E)."""

    def depend_on(self, parameters: np.ndarray) -> np.ndarray:
        """Return, bool (E,), which expressions depend on some parameter of ``parameters``, bool (P,)."""

    def pull_back(self, values: np.ndarray, gradients: np.ndarray, unseen: np.ndarray | None = None) -> np.ndarray:
        """Map gradients (B, K, P + E) with respect to columns to gradients (B, K, P) with respect to parameters.

        A gradient is NaN if an expression has no finite derivative, unless the results do not depend on the expression
        (``unseen``, bool (E,)).
        """

    def jacobian(self, values: np.ndarray) -> np.ndarray:
        """Return the derivatives of the expressions, float64 (B, E, P), at parameter values (B, P)."""

    def rates(self, values: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return first and second derivatives (B, E) of the expressions along directions (B, P); 0 if not finite."""

    def pull_back_rates(
        self, values: np.ndarray, directions: np.ndarray, gradients: np.ndarray, unseen: np.ndarray
    ) -> np.ndarray:
        """Map gradients g (B, K, P + E) and directions v (B, P) to ``sum_e g_e d^2 c_e/dx_p dx_q v_q`` (B, K, P)."""

    def check_derivatives(self, values: np.ndarray, row: int, column: int) -> None:
        """Raise a RowError if an expression has no finite derivative in a row with respect to a parameter."""


@dataclass(frozen=True, eq=False)
class Program:
    """A lowered circuit.

    Attributes:
        num_qubits: number of active qubits. Circuit qubits on which no gate acts are dropped.
        num_circuit_qubits: number of qubits of the circuit, to which the observables refer.
        wires: int32 (num_circuit_qubits,), the active qubit of each circuit qubit; -1 for an idle qubit, which stays
            in |0>. Valid for `gates` and for the start of `ops`.
        output_wires: the same array for the end of `ops`, because a swap renames two qubits instead of moving data.
        num_parameters: P, the number of Qiskit parameters.
        expressions: the E further columns.
        gates: the original gates on active qubits, swaps included.
        ops: the normal form on active qubits.
        instructions: int64 (M + 1, 2), the numbers of the first gate and the first op of each instruction. Code that
            reorders instructions moves the gates and the ops of an instruction together.
        pieces: the factors of the start state, each on some active qubits. All other qubits start in |0>.
        prefix: the gates, by instruction, that pieces replace. They are not among `gates` (see `constant_prefix`).
        any_start: whether each row brings a start state of all circuit qubits (see `from_any_state`).
        parameter_names: the names of the P parameters, for pictures.
        needs_zero: name, index and circuit qubits of the first instruction that needs its qubits in |0>, else None.
        phase: the global phases that the gates and the ops leave out; None if nobody asks for final states.
    """

    num_qubits: int
    num_circuit_qubits: int
    wires: np.ndarray
    output_wires: np.ndarray
    num_parameters: int
    expressions: Expressions
    gates: tuple[Gate, ...]
    ops: Ops
    instructions: np.ndarray
    pieces: tuple[Encoding, ...] = ()
    prefix: tuple[tuple[Gate, ...], ...] = ()
    any_start: bool = False
    needs_zero: tuple[str, int, tuple[int, ...]] | None = None
    parameter_names: tuple[str, ...] = ()
    phase: GlobalPhase | None = None

    def __repr__(self) -> str:
        num_gates = self.count_gates().total()
        counts = (self.num_circuit_qubits, "qubit"), (self.num_parameters, "parameter"), (num_gates, "gate")
        return f"Program({', '.join(count_text(*count) for count in counts)})"

    def count_gates(self) -> Counter[str]:
        """Count the gates by name. The name has a c for each control, and mc for three or more: cx, ccx, mcx.

        A gate such as CU is lowered to a gate and a phase on its controls. Such a phase is not counted.
        """
        counts: Counter[str] = Counter()
        others = [self.gates[begin:end] for begin, end in pairwise(self.instructions[:, 0].tolist())]
        for gates in [*self.prefix, *others]:
            for gate in [gate for gate in gates if gate.name != "global_phase"] or gates:
                num_controls = len(gate.controls)
                counts["c" * num_controls + gate.name if num_controls < 3 else f"mc{gate.name}"] += 1
        return counts

    @cached_property
    def encodings(self) -> tuple[Encoding, ...]:
        """The pieces of the start state if some piece differs between rows, else no pieces."""
        return self.pieces if any(piece.varies for piece in self.pieces) else ()

    @cached_property
    def initial_state(self) -> np.ndarray | None:
        """The start state, complex128 (2**num_qubits,); None for |0...0> and for start states that differ by row."""
        if not self.pieces or self.encodings:
            return None
        return Starts(self.pieces, np.arange(self.num_qubits), self.num_qubits).states(np.zeros((1, 0)))[0]

    def __getstate__(self) -> dict[str, object]:
        """Return the fields to pickle, without cached properties."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    @property
    def starts_together(self) -> list[tuple[int, ...]]:
        """The active qubits that do not start in |0>; the qubits of one start state are one tuple."""
        return [tuple(range(self.num_qubits))] if self.any_start else [piece.qubits for piece in self.pieces]

    @property
    def takes_states(self) -> bool:
        """Whether each row has its own start state."""
        return self.any_start or bool(self.encodings)

    def encodes(self, parameters: np.ndarray | None) -> bool:
        """Say whether amplitudes of the start state may depend on some of these parameters.

        Args:
            parameters: columns of parameters; None stands for all parameters.
        """
        if parameters is None or not self.encodings:
            return bool(self.encodings)
        columns = np.concatenate([encoding.column.ravel() for encoding in self.encodings])
        # an expression counts as dependent on every parameter
        return bool((np.isin(columns, parameters) | (columns >= self.num_parameters)).any())

    def depends_on(self, parameters: np.ndarray) -> np.ndarray:
        """Return, bool (C,), which columns depend on some parameter of ``parameters``, bool (P,)."""
        return np.concatenate([parameters, self.expressions.depend_on(parameters)])

    @property
    def array_bytes(self) -> int:
        """Bytes of start states and matrices, which may be large even if the circuit has few gates."""
        gates = [*self.gates, *chain.from_iterable(self.prefix)]
        arrays = [gate.matrix for gate in gates if gate.matrix is not None]
        arrays += self.ops.matrices
        for piece in self.pieces:
            arrays += [piece.column, piece.coefficient, piece.offset]
        return sum(array.nbytes for array in arrays)

    @property
    def num_columns(self) -> int:
        """C = P + E."""
        return self.num_parameters + self.expressions.num_expressions

    def columns(self, parameter_values: np.ndarray) -> np.ndarray:
        """Evaluate all columns: parameter values (B, P) -> (B, P + E), float64 and contiguous.

        Raises:
            RowError: if the value of an expression is not finite or not real.
        """
        if not self.expressions.num_expressions:
            return np.ascontiguousarray(parameter_values, dtype=np.float64)
        return np.concatenate([parameter_values, self.expressions.evaluate(parameter_values)], axis=1)

    def from_any_state(self) -> Program:
        """Return the same program for rows that bring start states of all circuit qubits, idle qubits included.

        This program must not have a prefix (see `constant_prefix.with_prefix`).
        """
        wires, output_wires = self.wires.copy(), self.output_wires.copy()
        idle = np.flatnonzero(wires < 0)
        wires[idle] = output_wires[idle] = np.arange(self.num_qubits, self.num_circuit_qubits)
        return replace(
            self,
            num_qubits=self.num_circuit_qubits,
            wires=wires,
            output_wires=output_wires,
            any_start=True,
        )
