# SPDX-License-Identifier: Apache-2.0
"""`FusedQGT`: qiskit-machine-learning's `BaseQGT` by tangent states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.primitives import BaseEstimatorV2
from qiskit_machine_learning.gradients import DerivativeType
from qiskit_machine_learning.gradients.base.base_qgt import BaseQGT
from qiskit_machine_learning.gradients.base.qgt_result import QGTResult

from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.row_errors import renumbered
from qiskit_fused.execution.metric_tensor import MetricTensor
from qiskit_fused.execution.progress import Part, Progress
from qiskit_fused.options.fused_options import FusedOptions, FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords
from qiskit_fused.primitives.estimator import FusedEstimator
from qiskit_fused.primitives.fused_gradient import FusedGradient, check_derivative_type, check_primitive
from qiskit_fused.primitives.gradient_requests import Batch, make_state_batches
from qiskit_fused.primitives.job import FusedJob, Size

# The C library returns large arrays of the main thread to the system when they are freed, and maps their pages again
# in the next call. Threads of jobs keep them. Measured with 82,000 amplitudes of complex128: 2.6 ms instead of 1.4 ms.
_AMPLITUDES_IN_CALLER = 1 << 16
_PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"REAL": np.real, "IMAG": np.imag, "COMPLEX": np.asarray}


class FusedQGT(FusedGradient, BaseQGT):
    """The quantum geometric tensor of final states, exactly, for all parameters at once.

    For ``psi = U(theta)|0>`` and ``d_p psi = dpsi/dtheta_p``, the tensor is the Hermitian matrix

        ``Q_pq = <d_p psi|d_q psi> - <d_p psi|psi><psi|d_q psi>``.

    Its real part is the metric of natural gradients, and four times the real part is the quantum Fisher information.

    It takes the place of ``LinCombQGT`` and ``ReverseQGT``, and works with ``QFI`` of qiskit-machine-learning and of
    qiskit-algorithms, and with ``VarQITE`` and ``VarQRTE``. Any ``ParameterExpression`` may be an angle, and any gate
    may have it. Global phases do not count: without ``phase_fix``, the tensor follows ``LinCombQGT``.

    >>> from qiskit_machine_learning.gradients import QFI
    >>> circuit = QuantumCircuit(1)
    >>> _ = circuit.ry(Parameter("a"), 0)
    >>> _ = circuit.rz(Parameter("b"), 0)
    >>> QFI(FusedQGT()).run([circuit], [[0.5, 1.0]]).result().qfis[0].round(3).tolist()
    [[1.0, 0.0], [0.0, 0.23]]

    Args:
        estimator: a `FusedEstimator`, whose options are used, or any other estimator, which is not used.
        phase_fix: whether the second term of the tensor counts.
        derivative_type: ``COMPLEX`` is Q, ``REAL`` and ``IMAG`` are its parts. The ``DerivativeType`` of either library
            is taken.
        precision: accepted, and returned in results; None is the default of the estimator. The tensor is exact.
        pass_manager: accepted and not used, because the tensor does not depend on how a circuit is transpiled.
        pass_manager_options: accepted and not used.
        options: `FusedOptions` or a mapping of options.
        keywords: single options, which override ``options``.

    Raises:
        TypeError: for an unknown option, or if ``estimator`` is no estimator.
        ValueError: for a bad value of an option, or another derivative type.
        RuntimeError: for a device that cannot be used.

    Cost: one forward sweep for each parameter that is the angle of one rotation, two if it is the angle of another
    gate, four if several gates or an expression have it, and a matrix product of P^2 2^n complex multiplications, or
    half as many for ``REAL``. In blocks of parameters within ``memory_limit``. Of a parameter with four sweeps, the
    tangent state is a central difference, whose relative error is about 1e-11 in complex128 and 1e-5 in complex64.

    Source: the tensor, arXiv:1909.02108; shift rules for states and for several frequencies, arXiv:2107.12390.
    """

    @checks_keywords()
    def __init__(
        self,
        estimator: BaseEstimatorV2 | None = None,
        phase_fix: bool = True,
        derivative_type: DerivativeType = DerivativeType.COMPLEX,
        precision: float | None = None,
        *,
        pass_manager: Any = None,
        pass_manager_options: dict[str, Any] | None = None,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[FusedOptionsDict],
    ):
        check_primitive(estimator, "estimator")
        check_derivative_type(derivative_type)
        fused = estimator if isinstance(estimator, FusedEstimator) else None
        self._default_options = self._take_options(fused, options, keywords)
        super().__init__(
            FusedEstimator(options=self.fused_options) if estimator is None else estimator,
            phase_fix,
            derivative_type,
            precision,
            pass_manager=pass_manager,
            pass_manager_options=pass_manager_options,
        )

    def __repr__(self) -> str:
        changed = self.fused_options.changed()
        if not self._phase_fix:
            changed["phase_fix"] = False
        if self._derivative_type.name != "COMPLEX":
            changed["derivative_type"] = self._derivative_type
        return f"FusedQGT({arguments_text(changed)})"

    @BaseQGT.derivative_type.setter
    def derivative_type(self, derivative_type: DerivativeType) -> None:
        """Set the derivative type."""
        check_derivative_type(derivative_type)
        self._derivative_type = derivative_type

    def run(
        self,
        circuits: Sequence[QuantumCircuit] | QuantumCircuit,
        parameter_values: Any,
        parameters: Sequence[Sequence[Parameter] | None] | None = None,
        *,
        precision: float | Sequence[float] | None = None,
    ) -> FusedJob:
        """Start a job that computes the tensor of the i-th circuit at the i-th parameter values.

        Args:
            circuits: N circuits, or one; compiled ones too.
            parameter_values: (N, P), or N sequences, or N mappings of values by name. The values of a single circuit
                may be one sequence or mapping.
            parameters: for each circuit the parameters of its tensor, in the order of its rows, or None for all.
            precision: returned in the result.

        Returns:
            A job. Its result is a ``QGTResult``, in which ``qgts[i]`` is an array (P, P). A job of about a millisecond
            or less has ended when this method returns.

        Raises:
            TypeError: for a circuit or values of a wrong type.
            ValueError: for arguments that do not fit together, or values that are not finite. An error that occurs
                later is raised by ``job.result()``.
        """
        if precision is None:
            precision = self._precision
        if precision is None:
            precision = getattr(self._estimator, "default_precision", None)
        batches, count = make_state_batches(circuits, parameter_values, parameters)
        job = FusedJob(
            _run_batches, batches, count, self.fused_options, self._phase_fix, self._derivative_type, precision
        )
        job.submit(map(_size_of, batches))
        return job

    def _run(self, circuits: Any, parameter_values: Any, parameters: Any, **options: Any) -> Any:
        """Return the result of `run`. The base class requires this method; `run` does not call it."""
        return FusedQGT.run(self, circuits, parameter_values, parameters, **options).result()


def _parts(batches: list[Batch]) -> Iterator[Part]:
    """Yield the parts of the progress of a job."""
    for batch in batches:
        if batch.compiled is not None:
            yield from repeat(Part.of(batch.compiled, _num_rows(batch)), len(batch.index))


def _size_of(batch: Batch) -> Size:
    """Return the size of a batch, with no circuit if its states are so large that a thread of its own is faster."""
    compiled, num_rows = batch.compiled, _num_rows(batch)
    if compiled is not None and num_rows << compiled.num_qubits > _AMPLITUDES_IN_CALLER:
        compiled = None
    return Size(compiled, num_rows * len(batch.index))


def _num_rows(batch: Batch) -> int:
    """Return an estimate of the number of rows that a metric tensor takes."""
    return 2 * len(batch.parameters)


def _run_batches(
    batches: list[Batch],
    count: int,
    options: FusedOptions,
    phase_fix: bool,
    derivative_type: DerivativeType,
    precision: Any,
) -> tuple[QGTResult, dict[str, Any]]:
    """Compute the tensors of all requests of a job; return its result and metrics."""
    qgts: list[Any] = [None] * count
    metadata: list[Any] = [None] * count
    is_real, num_rows = derivative_type.name == "REAL", 0
    for batch in batches:
        if batch.error is not None:
            raise batch.error
    with Progress(options.progress, _parts(batches)) as progress:
        for batch in batches:
            assert batch.compiled is not None
            tensor = MetricTensor(batch.compiled, options, phase_fix)
            for parameters, columns, requests in batch.subsets:
                for request in requests.tolist():
                    progress.next_part()
                    position = int(batch.index[request])
                    with renumbered([position].__getitem__):
                        qgt = tensor.tensor(batch.values[request], columns, is_real, progress.watch)
                    qgts[position] = _PARTS[derivative_type.name](qgt)
                    metadata[position] = [{"parameters": parameters}]
                    num_rows += 1
    result = QGTResult(qgts=qgts, derivative_type=derivative_type, metadata=metadata, precision=precision)
    return result, {"rows": num_rows, "dtype": options.dtype}
