# SPDX-License-Identifier: Apache-2.0
"""Rules for operations that have a better lowering than their definition: evolutions, unitaries, diagonals and others.

Each rule ``rule(lowering, op, qubits, controls, state)`` records the original gates and emits the normal form of the
operation ``op`` on active ``qubits``. Bit j of ``state`` is the state that ``controls[j]`` must be in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from qiskit.circuit import AnnotatedOperation, Instruction, ParameterExpression
from qiskit.circuit import library as circuit_library
from qiskit.circuit.library import (
    DiagonalGate,
    HamiltonianGate,
    Initialize,
    Isometry,
    PauliEvolutionGate,
    PauliGate,
    PermutationGate,
    StatePreparation,
    UCGate,
    UCPauliRotGate,
    UCRXGate,
    UCRYGate,
    UCRZGate,
    UnitaryGate,
)
from qiskit.quantum_info import SparseObservable, SparsePauliOp
from qiskit_machine_learning.circuit.library.raw_feature_vector import ParameterizedInitialize

from qiskit_fused.common.bits import walsh
from qiskit_fused.lowering.constant_prefix import start_from_gate
from qiskit_fused.lowering.context import LoweringContext
from qiskit_fused.lowering.emitter import constant, scaled
from qiskit_fused.lowering.expressions import affine
from qiskit_fused.lowering.gate_table import PAULIS, kron
from qiskit_fused.lowering.matrices import (
    Qubits,
    by_definition,
    diagonal,
    emit_matrix,
    hermitian_matrix,
    isometry,
    require_dense,
    require_real,
    unitary,
)
from qiskit_fused.lowering.modifiers import annotated
from qiskit_fused.program.amplitude_encoding import Encoding
from qiskit_fused.program.program import Angle, Gate

# The gates that prepare each letter of a product state from |0>.
_FROM_ZERO = {"0": (), "1": ("x",), "+": ("h",), "-": ("x", "h"), "r": ("h", "s"), "l": ("h", "sdg")}

_TO_Z = {"X": ("h", "h"), "Y": ("sx", "sxdg")}  # the gate that turns a Pauli into Z, and the gate that undoes this

Pairs = list[tuple[int, str]]


def evolution(lowering: LoweringContext, op: PauliEvolutionGate, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Lower exp(-i t H) exactly.

    Terms of H that anticommute, directly or through other terms, form a component, and components commute. A component
    of one term is a Pauli rotation. A larger component is diagonalised as a dense matrix on its qubits.
    """
    operators = op.operator if isinstance(op.operator, list) else [op.operator]
    operators = [
        SparsePauliOp.from_sparse_observable(operator) if isinstance(operator, SparseObservable) else operator
        for operator in operators
    ]
    total = SparsePauliOp.sum(operators)
    require_real(lowering, op.name, total.coeffs)
    total = total.simplify()
    time = lowering.angle(op.time)
    terms = []
    for label, positions, coefficient in total.to_sparse_list():
        terms.append(
            ([(qubits[position], pauli) for position, pauli in zip(positions, label)], float(coefficient.real))
        )
    for component in _components(total):
        members = [terms[index] for index in component]
        if len(members) == 1:
            pauli_rotation(lowering, members[0][0], scaled(time, 2 * members[0][1]), controls, state)
        else:
            support = tuple(sorted({qubit for pairs, _ in members for qubit, _ in pairs}))
            require_dense(lowering, support)
            _dense_evolution(lowering, _hamiltonian(members, support), time, support, controls, state)


def _components(operator: SparsePauliOp) -> list[list[int]]:
    """Return the connected components of the anticommutation graph as sorted lists, ordered by their first terms."""
    x, z = operator.paulis.x.astype(np.int32), operator.paulis.z.astype(np.int32)
    anticommute = (x @ z.T + z @ x.T) % 2 == 1
    left = set(range(len(x)))
    components = []
    while left:
        todo, component = [min(left)], []
        left.remove(todo[0])
        while todo:
            term = todo.pop()
            component.append(term)
            neighbours = [other for other in np.flatnonzero(anticommute[term]).tolist() if other in left]
            left.difference_update(neighbours)
            todo += neighbours
        components.append(sorted(component))
    return components


def _hamiltonian(members: Sequence[tuple[Pairs, float]], support: Qubits) -> np.ndarray:
    matrix = np.zeros((1 << len(support), 1 << len(support)), dtype=complex)
    for pairs, coefficient in members:
        letters = dict(pairs)
        matrix += coefficient * kron(*(PAULIS[letters.get(qubit, "I")] for qubit in support))
    return matrix


def _dense_evolution(
    lowering: LoweringContext, matrix: np.ndarray, time: Angle, qubits: Qubits, controls: Qubits, state: int
) -> None:
    """Lower exp(-i t H) as V exp(-i t Lambda) V^+, where V is a constant matrix and Lambda a sum of Z strings."""
    lowering.touch(qubits + controls)
    if lowering.recording:
        lowering.gates.append(Gate("evolution", qubits, (time,), controls, state, matrix))
    energies, basis = np.linalg.eigh(matrix)
    if time.column < 0:
        constant_matrix = (basis * np.exp(-1j * time.offset * energies)) @ basis.conj().T
        if start_from_gate(lowering, constant_matrix):
            return
        if not controls:
            emit_matrix(lowering, constant_matrix, qubits)
            return
    emit_matrix(lowering, basis.conj().T, qubits)
    lowering.form.controlled(controls, state).walsh_phases(qubits, walsh(-energies), time)
    emit_matrix(lowering, basis, qubits)


def hamiltonian(lowering: LoweringContext, op: HamiltonianGate, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Lower exp(-i t H) for a Hamiltonian H that is a dense matrix."""
    require_dense(lowering, qubits)
    matrix = hermitian_matrix(lowering, op.name, op.params[0], op.num_qubits)
    _dense_evolution(lowering, matrix, lowering.angle(op.params[1]), qubits, controls, state)


def pauli_rotation(lowering: LoweringContext, pairs: Pairs, angle: Angle, controls: Qubits, state: int) -> None:
    """Lower exp(-i angle/2 P) for a Pauli string P, as one term. The recorded gates are the textbook CX ladder."""
    support = tuple(qubit for qubit, _ in pairs)
    if not support and not controls:  # exp(-i angle/2) is a global phase
        lowering.gate("global_phase", (), (scaled(angle, -0.5),))
        return
    lowering.touch(support + controls)
    if lowering.recording:
        turned = [(qubit, *_TO_Z[pauli]) for qubit, pauli in pairs if pauli != "Z"]
        ladder = [Gate("x", (target,), (), (control,), 1) for control, target in pairwise(support)]
        lowering.gates += [Gate(name, (qubit,)) for qubit, name, _ in turned]
        lowering.gates += ladder
        if support:
            lowering.gates.append(Gate("rz", support[-1:], (angle,), controls, state))
        else:
            lowering.gates.append(Gate("global_phase", (), (scaled(angle, -0.5),), controls, state))
        lowering.gates += ladder[::-1]
        lowering.gates += [Gate(name, (qubit,)) for qubit, _, name in turned]
    lowering.form.controlled(controls, state).pauli_rotation(pairs, angle)


def pauli(lowering: LoweringContext, op: PauliGate, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Lower a Pauli string, given by a label without a phase, as one gate for each letter."""
    for qubit, letter in zip(qubits, reversed(op.params[0])):
        if letter != "I":
            lowering.gate(letter.lower(), (qubit,), (), controls, state)


def pauli_product_rotation(
    lowering: LoweringContext, op: Instruction, qubits: Qubits, controls: Qubits, state: int
) -> None:
    """Lower exp(-i angle/2 P) for a `PauliProductRotationGate`, whose Pauli string P has the sign + or -."""
    operator = op.pauli()
    sign = {0: 1.0, 2: -1.0}[int(operator.phase)]
    letters = operator.to_label().lstrip("-")
    pairs = [(qubit, letter) for qubit, letter in zip(qubits, reversed(letters)) if letter != "I"]
    pauli_rotation(lowering, pairs, scaled(lowering.angle(op.params[0]), sign), controls, state)


def uniformly_controlled(
    lowering: LoweringContext, op: UCPauliRotGate, qubits: Qubits, controls: Qubits, state: int
) -> None:
    """Lower a rotation of the first qubit by an angle that depends on the other qubits' basis state, as one phase."""
    angles = np.array([lowering.angle(param).offset for param in op.params])
    pauli, form = op.rot_axes.upper(), lowering.form.controlled(controls, state)
    lowering.touch(qubits + controls)
    if lowering.recording:
        before, after = _TO_Z.get(pauli, ("", ""))
        entries = np.exp(-0.5j * np.kron(angles, [1, -1]))
        lowering.gates += [Gate(before, qubits[:1])] * bool(before)
        lowering.gates.append(Gate("diagonal", qubits, (), controls, state, entries))
        lowering.gates += [Gate(after, qubits[:1])] * bool(after)
    form.to_z(qubits[0], pauli)
    form.walsh_phases(qubits, np.kron(walsh(angles / -2), [0, 1]), constant(1.0))
    form.from_z(qubits[0], pauli)


def permutation(lowering: LoweringContext, op: PermutationGate, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Lower a permutation as swaps, which rename wires and emit no op."""
    order = list(range(len(qubits)))
    for position, target in enumerate(np.asarray(op.params[0]).tolist()):
        other = order.index(target)
        if other != position:
            order[position], order[other] = order[other], order[position]
            lowering.gate("swap", (qubits[position], qubits[other]), (), controls, state)


def prepare(lowering: LoweringContext, op: Initialize | StatePreparation, qubits: tuple[int, ...]) -> None:
    """Prepare fresh qubits: a product state by gates, a vector as a piece of the start state.

    Raises:
        UnsupportedInstruction: for a vector on qubits in use, with parameters, or with a norm other than 1.
    """
    if isinstance(op.params[0], str):
        for qubit, letter in zip(qubits, reversed([str(param) for param in op.params])):
            for name in _FROM_ZERO[letter]:
                lowering.gate(name, (qubit,))
    elif len(op.params) != 2 ** len(qubits):
        for position, qubit in enumerate(qubits):
            if int(op.params[0].real) >> position & 1:
                lowering.gate("x", (qubit,))
    else:
        if any(isinstance(param, ParameterExpression) and param.parameters for param in op.params):
            raise lowering.unsupported(op.name, "has amplitudes that are parameters; bind them first")
        vector = np.array([complex(param) for param in op.params])
        lowering.require_fresh(op, qubits)
        norm = float(np.linalg.norm(vector))
        if not abs(norm - 1.0) < 1e-6:
            reason = f"has a start state of norm {norm}, it must be 1; normalise it"
            raise lowering.unsupported(op.name, reason, fallback=False)
        lowering.touch(qubits)
        lowering.pieces.append(Encoding.constant(qubits, vector / norm))


def encode(lowering: LoweringContext, op: Instruction, qubits: Qubits, controls: Qubits, state: int) -> None:
    """Start fresh qubits in a normalised vector whose amplitudes are parameters or functions of parameters."""
    lowering.require_fresh(op, qubits)
    lowering.touch(qubits)
    angles = list(zip(*[_amplitude(lowering, param) for param in op.params]))
    column, coefficient, offset = (
        np.array([[getattr(angle, name) for angle in part] for part in angles], dtype=dtype)
        for name, dtype in (("column", np.int32), ("coefficient", float), ("offset", float))
    )
    origin = f"instruction {lowering.index}, '{lowering.name}',"
    encoding = Encoding(qubits, column, coefficient, offset, origin)
    if not encoding.varies and not np.linalg.norm(offset) > 0:
        raise lowering.unsupported(op.name, "has a start state of norm 0; give it amplitudes", fallback=False)
    lowering.pieces.append(encoding)


def _amplitude(lowering: LoweringContext, value: ParameterExpression | complex) -> tuple[Angle, Angle]:
    """Return the real and the imaginary part of an amplitude, each as an `Angle`, an affine function of a column."""
    if not isinstance(value, ParameterExpression):
        return lowering.angle(complex(value).real), lowering.angle(complex(value).imag)
    tape = lowering.tape_of(value)
    if len(tape) > 1:  # the value must be real: evaluating a row with a complex value raises an error
        return lowering.angle(value), Angle()
    _, terms, offset = tape[0]
    real = affine({column: complex(factor).real for column, factor in terms}, complex(offset).real)
    imaginary = affine({column: complex(factor).imag for column, factor in terms}, complex(offset).imag)
    return lowering.angle_of((real,), value), lowering.angle_of((imaginary,), value)


Rule = Callable[[LoweringContext, Instruction, Qubits, Qubits, int], None]
RULES: dict[type, Rule] = {
    UnitaryGate: unitary,
    Isometry: isometry,
    UCGate: by_definition,
    UCRXGate: uniformly_controlled,
    UCRYGate: uniformly_controlled,
    UCRZGate: uniformly_controlled,
    PauliEvolutionGate: evolution,
    HamiltonianGate: hamiltonian,
    PauliGate: pauli,
    DiagonalGate: diagonal,
    PermutationGate: permutation,
    AnnotatedOperation: annotated,
    ParameterizedInitialize: encode,
}
if hasattr(circuit_library, "PauliProductRotationGate"):
    RULES[circuit_library.PauliProductRotationGate] = pauli_product_rotation
