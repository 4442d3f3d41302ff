# SPDX-License-Identifier: Apache-2.0
"""Fidelities of all pairs of samples as a differentiable function of inputs and weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.execution.fidelity_pairs import FidelityPairs
from qiskit_fused.execution.kernel_function import KernelFunction
from qiskit_fused.execution.pair_batches import PairBatch
from qiskit_fused.execution.statevectors import FinalStates
from qiskit_fused.options.fused_options import FusedOptions, FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords


class Fidelities(KernelFunction):
    """The fidelities of all pairs of samples after one circuit, as a function of inputs x (N, I) and weights w (W,).

    Element ij of the matrix is ``K_ij = |<psi(x_i, w)|psi(y_j, w)>|^2`` with ``psi(x, w) = U(x, w) |0...0>``, where U
    is the circuit. Without y, the matrix is made of x alone: it is symmetric, and its diagonal is exactly 1.

    The backward sweep of sample i starts from the cotangent of its state. If the cotangents of a matrix of x alone are
    C, the cotangent of state i is ``2 sum_j (C_ij + C_ji) <psi_j|psi_i> psi_j``.

    >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
    >>> _ = circuit.ry(x * w, 0)
    >>> function = Fidelities(circuit, [x], [w])
    >>> function.values([[0.0], [1.0]], [0.5]).round(3).tolist()
    [[1.0, 0.939], [0.939, 1.0]]
    >>> found = function.value_and_vjp([[0.0], [1.0]], [0.5], [[0.0, 1.0], [0.0, 0.0]])
    >>> found.weights.round(3).tolist(), found.inputs.round(3).tolist()
    ([-0.24], [[0.12], [-0.12]])

    Args:
        circuit: the circuit, or the result of `compile_circuit`. It is compiled when this object is made.
        input_params: the I parameters of which each sample has its own values.
        weight_params: the W parameters whose values all samples share. Each parameter of the circuit is one input or
            one weight.
        options: `FusedOptions`, which are kept, not copied, or a mapping.
        keywords: single options, which override ``options``.

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        TypeError: for a circuit of a wrong type, or an unknown option.
        ValueError: for a parameter that is not in the circuit, or a parameter of the circuit that is not one input or
            one weight.

    Cost: a forward sweep for each distinct sample, and N x M x 2^n complex multiplications for n qubits, or half as
    many for x alone. Gradients take a forward and a backward sweep for each sample, and 1 to 2 times the products
    again. States that do not fit in ``memory_limit`` are simulated again for each block of the matrix.
    """

    @checks_keywords()
    def __init__(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        input_params: Iterable[Parameter] = (),
        weight_params: Iterable[Parameter] = (),
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[FusedOptionsDict],
    ):
        super().__init__(circuit, input_params, weight_params, options, keywords)

    def _pairs(self, batch: PairBatch) -> FidelityPairs:
        return FidelityPairs(
            FinalStates(self.compiled, self.options, only_active=True, with_phase=False), self._columns, batch
        )
