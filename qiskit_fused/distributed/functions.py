# SPDX-License-Identifier: Apache-2.0
"""Values and gradients of a state over several ranks, as functions of a circuit, observables and parameter values."""

from __future__ import annotations

from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit

from qiskit_fused.common.arrays import real_values
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.observables import circuit_observables
from qiskit_fused.distributed.agreement import check_communicator, check_same_call
from qiskit_fused.distributed.communicator import Communicator, takes_device_arrays
from qiskit_fused.distributed.evaluation import RankEvaluator
from qiskit_fused.distributed.report import fuse_for_ranks
from qiskit_fused.distributed.sweeps import Sweeps
from qiskit_fused.engines.cpu.state_sweeps import CpuSweeps
from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.cuda.state_sweeps import CudaSweeps
from qiskit_fused.execution.arguments import ordered_rows
from qiskit_fused.execution.derivatives import check_derivatives, pull_back
from qiskit_fused.execution.devices import engine_for
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.execution.row_batches import check_cotangents
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables


class _Job:
    """The checked arguments of a call on one rank."""

    def __init__(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        observables: Any,
        parameter_values: Any,
        communicator: Communicator,
        dtype: str,
        num_threads: int | None,
        device: str,
    ):
        check_communicator(communicator)
        if takes_device_arrays(communicator) and device != "cuda":
            raise ValueError(
                f"a {type(communicator).__name__} exchanges arrays of GPUs, and device is {device!r}; "
                "use device='cuda'."
            )
        sweeps = _sweeps(FusedOptions(dtype=dtype, num_threads=num_threads, device=device))
        self.compiled = COMPILED.get(circuit)
        self.operators: Observables = circuit_observables(observables, self.compiled.num_qubits).operators
        self.values = ordered_rows(parameter_values, self.compiled.parameters)
        check_finite(self.values, self.compiled.parameters)
        self.columns = self.compiled.program.columns(self.values)
        fused = fuse_for_ranks(self.compiled, self.operators)
        self.evaluator = RankEvaluator(fused, self.operators, communicator, sweeps)
        ops, operators = fused.program.ops, self.operators
        self._communicator = communicator
        self._call: list[Any] = [dtype, self.columns, *ops.matrices]
        self._call += [part for part in vars(ops).values() if isinstance(part, np.ndarray)]
        self._call += [operators.num_observables, operators.observable, operators.coefficients]
        self._call += [operators.boundaries, operators.letters, operators.qubits]

    def check_same_call(self, function: str, *arguments: np.ndarray) -> None:
        """Raise a ValueError on all ranks if their calls differ."""
        check_same_call(self._communicator, (function, *self._call, *arguments))

    def gradients(self, of_columns: np.ndarray) -> np.ndarray:
        """Turn gradients (B, K, C) with respect to columns into gradients (B, K, P) with respect to parameters."""
        num_rows, count, num_columns = of_columns.shape
        pairs = np.repeat(np.arange(num_rows), count), np.tile(np.arange(count), num_rows)
        flat = of_columns.reshape(num_rows * count, num_columns)
        pulled_back = pull_back(self.compiled, self.values, flat, pairs, self.operators)
        gradients = pulled_back.reshape(num_rows, count, len(self.compiled.parameters))
        check_derivatives(self.compiled, self.values, gradients)
        return gradients


def _sweeps(options: FusedOptions) -> Sweeps:
    """Return the local engine of the options.

    Raises:
        ValueError: for another device than "cpu" and "cuda".
        RuntimeError: for a CUDA device that cannot be used.
    """
    if options.device == "cuda":
        engine = engine_for("cuda", options)
        assert isinstance(engine, CudaEngine)
        return CudaSweeps(engine, options.dtype)
    if options.device != "cpu":
        raise ValueError(f"device is {options.device!r}; allowed for ranks: 'cpu', 'cuda'.")
    return CpuSweeps(options.dtype, options.resolve_num_threads())


def expectation_values(
    circuit: QuantumCircuit | CompiledCircuit,
    observables: Any,
    parameter_values: Any,
    communicator: Communicator,
    *,
    dtype: str = "complex128",
    num_threads: int | None = None,
    device: str = "cpu",
) -> np.ndarray:
    """Return the values ``<psi_b|O_k|psi_b>`` of all rows and observables, where all ranks together hold one state.

    Every rank calls the function with the same arguments, and gets the same result.

    >>> from qiskit.circuit.library import real_amplitudes
    >>> from qiskit_fused.distributed import run_on_threads
    >>> circuit = real_amplitudes(3, reps=1)
    >>> run_on_threads(2, lambda ranks: expectation_values(circuit, "ZZZ", np.zeros(6), ranks).tolist())
    [[[1.0]], [[1.0]]]

    Args:
        circuit: the circuit, with P parameters, or the result of `compile_circuit`.
        observables: one observable or a list of K; None is Z on all qubits.
        parameter_values: real (B, P), or (P,) for B = 1, or values by name, as for
            `FusedEstimatorGradient.value_and_gradient`.
        communicator: connects the ranks.
        dtype: number format of the sweeps, and of the amplitudes that ranks exchange.
        num_threads: number of CPU threads of this rank; None as for the option ``num_threads``.
        device: "cpu", or "cuda" for ranks that hold their amplitudes on their current CUDA device.

    Returns:
        float64 (B, K).

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        TypeError: for a circuit, observable or values of a wrong type.
        ValueError: for shapes that do not fit, values that are not finite, a number of ranks that is no power of 2 or
            too large for the circuit, a circuit whose start state depends on parameters, or ranks whose arguments
            differ.

    Cost: one sweep for each row, and the exchanges that `plan_ranks` counts.
    """
    job = _Job(circuit, observables, parameter_values, communicator, dtype, num_threads, device)
    job.check_same_call("expectation_values")
    values = np.array([job.evaluator.values(columns[None]) for columns in job.columns])
    return values.reshape(len(job.columns), len(job.operators))


def value_and_vjp(
    circuit: QuantumCircuit | CompiledCircuit,
    observables: Any,
    parameter_values: Any,
    cotangents: Any,
    communicator: Communicator,
    *,
    dtype: str = "complex128",
    num_threads: int | None = None,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Return values, and for each row the gradient of ``sum_k cotangents[b, k] values[b, k]``.

    Every rank calls the function with the same arguments, and gets the same result.

    Args:
        circuit: the circuit, with P parameters, or the result of `compile_circuit`.
        observables: one observable or a list of K; None is Z on all qubits.
        parameter_values: real (B, P), or (P,) for B = 1, or values by name, as for
            `FusedEstimatorGradient.value_and_gradient`.
        cotangents: real (B, K), or (K,) for all rows.
        communicator: connects the ranks.
        dtype: number format of the sweeps, and of the amplitudes that ranks exchange.
        num_threads: number of CPU threads of this rank; None as for the option ``num_threads``.
        device: "cpu", or "cuda" for ranks that hold their amplitudes on their current CUDA device.

    Returns:
        Values, float64 (B, K), and gradients, float64 (B, P).

    Raises:
        UnsupportedInstruction, TypeError, ValueError: as `expectation_values`; a ValueError also for derivatives that
            are not finite.

    Cost: three sweeps for each row, for any number of observables.
    """
    job = _Job(circuit, observables, parameter_values, communicator, dtype, num_threads, device)
    num_rows, count = len(job.columns), len(job.operators)
    weights = real_values(cotangents, "cotangents", "value of each row")
    if weights.shape == (count,):
        weights = np.tile(weights, (num_rows, 1))
    weights = check_cotangents(weights, (num_rows, count))
    job.check_same_call("value_and_vjp", weights)
    values, gradients = np.empty((num_rows, count)), np.empty((num_rows, 1, job.columns.shape[1]))
    for row, (columns, of_row) in enumerate(zip(job.columns, weights)):
        values[row], gradients[row, 0] = job.evaluator.values_and_vjp(columns[None], of_row.copy())
    return values, job.gradients(gradients)[:, 0]


def value_and_gradient(
    circuit: QuantumCircuit | CompiledCircuit,
    observables: Any,
    parameter_values: Any,
    communicator: Communicator,
    *,
    dtype: str = "complex128",
    num_threads: int | None = None,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and gradients of all pairs of rows and observables.

    Every rank calls the function with the same arguments, and gets the same result.

    Args:
        circuit: the circuit, with P parameters, or the result of `compile_circuit`.
        observables: one observable or a list of K; None is Z on all qubits.
        parameter_values: real (B, P), or (P,) for B = 1, or values by name, as for
            `FusedEstimatorGradient.value_and_gradient`.
        communicator: connects the ranks.
        dtype: number format of the sweeps, and of the amplitudes that ranks exchange.
        num_threads: number of CPU threads of this rank; None as for the option ``num_threads``.
        device: "cpu", or "cuda" for ranks that hold their amplitudes on their current CUDA device.

    Returns:
        Values, float64 (B, K), and gradients, float64 (B, K, P), with P in the order of ``circuit.parameters``.

    Raises:
        UnsupportedInstruction, TypeError, ValueError: as `value_and_vjp`.

    Cost: three sweeps for each pair of a row and an observable. `value_and_vjp` takes three sweeps for each row.
    """
    job = _Job(circuit, observables, parameter_values, communicator, dtype, num_threads, device)
    job.check_same_call("value_and_gradient")
    num_rows, count = len(job.columns), len(job.operators)
    values, gradients = np.empty((num_rows, count)), np.empty((num_rows, count, job.columns.shape[1]))
    for row, columns in enumerate(job.columns):
        for k, weights in enumerate(np.eye(count)):
            values[row], gradients[row, k] = job.evaluator.values_and_vjp(columns[None], weights)
    return values, job.gradients(gradients)
