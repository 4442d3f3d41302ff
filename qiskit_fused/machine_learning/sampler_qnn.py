# SPDX-License-Identifier: Apache-2.0
"""`FusedSamplerQNN`: qiskit-machine-learning's `SamplerQNN` in one batch per pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.primitives import BaseSamplerV2, BitArray, DataBin
from qiskit_machine_learning.exceptions import QiskitMachineLearningError
from qiskit_machine_learning.gradients import BaseSamplerGradient
from qiskit_machine_learning.neural_networks import SamplerQNN

from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.compilation.outcome_tables import as_shape, bits_before_transpilation, measured_bits, outcomes_of_bits
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.lowering.errors import UnsupportedInstruction
from qiskit_fused.machine_learning.fused_network import FusedNetwork
from qiskit_fused.machine_learning.network_parameters import as_parameters
from qiskit_fused.machine_learning.sampled_outcomes import frequencies
from qiskit_fused.options.fused_options import ExactOptionsDict, FusedOptions, Unpack
from qiskit_fused.options.keywords import checks_keywords, no_precision
from qiskit_fused.primitives.sampler import FusedSampler
from qiskit_fused.primitives.sampler_gradient import FusedSamplerGradient
from qiskit_fused.program.outcomes import Outcomes


class _Bits(NamedTuple):
    """Which qubits the bits of a measurement are.

    Attributes:
        circuit: the measured circuit.
        measured: int (c,), the qubit that is measured into each bit of a sampler's result, or -1.
        read: int (d,), the qubit of each bit of the integer z of the network, or -1.
    """

    circuit: QuantumCircuit
    measured: np.ndarray
    read: np.ndarray


class FusedSamplerQNN(FusedNetwork, SamplerQNN):
    """A ``SamplerQNN`` whose forward pass is one batch, and whose backward pass is one batched Jacobian.

    A measurement of the state ``U(x, w)|0>`` gives an integer z, for the inputs x (I,) of a sample and the weights w
    (W,). Output k is the probability ``f_k(x, w)`` that ``interpret(z) = k``. Outputs and gradients have the values and
    shapes of ``SamplerQNN``, and gradients are exact. Classes that take a ``SamplerQNN``, such as
    ``NeuralNetworkClassifier`` and ``TorchConnector``, take this network too. `vjp` and `value_and_vjp` compute the
    gradient of a loss by one backward sweep for all outputs, without the Jacobian.

    Outputs are exact, unless the sampler has shots: then ``forward`` returns frequencies of its shots, drawn with its
    seed. All else stays exact: gradients, `vjp`, and also the outputs that `value_and_vjp` returns. A circuit that only
    ``StatevectorSampler`` can run goes there, as in `FusedSampler`, and has no gradients. A circuit without classical
    bits is measured on all qubits. A circuit with parameters is copied.

    ``interpret`` is called once for each integer that a measurement can give, at the first pass, and again after
    ``set_interpret``. The integer z has these bits, the first one least significant: the register ``meas``, which
    ``measure_all`` adds, or all classical registers joined. A circuit counts as measured after its transpilation if
    bit i of z, for each i, is measured from qubit i of all N qubits, and N is larger than the number n of qubits before
    the transpilation or the register is called ``meas``; then z has the n qubits before the transpilation, and in all
    other cases the bits mean what the circuit says. If the circuit has more classical bits than its n qubits, integers
    from ``2^n`` on belong to no output.

    ``SamplerQNN`` itself gives all samples of a batch the same, averaged outputs if the register has another name than
    ``meas``. It gives zeros for a circuit without parameters. It reads bits of other qubits if a circuit was measured
    before it was transpiled. Its exact sampler leaves bits that nothing is measured into out of z, where a sampler with
    shots has zeros. Here these outputs are right, and such bits are 0.

    >>> from qiskit import QuantumCircuit
    >>> from qiskit.circuit import Parameter
    >>> circuit, x, w = QuantumCircuit(2), Parameter("x"), Parameter("w")
    >>> _ = circuit.ry(x, 0)
    >>> _ = circuit.rx(w, 1)
    >>> parity = lambda z: z.bit_count() % 2
    >>> qnn = FusedSamplerQNN(circuit=circuit, input_params=[x], weight_params=[w], interpret=parity, output_shape=2)
    >>> qnn.forward([[0.0], [0.5]], [1.0]).round(3).tolist()
    [[0.77, 0.23], [0.737, 0.263]]

    Args:
        circuit: the circuit, with inputs and weights as its parameters, or the result of `compile_circuit`.
        sampler: a `FusedSampler`; None makes an exact one, ``FusedSampler(default_shots=None)``.
        input_params: the I parameters whose values differ between samples.
        weight_params: the W trainable parameters, whose values all samples share.
        sparse: whether ``forward`` and ``backward`` return COO arrays of the package ``sparse``. `vjp` and
            `value_and_vjp` take and return arrays of NumPy.
        interpret: a function that maps the integer z to an output, an integer from 0 on, or a tuple of integers; None
            is z, with ``2^n`` outputs for n qubits.
        output_shape: the number of outputs, or a tuple of numbers for an ``interpret`` that returns tuples. It is
            needed with ``interpret``, and ignored without it.
        gradient: the gradient for the backward pass; None is a `FusedSamplerGradient` with the sampler's options. Any
            other gradient is used as ``SamplerQNN`` uses it, and the network then has no `vjp`.
        input_gradients: whether gradients with respect to the inputs are computed.
        pass_manager: transpiles the circuit; not needed here.
        options: `FusedOptions` or a mapping, for the sampler that is made.
        keywords: single options, which override the sampler's options and ``options``.

    Raises:
        TypeError: for a sampler that is no `FusedSampler`, for ``options`` beside a sampler, or an unknown option.
        ValueError: for a bad value of an option, for parameters that are not in the circuit, or for a circuit with
            classical bits into which nothing is measured. The first pass raises a ValueError for an ``interpret`` that
            returns something else than an output; the text names the integer.
        QiskitMachineLearningError: for ``interpret`` without a valid ``output_shape``.

    Cost: a forward pass takes one sweep per sample, a Jacobian one backward sweep per sample and output. A network
    of two outputs takes one backward sweep, because they add up to 1.
    """

    _measured: _Bits | None = None  # the bits of the circuit, found at their first use
    _table: tuple[Any, Outcomes] | None = None  # arguments of the outcomes; the outcomes

    @checks_keywords(
        no_precision("sampler=FusedSampler(default_shots=100) draws 100 shots; without a sampler, outputs are exact")
    )
    def __init__(
        self,
        *,
        circuit: QuantumCircuit | CompiledCircuit,
        sampler: BaseSamplerV2 | None = None,
        input_params: Sequence[Parameter] | None = None,
        weight_params: Sequence[Parameter] | None = None,
        sparse: bool = False,
        interpret: Callable[[int], int | tuple[int, ...]] | None = None,
        output_shape: int | tuple[int, ...] | None = None,
        gradient: BaseSamplerGradient | None = None,
        input_gradients: bool = False,
        pass_manager: Any = None,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[ExactOptionsDict],
    ):
        if sampler is not None and not isinstance(sampler, FusedSampler):
            raise TypeError(
                f"sampler must be a FusedSampler or None, not {type(sampler).__name__}; "
                "SamplerQNN takes any sampler, and accelerate(qnn) replaces a simulator."
            )
        if sampler is not None and options is not None:
            raise TypeError("options were given beside a sampler, which has its own; give one of both.")
        if isinstance(circuit, CompiledCircuit):
            circuit = circuit.circuit
        if sampler is None:
            sampler = FusedSampler(default_shots=None, options=options, **keywords)
        elif keywords:
            sampler = FusedSampler(default_shots=sampler.default_shots, options=sampler.options, **keywords)
        super().__init__(
            circuit=circuit,
            sampler=sampler,
            input_params=as_parameters(input_params),
            weight_params=as_parameters(weight_params),
            sparse=sparse,
            interpret=interpret,
            output_shape=output_shape,
            gradient=FusedSamplerGradient(sampler) if gradient is None else gradient,
            input_gradients=input_gradients,
            pass_manager=pass_manager,
        )

    def set_interpret(
        self,
        interpret: Callable[[int], int | tuple[int, ...]] | None = None,
        output_shape: int | tuple[int, ...] | None = None,
    ) -> None:
        """Change ``interpret`` and ``output_shape``, which are as in the constructor."""
        if interpret is not None and output_shape is not None:
            try:
                as_shape(output_shape)
            except ValueError as error:
                raise QiskitMachineLearningError(str(error)) from None
        super().set_interpret(interpret, output_shape)
        if interpret is None:
            self._interpret = identity  # the function of the base class cannot be pickled

    def _check_circuit(self, circuit: QuantumCircuit) -> None:
        """Raise a ValueError for a circuit with classical bits into which nothing is measured."""
        measured_bits(circuit)

    def _primitive_arguments(self) -> dict[str, Any]:
        shots, options = getattr(self.sampler, "default_shots", None), getattr(self.sampler, "options", None)
        arguments = {} if shots is None else {"default_shots": shots}
        return arguments | options.changed() if isinstance(options, FusedOptions) else arguments

    def _gradient_options(self) -> FusedOptions | None:
        return self.gradient.fused_options if isinstance(self.gradient, FusedSamplerGradient) else None

    def _gradient_name(self) -> str:
        return "FusedSamplerGradient"

    def _outputs(self) -> Expectations | None:
        """Return the outputs as an exact function; None if the sampler has shots, or is not a `FusedSampler`."""
        sampler = self.sampler
        if type(sampler).run is not FusedSampler.run or sampler.default_shots is not None:
            return None
        try:
            return self._function(sampler.options)
        except UnsupportedInstruction:
            return None  # the base class then calls the sampler, which falls back or raises this error

    def _forward(self, input_data: np.ndarray | None, weights: np.ndarray | None) -> Any:
        try:
            return super()._forward(input_data, weights)
        except QiskitMachineLearningError as error:
            if isinstance(error.__cause__, UnsupportedInstruction):  # wrapped by the base class
                raise error.__cause__ from None
            raise

    def _make_function(self, compiled: CompiledCircuit, options: FusedOptions) -> Expectations:
        # in the renamed circuit, "inputs[i]" come before "weights[j]"
        inputs, weights = compiled.parameters[: self._num_inputs], compiled.parameters[self._num_inputs :]
        return Expectations(compiled, self._outcomes(), inputs, weights, options)

    def _is_current(self, function: Expectations) -> bool:
        return function.operators is self._outcomes()

    def _outcomes(self) -> Outcomes:
        """Return the outcomes of the measurement. They are cached until the measurement or ``interpret`` changes.

        Raises:
            ValueError: for an ``interpret`` that returns something else than an output.
        """
        interpret, shape, bits, table = self._interpret, self._output_shape, self._bits().read, self._table
        if table is None or table[0][0] is not interpret or table[0][1] != shape or table[0][2] is not bits:
            function = None if interpret is identity else interpret
            limit = 1 << self.num_virtual_qubits
            outcomes, _ = outcomes_of_bits(self._circuit.num_qubits, bits, function, shape, limit)
            table = self._table = (interpret, shape, bits), outcomes
        return table[1]

    def _bits(self) -> _Bits:
        """Return which qubits the bits are. They are cached, because nobody else changes the copy of a circuit."""
        circuit, found = self._circuit, self._measured
        if found is not None and found.circuit is circuit and circuit is not self._org_circuit:
            return found
        measured = measured_bits(circuit)
        read = bits_before_transpilation(circuit, self._org_circuit.layout, measured)
        if found is None or not (np.array_equal(found.measured, measured) and np.array_equal(found.read, read)):
            found = self._measured = _Bits(circuit, measured, read)
        return found

    def _postprocess(self, num_samples: int, result: Any) -> Any:
        """Return outputs made of the result of a sampler: frequencies of shots, each sample by itself."""
        data = result[0].data
        fields = list(data.values()) if isinstance(data, DataBin) else []
        if not fields or not all(isinstance(field, BitArray) for field in fields):
            return super()._postprocess(num_samples, result)
        if "meas" in data:
            fields = [data["meas"]]
        field = fields[0] if len(fields) == 1 else BitArray.concatenate_bits(fields)
        values = frequencies(field, self._bits().measured, self._outcomes())
        return self._as_output(values.reshape(num_samples, *self._output_shape))

    def _as_output(self, array: np.ndarray) -> Any:
        """Return an array as it is, or as a sparse one."""
        if not self._sparse:
            return array
        from sparse import COO  # an optional package, which the base class has required

        return COO.from_numpy(array)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in ("_measured", "_table")}


def identity(integer: int) -> int:
    """Return the integer: the ``interpret`` of a network that was given none."""
    return integer
