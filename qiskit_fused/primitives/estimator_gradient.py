# SPDX-License-Identifier: Apache-2.0
"""`FusedEstimatorGradient`: qiskit-machine-learning's `BaseEstimatorGradient` by backward sweeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.providers import Options
from qiskit_machine_learning.gradients import BaseEstimatorGradient, DerivativeType

from qiskit_fused.common.display import arguments_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.observables import circuit_observables
from qiskit_fused.execution.arguments import ordered_rows
from qiskit_fused.options.fused_options import FusedOptions, FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords
from qiskit_fused.primitives.curvature import CurvatureMethods
from qiskit_fused.primitives.differentiation import differentiate_rows, run_batches, size_of
from qiskit_fused.primitives.estimator import FusedEstimator
from qiskit_fused.primitives.fused_gradient import check_derivative_type, check_primitive
from qiskit_fused.primitives.gradient_requests import make_batches
from qiskit_fused.primitives.job import FusedJob
from qiskit_fused.primitives.objective import Objective


class FusedEstimatorGradient(CurvatureMethods, BaseEstimatorGradient):
    """Exact gradients of expectation values with respect to all parameters, by backward sweeps.

    For ``psi = U(theta)|0>`` and an observable O, a gradient computes ``dE/dtheta_p = 2 Re <psi|O|dpsi/dtheta_p>`` of
    ``E = <psi|O|psi>``. The backward sweep brings psi and ``lam = O psi`` back through the gates. At a rotation
    ``exp(-i alpha/2 S)`` about a Pauli string S, the derivative is ``dE/dalpha = Im <lam|S|psi>``. The chain rule gives
    the derivatives by the parameters from the derivatives by all angles alpha.

    It takes the place of ``ParamShiftEstimatorGradient``: ``EstimatorQNN(gradient=FusedEstimatorGradient())``,
    ``VQE(gradient=...)``. Any ``ParameterExpression`` may be an angle. If an angle has no finite derivative, such as
    the square root at 0, asking for the derivative is an error; the derivative of ``abs`` at 0 is 0. A circuit that an
    estimator would run with ``StatevectorEstimator`` is refused. Global phases do not count: IMAG and COMPLEX
    derivatives follow ``LinCombEstimatorGradient``.

    >>> from qiskit import QuantumCircuit
    >>> from qiskit.circuit import Parameter
    >>> circuit = QuantumCircuit(1)
    >>> _ = circuit.ry(Parameter("a"), 0)
    >>> job = FusedEstimatorGradient().run(circuit, "Z", [0.5])
    >>> job.result().gradients[0].round(3).tolist()
    [-0.479]

    Args:
        estimator: a `FusedEstimator`, whose options are used, or any other estimator, which is not used.
        options: `FusedOptions` or a mapping of options; other entries of a mapping are kept for ``result.options``.
        derivative_type: ``REAL`` is ``2 Re <psi|O|dpsi>``, ``IMAG`` is ``2 Im <psi|O|dpsi>``, ``COMPLEX`` is
            ``2 <psi|O|dpsi>``.
        pass_manager: accepted and not used, because an exact gradient does not depend on how a circuit is transpiled.
        keywords: single options, which override ``options``.

    Raises:
        TypeError: for an unknown option, for an entry of ``options`` that looks like a mistyped option, or if
            ``estimator`` is no estimator.
        ValueError: for a bad value of an option.
        RuntimeError: for a device that cannot be used.

    Cost: a row takes one forward sweep, and one backward sweep per observable, for any number of parameters. With
    ``method="reverse"``, a row takes the memory of two states of 2^n amplitudes, beside tables and observables.

    Source: adjoint differentiation, arXiv:2009.02823; gates fused in both directions, and states recomputed segment by
    segment, arXiv:2603.02804.
    """

    @checks_keywords()
    def __init__(
        self,
        estimator: BaseEstimatorV2 | None = None,
        options: FusedOptions | Mapping[str, Any] | Options | None = None,
        derivative_type: DerivativeType = DerivativeType.REAL,
        pass_manager: Any = None,
        **keywords: Unpack[FusedOptionsDict],
    ):
        check_primitive(estimator, "estimator")
        check_derivative_type(derivative_type)
        fused = estimator if isinstance(estimator, FusedEstimator) else None
        result_options = self._take_options(fused, options, keywords)
        # Algorithms that take a gradient evaluate values with its estimator, such as VarQRTE.
        super().__init__(
            FusedEstimator(options=self.fused_options) if estimator is None else estimator,
            options=result_options,
            derivative_type=derivative_type,
            pass_manager=pass_manager,
        )

    def __repr__(self) -> str:
        changed = self.fused_options.changed()
        if self._derivative_type.name != "REAL":
            changed["derivative_type"] = self._derivative_type
        return f"FusedEstimatorGradient({arguments_text(changed)})"

    @BaseEstimatorGradient.derivative_type.setter
    def derivative_type(self, derivative_type: DerivativeType) -> None:
        """Set the derivative type."""
        check_derivative_type(derivative_type)
        self._derivative_type = derivative_type

    def value_and_gradient(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        observables: Any,
        parameter_values: Any,
        parameters: Iterable[Parameter] | Parameter | None = None,
        *,
        initial_states: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return values and gradients of all pairs of rows and observables. This is the fast way for training loops.

        With row b of the parameter values, ``values[b, k] = <psi_b|O_k|psi_b>`` and
        ``gradients[b, k, p] = 2 Re <psi_b|O_k|dpsi_b/dtheta_p>``, or another part of it by ``derivative_type``.

        A call makes no job and no lists of rows. The first call with a circuit, observables, options and a number of
        rows prepares all later calls with them. A prepared call takes about 7 us of Python beside the sweeps. Each call
        compares the circuit with its compiled form, in 0.02 us per gate.
        Observables are recognised by identity, so keep the objects.
        `objective` makes a function of one point for SciPy.

        >>> circuit = QuantumCircuit(1)
        >>> _ = circuit.ry(Parameter("a"), 0)
        >>> values, gradients = FusedEstimatorGradient().value_and_gradient(circuit, ["Z", "X"], [[0.0], [0.5]])
        >>> values.round(3).tolist()
        [[1.0, 0.0], [0.878, 0.479]]
        >>> gradients[1].round(3).tolist()
        [[-0.479], [0.878]]

        Args:
            circuit: the circuit, with P parameters, or the result of `compile_circuit`.
            observables: one observable or a list of K, of any type that ``ObservablesArray`` takes; None is Z on all
                qubits.
            parameter_values: real (B, P), or (P,) for B = 1, in the order of ``circuit.parameters``, which Qiskit sorts
                by name: ``w10`` comes before ``w2``, and only elements of a ``ParameterVector`` are sorted by index. Or
                values by name in any order, a dict or ``BindingsArray``: ``{weights: w, inputs: x}`` with
                ``ParameterVector`` objects, tuples of parameters, single parameters or names as keys. Leading axes are
                broadcast: w (W,) and x (B, I) are B rows.
            parameters: the parameters to differentiate, in the order of the last axis of the gradients; None is all, in
                the order of ``circuit.parameters``.
            initial_states: real or complex (B, 2^n) of norm 1, in which all n qubits of the circuit start instead of
                ``|0...0>``. One row of values is taken for all states, and one state for all rows of values.

        Returns:
            Values, float64 (B, K), and gradients (B, K, P), where P counts ``parameters`` if they are given. Both have
            these dimensions for B = 1 and K = 1 too. Gradients are complex128 if the derivative type is COMPLEX, else
            float64.

        Raises:
            UnsupportedInstruction: if the circuit has an instruction that no engine can simulate, or, with
                ``initial_states``, an instruction that needs its qubits in ``|0>``.
            TypeError: for a circuit, observable or values of a wrong type.
            ValueError: for shapes that do not fit, parameters that are not in the circuit, values or derivatives that
                are not finite, or states whose norm is not 1; the text names the row.
            MemoryError: if a row does not fit the memory limit.
        """
        compiled = COMPILED.get(circuit)
        operators = circuit_observables(observables, compiled.num_qubits).operators
        values = ordered_rows(parameter_values, compiled.parameters)
        columns = None if parameters is None else compiled.find_columns("parameters", parameters)
        return differentiate_rows(
            self.fused_options,
            self._derivative_type,
            compiled,
            operators,
            values,
            columns,
            initial_states,
            checks_values=True,
        )

    def objective(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        observable: Any = None,
        *,
        fixed: Mapping[Any, Any] | BindingsArray | None = None,
    ) -> Objective:
        """Return an expectation value as a function of one point, for SciPy's optimisers.

        ``scipy.optimize.minimize(gradient.objective(circuit, observable), x0, jac=True, method="BFGS")``: the function
        returns the value, a float, and its gradient (P,). All methods that ask for a gradient take it (CG, BFGS,
        Newton-CG, L-BFGS-B, TNC, SLSQP, trust-constr), ``basinhopping`` too. Methods without gradients take
        ``objective.value``. Methods with second derivatives take ``hess=objective.hessian`` (Newton-CG, trust-exact,
        dogleg, trust-constr) or, for many parameters, ``hessp=objective.hessian_product`` (Newton-CG, trust-ncg,
        trust-krylov).

        The circuit is compiled now, and later changes of it do not reach the function. Each call reads the options of
        this gradient. A call takes a few microseconds more than `value_and_gradient` with a compiled circuit.

        >>> from qiskit.circuit.library import real_amplitudes
        >>> from scipy.optimize import minimize
        >>> objective = FusedEstimatorGradient().objective(real_amplitudes(2, reps=1), "ZZ")
        >>> round(minimize(objective, [0.1, 0.2, 0.3, 0.4], jac=True, method="BFGS").fun, 6)
        -1.0

        Args:
            circuit: the circuit, or the result of `compile_circuit`.
            observable: one observable, which may be a sum of terms; None is Z on all qubits.
            fixed: values by name, as `value_and_gradient` takes them, of parameters that keep one value. The point has
                no values of them, and the gradient no derivatives.

        Returns:
            An `Objective`. Its ``parameters`` are the parameters of the point, in the order of ``circuit.parameters``
            without the fixed parameters.

        Raises:
            UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
            TypeError: for a circuit, observable or values of a wrong type.
            ValueError: for several observables, an observable on another number of qubits, or values of parameters that
                are not in the circuit.
        """
        return Objective(self, circuit, observable, fixed)

    def run(
        self,
        circuits: Sequence[QuantumCircuit] | QuantumCircuit,
        observables: Any,
        parameter_values: Any,
        parameters: Sequence[Sequence[Parameter] | None] | None = None,
        **options: Any,
    ) -> FusedJob:
        """Start a job that differentiates the i-th observable in the i-th circuit at the i-th parameter values.

        Objects that occur several times are validated once. Equal rows of one circuit are simulated once for all their
        observables; ``EstimatorQNN`` sends its batch once per observable.

        Args:
            circuits: N circuits, or one; compiled ones too.
            observables: N observables, or one; strings too. None is Z on all qubits of each circuit.
            parameter_values: (N, P), or N sequences, or N mappings of values by name, as `value_and_gradient` takes
                them. The values of a single circuit may be one sequence or mapping.
            parameters: for each circuit the parameters to differentiate, in the order of its gradient, or None for all.
            options: options of the engine, which hold for this job, and others; all are kept in ``result.options``.

        Returns:
            A job. Its result is an ``EstimatorGradientResult``, in which ``gradients[i]`` is an array (P,).

        Raises:
            TypeError: for a circuit, observable or values of a wrong type, or a name that looks like a mistyped option.
            ValueError: for arguments that do not fit together, values that are not finite, or a bad value of an option.
                An error that occurs later is raised by ``job.result()``.
        """
        engine_options, result_options = self._job_options(options)
        batches, count = make_batches(circuits, observables, parameter_values, parameters)
        job = FusedJob(run_batches, batches, count, engine_options, self._derivative_type, result_options)
        job.submit(map(size_of, batches))
        return job

    def _run(self, circuits: Any, observables: Any, parameter_values: Any, parameters: Any, **options: Any) -> Any:
        """Return the result of `run`. The base class requires this method; `run` does not call it."""
        return FusedEstimatorGradient.run(self, circuits, observables, parameter_values, parameters, **options).result()
