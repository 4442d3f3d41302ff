# SPDX-License-Identifier: Apache-2.0
"""The gate table: the matrix of every gate, its generators (derivatives) and its normal form.

To add a gate, add one entry to `_RULES`, from which `GATES` is made. A gate that is no standard gate of Qiskit needs
further steps; see tutorials/gates.md.

Conventions: a matrix is little endian as in Qiskit (the first qubit is the least significant bit).
``dU/dv_j = -i/2 G_j U`` defines the generator of angle j. Controlled gates are not in the table. Controls are handled
in one place: by `NormalForm.controlled` here, and by index selection in the reference engine. Under controls a global
phase becomes a relative phase, so `exact_generators` keeps the trace of a generator.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qiskit_fused.lowering.emitter import NormalForm, constant, scaled, split_unitary
from qiskit_fused.program.program import Angle, Gate

Lower = Callable[[NormalForm, Sequence[int], Sequence[Angle]], None]

I2 = np.eye(2, dtype=complex)
X = np.array([[0, 1], [1, 0]], dtype=complex)
Y = np.array([[0, -1j], [1j, 0]], dtype=complex)
Z = np.array([[1, 0], [0, -1]], dtype=complex)
PAULIS = {"I": I2, "X": X, "Y": Y, "Z": Z}
_P_GENERATOR = np.diag([0, -2]).astype(complex)  # the generator of diag(1, e^{it}), with its trace


@dataclass(frozen=True)
class GateRule:
    """One gate of the table.

    Attributes:
        matrix: angle values -> unitary (2**num_qubits, 2**num_qubits), with Qiskit's global phase.
        exact_generators: angle values -> Hermitian generators G_j, one per angle, global phase included.
        lower: emits the normal form. It is exact together with the phases of the normal form.
    """

    name: str
    num_qubits: int
    num_angles: int
    matrix: Callable[..., np.ndarray]
    exact_generators: Callable[..., list[np.ndarray]]
    lower: Lower

    def generators(self, *values: float) -> list[np.ndarray]:
        """Return the traceless generators, which give the derivatives without the global phase."""
        return [traceless(generator) for generator in self.exact_generators(*values)]


def traceless(matrix: np.ndarray) -> np.ndarray:
    """Return a square matrix minus the mean of its diagonal times the identity."""
    return matrix - np.trace(matrix) / len(matrix) * np.eye(len(matrix))


def kron(*little_endian: np.ndarray) -> np.ndarray:
    """Return the tensor product of factors, which are given from the least significant qubit to the last."""
    product = np.eye(1, dtype=complex)
    for factor in little_endian:
        product = np.kron(factor, product)
    return product


def rotation(generator: np.ndarray, angle: float) -> np.ndarray:
    """Return ``exp(-i angle/2 G)`` for a generator G with ``G G = 1`` and an angle in radians."""
    return math.cos(angle / 2) * np.eye(len(generator)) - 1j * math.sin(angle / 2) * generator


def rotation_vector(x: float, y: float, z: float) -> np.ndarray:
    """Return ``exp(-i/2 (x X + y Y + z Z))``."""
    length = math.sqrt(x * x + y * y + z * z)
    if length == 0.0:
        return I2.copy()
    return rotation((x * X + y * Y + z * Z) / length, length)


def rotation_vector_generators(x: float, y: float, z: float) -> list[np.ndarray]:
    """Return the generators ``a.sigma`` of `rotation_vector`, with a the columns of the left Jacobian of SO(3).

    The left Jacobian is ``1 + (1 - cos t)/t^2 K + (t - sin t)/t^3 K^2``, with t the length of the vector and K the
    matrix of the cross product with it.
    """
    square = x * x + y * y + z * z
    length = math.sqrt(square)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    if length < 1e-2:  # the closed forms lose digits by cancellation; the next terms of the series are below 1e-16
        first, second = 1 / 2 - square / 24 + square**2 / 720, 1 / 6 - square / 120 + square**2 / 5040
    else:
        first, second = (1 - math.cos(length)) / square, (length - math.sin(length)) / (square * length)
    jacobian = np.eye(3) + first * cross + second * (cross @ cross)
    return [a * X + b * Y + c * Z for a, b, c in jacobian.T]


# The gates u, r and xx_plus_yy are products of one-angle factors, which give their matrices and generators.
Factor = tuple[int, float, Callable[[float], np.ndarray], np.ndarray]  # angle index, scale, matrix, generator


def _product_matrix(factors: Sequence[Factor], values: Sequence[float]) -> np.ndarray:
    product = np.eye(len(factors[0][3]), dtype=complex)
    for index, scale, matrix, _ in factors:
        product = matrix(scale * values[index]) @ product
    return product


def _product_generators(factors: Sequence[Factor], values: Sequence[float]) -> list[np.ndarray]:
    dimension = len(factors[0][3])
    generators = [np.zeros((dimension, dimension), dtype=complex) for _ in values]
    after = np.eye(dimension, dtype=complex)
    for index, scale, matrix, generator in reversed(factors):
        generators[index] += scale * (after @ generator @ after.conj().T)
        after = after @ matrix(scale * values[index])
    return generators


def _p_matrix(angle: float) -> np.ndarray:
    return np.diag([1.0, cmath.exp(1j * angle)])


def _constant_rule(name: str, matrix: np.ndarray, lower: Lower | None = None) -> GateRule:
    if lower is None:
        quaternion, phase = split_unitary(matrix)

        def lower(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
            form.su2(qubits[0], quaternion, phase)

    return GateRule(name, len(matrix).bit_length() - 1, 0, lambda: matrix, list, lower)


_LOWER_ROTATION: dict[str, Lower] = {
    "X": lambda form, qubits, angles: form.rx(qubits[0], angles[0]),
    "Y": lambda form, qubits, angles: form.ry(qubits[0], angles[0]),
    "Z": lambda form, qubits, angles: form.rz(qubits[0], angles[0]),
}


def _rotation_rule(name: str, paulis: str) -> GateRule:
    """Return the rule of exp(-i t/2 P) for a Pauli string P; ``paulis[j]`` acts on qubit j."""
    generator = kron(*(PAULIS[pauli] for pauli in paulis))
    return GateRule(
        name,
        len(paulis),
        1,
        lambda angle: rotation(generator, angle),
        lambda angle: [generator],
        _LOWER_ROTATION.get(paulis)
        or (lambda form, qubits, angles: form.pauli_rotation(list(zip(qubits, paulis)), angles[0])),
    )


def _product_rule(name: str, num_angles: int, factors: Sequence[Factor], lower: Lower) -> GateRule:
    return GateRule(
        name,
        len(factors[0][3]).bit_length() - 1,
        num_angles,
        lambda *values: _product_matrix(factors, values),
        lambda *values: _product_generators(factors, values),
        lower,
    )


def _lower_p(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
    form.p(qubits[0], angles[0])


def _lower_u(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
    form.p(qubits[0], angles[2])
    form.ry(qubits[0], angles[0])
    form.p(qubits[0], angles[1])


def _lower_u2(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
    _lower_u(form, qubits, (constant(math.pi / 2), *angles))


def _lower_r(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
    form.free.rz(qubits[0], scaled(angles[1], -1.0))
    form.rx(qubits[0], angles[0])
    form.free.rz(qubits[0], angles[1])


def _lower_xx_yy(turned: int, sign: float) -> Lower:
    """Return the lowering of xx_plus_yy (sign 1) or xx_minus_yy (sign -1); the qubit ``turned`` rotates by beta."""

    def lower(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
        theta, beta = angles
        form.free.rz(qubits[turned], scaled(beta, sign))
        form.pauli_rotation([(qubits[0], "X"), (qubits[1], "X")], scaled(theta, 0.5))
        form.pauli_rotation([(qubits[0], "Y"), (qubits[1], "Y")], scaled(theta, 0.5 * sign))
        form.free.rz(qubits[turned], scaled(beta, -sign))

    return lower


def _xx_yy_rule(name: str, turned: int, sign: float) -> GateRule:
    z_turned = kron(*(Z if qubit == turned else I2 for qubit in range(2)))
    exchange = (kron(X, X) + sign * kron(Y, Y)) / 2
    projector = exchange @ exchange

    def exchange_rotation(angle: float) -> np.ndarray:
        return np.eye(4) + (math.cos(angle / 2) - 1) * projector - 1j * math.sin(angle / 2) * exchange

    def turn(angle: float) -> np.ndarray:
        return rotation(z_turned, angle)

    factors = [(1, sign, turn, z_turned), (0, 1.0, exchange_rotation, exchange), (1, -sign, turn, z_turned)]
    return _product_rule(name, 2, factors, _lower_xx_yy(turned, sign))


def _lower_iswap(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
    if form.has_controls:
        form.pauli_rotation([(qubits[0], "X"), (qubits[1], "X")], constant(-math.pi / 2))
        form.pauli_rotation([(qubits[0], "Y"), (qubits[1], "Y")], constant(-math.pi / 2))
    else:
        form.pauli_rotation([(qubits[0], "Z"), (qubits[1], "Z")], constant(math.pi / 2))
        form.swap(*qubits)
        form.phase(constant(math.pi / 4))


def _lower_dcx(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
    if form.has_controls:
        form.cx(qubits[0], qubits[1])
        form.cx(qubits[1], qubits[0])
    else:  # two CX gates are a swap and one CX, and a swap is free
        form.swap(*qubits)
        form.cx(qubits[0], qubits[1])


def _lower_ecr(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
    form.pauli_rotation([(qubits[0], "Z"), (qubits[1], "X")], constant(math.pi / 2))
    GATES["x"].lower(form, qubits[:1], ())


def _lower_rccx(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
    form.pattern_phase(qubits, 0b101, constant(math.pi))
    GATES["y"].lower(form.controlled(qubits[:2], 0b11), qubits[2:], ())


def _lower_rcccx(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
    # The target gets i Z if the controls are in 011, and i Y if the controls are in 111.
    form.controlled(qubits[:3], 0b011).su2(qubits[3], (0.0, 0.0, 0.0, -1.0))
    form.controlled(qubits[:3], 0b111).su2(qubits[3], (0.0, 0.0, -1.0, 0.0))


def _lower_rv(form: NormalForm, qubits: Sequence[int], angles: Sequence[Angle]) -> None:
    form.rv(qubits[0], angles)


def _blocks(num_controls: int, blocks: dict[int, np.ndarray]) -> np.ndarray:
    """Return the matrix that applies ``blocks[state]`` to the last qubit if the other qubits are in ``state``."""
    size = 1 << num_controls
    matrix = np.eye(2 * size, dtype=complex)
    for state, block in blocks.items():
        matrix[np.ix_([state, state + size], [state, state + size])] = block
    return matrix


_H = (X + Z) / math.sqrt(2)
_SX = ((1 + 1j) * I2 + (1 - 1j) * X) / 2
_SWAP = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=complex)
_ISWAP = np.array([[1, 0, 0, 0], [0, 0, 1j, 0], [0, 1j, 0, 0], [0, 0, 0, 1]], dtype=complex)
_DCX = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=complex)
_ECR = (kron(X, I2) - kron(Y, X)) / math.sqrt(2)
_P_FACTOR = (_p_matrix, _P_GENERATOR)
_Z_FACTOR = (lambda angle: rotation(Z, angle), Z)
_U_FACTORS: list[Factor] = [
    (2, 1.0, *_P_FACTOR),
    (0, 1.0, lambda angle: rotation(Y, angle), Y),
    (1, 1.0, *_P_FACTOR),
]
_R_FACTORS: list[Factor] = [
    (1, -1.0, *_Z_FACTOR),
    (0, 1.0, lambda angle: rotation(X, angle), X),
    (1, 1.0, *_Z_FACTOR),
]

_RULES = [
    _constant_rule("id", I2),
    _constant_rule("x", X),
    _constant_rule("y", Y),
    _constant_rule("z", Z),
    _constant_rule("h", _H),
    _constant_rule("s", np.diag([1, 1j])),
    _constant_rule("sdg", np.diag([1, -1j])),
    _constant_rule("t", _p_matrix(math.pi / 4)),
    _constant_rule("tdg", _p_matrix(-math.pi / 4)),
    _constant_rule("sx", _SX),
    _constant_rule("sxdg", _SX.conj().T),
    _rotation_rule("rx", "X"),
    _rotation_rule("ry", "Y"),
    _rotation_rule("rz", "Z"),
    _rotation_rule("rxx", "XX"),
    _rotation_rule("ryy", "YY"),
    _rotation_rule("rzz", "ZZ"),
    _rotation_rule("rzx", "ZX"),
    GateRule("p", 1, 1, _p_matrix, lambda angle: [_P_GENERATOR], _lower_p),
    GateRule("u1", 1, 1, _p_matrix, lambda angle: [_P_GENERATOR], _lower_p),
    GateRule(
        "global_phase",
        0,
        1,
        lambda angle: np.array([[cmath.exp(1j * angle)]]),
        lambda angle: [np.array([[-2.0 + 0j]])],
        lambda form, qubits, angles: form.phase(angles[0]),
    ),
    _product_rule("u", 3, _U_FACTORS, _lower_u),
    _product_rule("u3", 3, _U_FACTORS, _lower_u),
    GateRule(
        "u2",
        1,
        2,
        lambda phi, lam: _product_matrix(_U_FACTORS, (math.pi / 2, phi, lam)),
        lambda phi, lam: _product_generators(_U_FACTORS, (math.pi / 2, phi, lam))[1:],
        _lower_u2,
    ),
    _product_rule("r", 2, _R_FACTORS, _lower_r),
    GateRule("rv", 1, 3, rotation_vector, rotation_vector_generators, _lower_rv),
    _xx_yy_rule("xx_plus_yy", turned=0, sign=1.0),
    _xx_yy_rule("xx_minus_yy", turned=1, sign=-1.0),
    _constant_rule("swap", _SWAP, lambda form, qubits, angles: form.swap(*qubits)),
    _constant_rule("iswap", _ISWAP, _lower_iswap),
    _constant_rule("dcx", _DCX, _lower_dcx),
    _constant_rule("ecr", _ECR, _lower_ecr),
    _constant_rule("rccx", _blocks(2, {0b01: Z, 0b11: Y}), _lower_rccx),
    _constant_rule("rcccx", _blocks(3, {0b011: 1j * Z, 0b111: 1j * Y}), _lower_rcccx),
]

GATES: dict[str, GateRule] = {rule.name: rule for rule in _RULES}


# A Gate of a Program is an entry of the table, or a gate with a matrix. A gate with a matrix has one of three names:
# "unitary" has the matrix of the gate; "diagonal" has the diagonal alone, (2**num_qubits,); "evolution", exp(-i t H),
# has the matrix of H and one angle, t.


def gate_matrix(gate: Gate, values: Sequence[float]) -> np.ndarray:
    """Return the matrix of a program's gate without its controls; for a diagonal gate, return the diagonal.

    Args:
        gate: the gate.
        values: the values of the gate's angles in radians.
    """
    if gate.matrix is None:
        return GATES[gate.name].matrix(*values)
    if not gate.angles:
        return gate.matrix
    energies, states = np.linalg.eigh(gate.matrix)
    return (states * np.exp(-1j * values[0] * energies)) @ states.conj().T


def gate_generators(gate: Gate, values: Sequence[float]) -> list[np.ndarray]:
    """Return the exact generators of a program's gate without its controls, one for each angle (radians)."""
    if gate.matrix is None:
        return GATES[gate.name].exact_generators(*values)
    return [2 * gate.matrix] if gate.angles else []


def apply_gate(psi: np.ndarray, matrix: np.ndarray, gate: Gate, elsewhere: float = 1.0) -> np.ndarray:
    """Return a statevector after a matrix acts on a gate's qubits where the gate's controls match.

    Args:
        psi: the statevector, complex (2**n,).
        matrix: complex (2**k, 2**k), or the diagonal of a matrix, (2**k,).
        gate: a gate on k qubits. Only its qubits, its controls and their state are used.
        elsewhere: the factor of amplitudes whose controls do not match.
    """
    num_qubits = len(psi).bit_length() - 1
    tensor = psi.reshape((2,) * num_qubits)  # axis num_qubits - 1 - q is qubit q
    match: list = [slice(None)] * num_qubits
    for position, control in enumerate(gate.controls):
        match[num_qubits - 1 - control] = gate.ctrl_state >> position & 1
    left = [axis for axis in range(num_qubits) if isinstance(match[axis], slice)]
    axes = [left.index(num_qubits - 1 - qubit) for qubit in reversed(gate.qubits)]
    k = len(axes)
    small = matrix.astype(psi.dtype).reshape((2,) * (k * matrix.ndim))
    if matrix.ndim == 1:
        block = (np.moveaxis(tensor[tuple(match)], axes, range(k)).T * small.T).T  # .T moves the gate's qubits last
    else:
        block = np.tensordot(small, tensor[tuple(match)], axes=(range(k, 2 * k), axes))
    result = tensor * psi.dtype.type(elsewhere)
    result[tuple(match)] = np.moveaxis(block, range(k), axes)
    return result.reshape(-1)
