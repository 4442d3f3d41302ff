# SPDX-License-Identifier: Apache-2.0
"""Final statevectors of a circuit for rows of parameter values, and their vector-Jacobian product for own losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, overload

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.quantum_info import Statevector

from qiskit_fused.common.arrays import as_numbers
from qiskit_fused.common.row_errors import RowError
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.execution.arguments import ordered_rows
from qiskit_fused.execution.finite_values import check_finite, is_finite
from qiskit_fused.execution.progress import Part, Progress
from qiskit_fused.execution.statevectors import FinalStates, StateBatch, StatesVjp
from qiskit_fused.options import FusedOptions
from qiskit_fused.options.fused_options import FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords

StateCotangents = np.ndarray | Callable[[np.ndarray], np.ndarray]


@overload
def statevectors(
    circuit: QuantumCircuit | CompiledCircuit,
    parameter_values: Any = None,
    *,
    as_statevectors: Literal[False] = False,
    options: FusedOptions | Mapping[str, Any] | None = None,
    **keywords: Unpack[FusedOptionsDict],
) -> np.ndarray: ...


@overload
def statevectors(
    circuit: QuantumCircuit | CompiledCircuit,
    parameter_values: Any = None,
    *,
    as_statevectors: Literal[True],
    options: FusedOptions | Mapping[str, Any] | None = None,
    **keywords: Unpack[FusedOptionsDict],
) -> list[Statevector]: ...


@checks_keywords()
def statevectors(
    circuit: QuantumCircuit | CompiledCircuit,
    parameter_values: Any = None,
    *,
    as_statevectors: bool = False,
    options: FusedOptions | Mapping[str, Any] | None = None,
    **keywords: Unpack[FusedOptionsDict],
) -> np.ndarray | list[Statevector]:
    """Return the final statevectors of a circuit for all rows of parameter values.

    Row b is ``psi_b = U(x_b)|0...0>``, where U is the circuit and ``x_b`` is row b of the parameter values. It equals
    ``Statevector(circuit.assign_parameters(x_b)).data`` up to rounding, the global phase included. Measurements at the
    end of the circuit are ignored.

    >>> from qiskit.circuit import Parameter
    >>> circuit = QuantumCircuit(1)
    >>> _ = circuit.h(0)
    >>> _ = circuit.p(Parameter("a"), 0)
    >>> states = statevectors(circuit, [[0.0], [0.5], [1.0]])
    >>> states.shape
    (3, 2)
    >>> np.allclose(states[1], Statevector(circuit.assign_parameters([0.5])).data)
    True

    Args:
        circuit: the circuit on n qubits, with P parameters, or the result of `compile_circuit`.
        parameter_values: real (B, P), or (P,) for B = 1, in the order of ``circuit.parameters``; or values by name, a
            dict or ``BindingsArray`` (see `FusedEstimatorGradient.value_and_gradient`). None is one row of no values,
            for a circuit without parameters.
        as_statevectors: whether a list of B ``Statevector`` objects is returned, in complex128.
        options: `FusedOptions` or a mapping.
        keywords: single options, which override ``options``. ``dtype="complex64"`` halves the time and the memory.

    Returns:
        The states, complex128 or complex64 (B, 2^n) as the option ``dtype`` says. Amplitude i has qubit q in the state
        ``(i >> q) & 1``, as in Qiskit. Or a list of ``Statevector`` objects.

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        TypeError: for a circuit or values of a wrong type, or an unknown option.
        ValueError: for values of a wrong shape or that are not finite, or a global phase that is not a finite number.
        MemoryError: if the result does not fit the free memory, or if a row does not fit the memory limit.

    Cost: one forward sweep for each row. Rows run in blocks within the option ``memory_limit``, which does not count
    the result itself. ``executor=`` spreads the rows over workers.
    """
    function = _function(circuit, options, keywords)
    states = _evaluate(function, StateBatch(_rows(function.compiled, parameter_values))).states
    if as_statevectors:
        return [Statevector(state) for state in states]
    array: np.ndarray = states
    return array


@checks_keywords()
def statevectors_and_vjp(
    circuit: QuantumCircuit | CompiledCircuit,
    parameter_values: Any,
    cotangents: StateCotangents,
    *,
    options: FusedOptions | Mapping[str, Any] | None = None,
    **keywords: Unpack[FusedOptionsDict],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the final statevectors of all rows and their vector-Jacobian product, which differentiates your own loss.

    Let L be a real function of the states of all rows. Its cotangent is the array G of the shape of the states with
    ``dL = Re sum conj(G) dpsi``, so ``G = dL/dRe(psi) + i dL/dIm(psi)``. PyTorch calls this array the gradient of
    psi, and JAX calls its complex conjugate so. The vector-Jacobian product is the gradient of L:

        gradients[b, p] = dL/dx[b, p] = Re sum_i conj(G[b, i]) dpsi[b, i]/dx[b, p].

    It contains the derivative of the global phase, so it is right for any loss of the amplitudes. Gradients of a
    parameter that all rows share are summed over the rows by the caller.

    The loss of this example is the infidelity of each row with a target state t, ``L = sum_b (1 - |<t|psi_b>|^2)``,
    whose cotangent is ``G_b = -2 <t|psi_b> t``:

    >>> from qiskit.circuit import Parameter
    >>> circuit, target = QuantumCircuit(1), np.array([0, 1])
    >>> _ = circuit.ry(Parameter("a"), 0)
    >>> def cotangents(states):
    ...     return -2 * (states @ target.conj())[:, None] * target
    >>> states, gradients = statevectors_and_vjp(circuit, [[0.5], [1.0]], cotangents)
    >>> (1 - abs(states @ target.conj()) ** 2).round(3).tolist(), gradients.round(3).tolist()
    ([0.939, 0.77], [[-0.24], [-0.421]])

    Args:
        circuit: the circuit on n qubits, with P parameters, or the result of `compile_circuit`.
        parameter_values: see `statevectors`.
        cotangents: G, complex (B, 2^n). Or a function that maps the states (B, 2^n) to G; it is called once with the
            states of all rows, in this process, and costs another forward sweep.
        options: `FusedOptions` or a mapping.
        keywords: single options, which override ``options``.

    Returns:
        The states, complex (B, 2^n), and the gradients, float64 (B, P), in the order of ``circuit.parameters``.

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        TypeError: for a circuit, values or cotangents of a wrong type, or an unknown option.
        ValueError: for shapes that do not fit, numbers that are not finite, or an expression without a finite
            derivative; the text names the row.
        MemoryError: if the result does not fit the free memory, or if a row does not fit the memory limit.

    Cost: one forward and one backward sweep for each row.

    Source: adjoint differentiation, arXiv:2009.02823.
    """
    function = _function(circuit, options, keywords)
    batch = StateBatch(_rows(function.compiled, parameter_values))
    shape = batch.num_rows, 1 << function.num_qubits
    if callable(cotangents):
        states = _evaluate(function, batch).states
        given = _check_cotangents(cotangents(states), shape)
        return states, _evaluate(function, batch._replace(cotangents=given, wants_states=False)).gradients
    result = _evaluate(function, batch._replace(cotangents=_check_cotangents(cotangents, shape)))
    return result.states, result.gradients


def _function(
    circuit: QuantumCircuit | CompiledCircuit,
    options: FusedOptions | Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
) -> FinalStates:
    compiled = COMPILED.get(circuit)
    if keywords or not isinstance(options, FusedOptions):
        options = FusedOptions.coerce(options, **keywords)
    return FinalStates(compiled, options)


def _rows(compiled: CompiledCircuit, parameter_values: Any) -> np.ndarray:
    """Return checked parameter values, float64 (B, P)."""
    if parameter_values is None and not compiled.parameters:
        parameter_values = np.zeros((1, 0))
    values = ordered_rows(parameter_values, compiled.parameters)
    check_finite(values, compiled.parameters)
    return values


def _evaluate(function: FinalStates, batch: StateBatch) -> StatesVjp:
    """Evaluate rows, and show the progress."""
    part = Part.of(function.compiled, batch.num_rows, batch.num_adjoint_states)
    with Progress(function.options.progress, (part,)) as progress:
        progress.next_part()
        return function.evaluate(batch, progress.watch)


def _check_cotangents(cotangents: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return cotangents as an array (B, 2**n) of finite numbers. One cotangent (2**n,) is taken for one row."""
    array = as_numbers(cotangents, "cotangents")
    if array.shape == shape[1:] and shape[0] == 1:
        array = array[None]
    if array.shape != shape:
        raise ValueError(f"cotangents have shape {array.shape}; allowed: {shape}, the shape of the states.")
    if not is_finite(array):
        row, place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise RowError(f"the cotangent of amplitude {place} in ", row, f" is {array[row, place]}; allowed: finite.")
    return array
