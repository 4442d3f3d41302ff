# SPDX-License-Identifier: Apache-2.0
"""`FusedSamplerGradient`: qiskit-machine-learning's `BaseSamplerGradient` by backward sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.primitives import BaseSamplerV2
from qiskit.providers import Options
from qiskit_machine_learning.gradients import BaseSamplerGradient, DerivativeType

from qiskit_fused.common.display import arguments_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.outcome_tables import as_shape, find_outcomes
from qiskit_fused.execution.arguments import ordered_rows
from qiskit_fused.execution.finite_values import check_finite
from qiskit_fused.options.fused_options import ExactOptionsDict, FusedOptions, Unpack
from qiskit_fused.options.keywords import NO_PRECISION, checks_keywords
from qiskit_fused.primitives.differentiation import differentiate_rows, run_sampler_batches, size_of
from qiskit_fused.primitives.fused_gradient import FusedGradient, check_primitive
from qiskit_fused.primitives.gradient_requests import make_sampler_batches
from qiskit_fused.primitives.job import FusedJob
from qiskit_fused.primitives.sampler import FusedSampler
from qiskit_fused.program.outcomes import Outcomes


class FusedSamplerGradient(FusedGradient, BaseSamplerGradient):
    """Exact gradients of the probabilities of measured bitstrings, by backward sweeps.

    The probability that a measurement gives the integer z is ``p_z = <psi|P_z|psi>`` for ``psi = U(theta)|0>``, where
    P_z projects onto the states of the measured qubits that give z. Its gradient is ``dp_z/dtheta_p = 2 Re
    <psi|P_z|dpsi/dtheta_p>``. All probabilities come from one forward sweep. Gradients are exact, also those of a
    sampler with shots.

    It takes the place of ``ParamShiftSamplerGradient``: ``SamplerQNN(gradient=FusedSamplerGradient())``. An angle
    that is an expression of parameters is differentiated by the chain rule, see `FusedEstimatorGradient`. A derivative
    that does not exist, such as that of ``sqrt(a)`` at 0, is an error.

    The integer z is that of the register ``meas``, which ``measure_all`` adds, or of all classical registers joined if
    no register has this name; the first bit of the first register is the least significant bit. A bit that nothing is
    measured into is 0. A circuit without classical bits counts as measured on all qubits. If it was transpiled for a
    device, these are the qubits that it had before.

    >>> from qiskit import QuantumCircuit
    >>> from qiskit.circuit import Parameter
    >>> circuit = QuantumCircuit(1)
    >>> _ = circuit.ry(Parameter("a"), 0)
    >>> circuit.measure_all()
    >>> (of_a,) = FusedSamplerGradient().run([circuit], [[0.5]]).result().gradients[0]
    >>> {integer: round(derivative, 3) for integer, derivative in of_a.items()}
    {0: -0.24, 1: 0.24}

    Args:
        sampler: a `FusedSampler`, whose options are used, or any other sampler, which is not used.
        options: `FusedOptions` or a mapping of options; other entries of a mapping are kept for ``result.options``.
        pass_manager: accepted and not used, because an exact gradient does not depend on how a circuit is transpiled.
        keywords: single options, which override ``options``.

    Raises:
        TypeError: for an unknown option, for an entry of ``options`` that looks like a mistyped option, or if
            ``sampler`` is no sampler.
        ValueError: for a bad value of an option.
        RuntimeError: for a device that cannot be used.

    Cost: a row takes one forward sweep, and one backward sweep for each outcome but the last, for any number of
    parameters. The memory is that of `FusedEstimatorGradient`.

    Source: adjoint differentiation, arXiv:2009.02823; gates fused in both directions, and states recomputed segment by
    segment, arXiv:2603.02804.
    """

    _latest: tuple[Any, Any] | None = None  # arguments of the latest outcomes; the outcomes with their shape

    @checks_keywords(NO_PRECISION)
    def __init__(
        self,
        sampler: BaseSamplerV2 | None = None,
        options: FusedOptions | Mapping[str, Any] | Options | None = None,
        pass_manager: Any = None,
        **keywords: Unpack[ExactOptionsDict],
    ):
        check_primitive(sampler, "sampler")
        fused = sampler if isinstance(sampler, FusedSampler) else None
        result_options = self._take_options(fused, options, keywords)
        super().__init__(sampler, options=result_options, pass_manager=pass_manager)

    def __repr__(self) -> str:
        return f"FusedSamplerGradient({arguments_text(self.fused_options.changed())})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_latest"}

    def value_and_gradient(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        parameter_values: Any,
        parameters: Iterable[Parameter] | Parameter | None = None,
        interpret: Callable[[int], int | Iterable[int]] | None = None,
        output_shape: int | tuple[int, ...] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities of outcomes, and their gradients, for all rows of parameter values.

        With row b, ``probabilities[b, k] = sum_z p_z(theta_b)`` over all integers z with ``interpret(z) = k``, and
        ``gradients[b, k, p]`` is its derivative by parameter p. Each possible integer is interpreted once, and again
        only if the circuit, ``interpret`` or ``output_shape`` is another object in the next call. Probabilities and
        gradients are exact, also if the sampler of this gradient has shots.

        >>> circuit = QuantumCircuit(2)
        >>> _ = circuit.ry(Parameter("a"), 0)
        >>> _ = circuit.cx(0, 1)
        >>> gradient = FusedSamplerGradient()
        >>> probabilities, gradients = gradient.value_and_gradient(circuit, [[0.0], [0.5]])
        >>> probabilities.round(3).tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.939, 0.0, 0.0, 0.061]]
        >>> first_bit = gradient.value_and_gradient(circuit, [[0.5]], interpret=lambda z: z & 1, output_shape=2)
        >>> first_bit[0].round(3).tolist(), first_bit[1].round(3).tolist()
        ([[0.939, 0.061]], [[[-0.24], [0.24]]])

        Args:
            circuit: the circuit, with P parameters, or the result of `compile_circuit`.
            parameter_values: real (B, P), or (P,) for B = 1, or values by name, as
                `FusedEstimatorGradient.value_and_gradient` takes them.
            parameters: the parameters to differentiate, in the order of the last axis of the gradients; None is all, in
                the order of ``circuit.parameters``.
            interpret: a function that maps an integer z to an outcome, an integer from 0 on or a tuple of them, as
                ``SamplerQNN`` takes it; None is z.
            output_shape: the number of outcomes, or a tuple of numbers for an ``interpret`` that returns tuples; given
                with ``interpret`` only.

        Returns:
            Probabilities, float64 (B, K), and gradients, float64 (B, K, P), where P counts ``parameters`` if they are
            given. K is ``output_shape``, or 2^c for an integer of c bits. A tuple ``output_shape`` keeps its
            dimensions: ``(B, *output_shape)`` and ``(B, *output_shape, P)``.

        Raises:
            UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
            TypeError: for a circuit or values of a wrong type.
            ValueError: for shapes that do not fit, parameters that are not in the circuit, values or derivatives that
                are not finite, a circuit that measures nothing into its classical bits, or an ``interpret`` that
                returns something else than an outcome; the text names the integer.
            MemoryError: if a row does not fit the memory limit, for more than 30 measured qubits, or if the gradients
                of all rows do not fit the free memory: then nothing was allocated for them.
        """
        compiled = COMPILED.get(circuit)
        outcomes, shape = self._outcomes(compiled, circuit, interpret, output_shape)
        values = ordered_rows(parameter_values, compiled.parameters)
        check_finite(values, compiled.parameters)
        columns = None if parameters is None else compiled.find_columns("parameters", parameters)
        probabilities, gradients = differentiate_rows(
            self.fused_options, DerivativeType.REAL, compiled, outcomes, values, columns
        )
        shape = (len(values), *shape)
        return probabilities.reshape(shape), gradients.reshape(*shape, gradients.shape[-1])

    def _outcomes(
        self, compiled: CompiledCircuit, circuit: QuantumCircuit | CompiledCircuit, interpret: Any, output_shape: Any
    ) -> tuple[Outcomes, tuple[int, ...]]:
        """Return the outcomes of a circuit and their shape. The latest ones are cached.

        A compiled circuit has the instructions of its circuit, and the circuit may have got other registers since.
        """
        registers = () if isinstance(circuit, CompiledCircuit) else (circuit.clbits, circuit.cregs)
        shape = None if output_shape is None else as_shape(output_shape)
        parts, latest = (compiled, interpret, shape, registers), self._latest
        if (
            latest is None
            or latest[0][0] is not compiled
            or latest[0][1] is not interpret
            or latest[0][2:] != parts[2:]
        ):
            latest = self._latest = parts, find_outcomes(circuit, interpret, output_shape)
        found: tuple[Outcomes, tuple[int, ...]] = latest[1]
        return found

    def run(
        self,
        circuits: Sequence[QuantumCircuit] | QuantumCircuit,
        parameter_values: Any,
        parameters: Sequence[Sequence[Parameter] | None] | None = None,
        **options: Any,
    ) -> FusedJob:
        """Start a job that differentiates the probabilities of the i-th circuit at the i-th parameter values.

        Requests with the same circuit object run as one batch.

        Args:
            circuits: N circuits, or one; compiled ones too.
            parameter_values: (N, P), or N sequences, or N mappings of values by name, as `value_and_gradient` takes
                them. The values of a single circuit may be one sequence or mapping.
            parameters: for each circuit the parameters to differentiate, in the order of its gradient, or None for all.
            options: options of the engine, which hold for this job, and others; all are kept in ``result.options``.

        Returns:
            A job. Its result is a ``SamplerGradientResult``. In it, ``gradients[i][p]`` is a dict of the derivative by
            parameter p of the probability of each integer that the measurement can give.

        Raises:
            TypeError: for a circuit or values of a wrong type, or a name that looks like a mistyped option.
            ValueError: for arguments that do not fit together, values that are not finite, a circuit that measures
                nothing into its classical bits, or a bad value of an option. An error that occurs later is raised by
                ``job.result()``.
            MemoryError: for more than 30 measured qubits, or if the derivatives do not fit the free memory.
        """
        engine_options, result_options = self._job_options(options)
        batches, count = make_sampler_batches(circuits, parameter_values, parameters, engine_options)
        job = FusedJob(run_sampler_batches, batches, count, engine_options, result_options)
        job.submit(map(size_of, batches))
        return job

    def _run(self, circuits: Any, parameter_values: Any, parameters: Any, **options: Any) -> Any:
        """Return the result of `run`. The base class requires this method; `run` does not call it."""
        return FusedSamplerGradient.run(self, circuits, parameter_values, parameters, **options).result()
