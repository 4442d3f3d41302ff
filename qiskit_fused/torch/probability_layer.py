# SPDX-License-Identifier: Apache-2.0
"""`FusedProbabilityLayer`: probabilities of measured outcomes as a PyTorch module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any

from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.compilation.outcome_tables import Interpret, find_outcomes
from qiskit_fused.options.fused_options import ExactOptionsDict, FusedOptions, Unpack
from qiskit_fused.options.keywords import checks_keywords, no_precision
from qiskit_fused.torch.base_layer import ALWAYS_EXACT, BaseLayer

_LETTERS = frozenset("IXYZ01+-rl")  # the letters of the labels of observables


class FusedProbabilityLayer(BaseLayer):
    """Probabilities of measured outcomes after a circuit: a module that maps (..., I) to ``(..., *output_shape)``.

    For inputs x (I,) and weights w (W,), the value at index k is the exact probability

        ``p_k(x, w) = sum over all z with interpret(z) = k of P(z)``,

    where z is the integer of a measurement, and P(z) its probability after the circuit: the sum of ``|psi_y|^2`` over
    all bitstrings y of the measured qubits that give z. The bits of z are the register ``meas``, which ``measure_all``
    adds, or all classical registers if there is no such register, the first bit the least significant. A circuit
    without classical bits is measured on all qubits. A classical bit that nothing is measured into is 0. These are
    the outputs of a ``SamplerQNN`` with an exact sampler. Only for a circuit that is measured on all qubits of a device
    after its transpilation do they differ: there z has all qubits of the device. A backward pass computes the
    vector-Jacobian products of the inputs and weights, and gradients can be differentiated again, as in a `FusedLayer`.

    The ``weight``, number formats, devices, and the gradients of inputs and initial states are as in `FusedLayer`. The
    circuit and ``interpret`` are read when the module is made, and later changes of them do not count. The module keeps
    the results of ``interpret``, not the function, so a layer with a lambda function can be pickled.

    The probability of an outcome can be 0, whose logarithm is ``-inf`` and would turn gradients into NaN. So a loss
    adds a small constant, such as 1e-6, and 1e-12 in float64. The gradient of ``log(p + c)`` with respect to an angle
    of one rotation gate is then at most ``1 / (2 sqrt(c))``. (``p.clamp(min=c)`` is no cure: its gradient is 0 where p
    is below c, and there the layer does not learn.) In this example two qubits have the classes "even" and "odd", and
    the loss is the mean negative log likelihood of the classes of three rows:

    >>> import torch
    >>> circuit, x, w = QuantumCircuit(2), Parameter("x"), Parameter("w")
    >>> _ = circuit.ry(x, 0)
    >>> _ = circuit.ry(w, 1)
    >>> parity = lambda z: z.bit_count() % 2
    >>> layer = FusedProbabilityLayer(circuit, [x], [w], [0.5], interpret=parity, output_shape=2)
    >>> probabilities = layer(torch.tensor([[0.0], [0.5], [3.0]]))
    >>> [[round(p, 3) for p in row] for row in probabilities.tolist()]
    [[0.939, 0.061], [0.885, 0.115], [0.066, 0.934]]
    >>> classes = torch.tensor([0, 0, 1])
    >>> loss = torch.nn.functional.nll_loss(torch.log(probabilities + 1e-6), classes)
    >>> loss.backward()
    >>> round(loss.item(), 3), round(layer.weight.grad.item(), 3)
    (0.084, 0.249)

    Args:
        circuit: the circuit, or the result of `compile_circuit`. Its measurements are the last instructions on their
            qubits.
        input_params: the I parameters of the circuit whose values are the inputs, in the order of the inputs.
        weight_params: the W parameters of the circuit whose values are the weights, in the order of the weights. Each
            parameter of the circuit is one input or one weight.
        initial_weights: as in `FusedLayer`.
        interpret: a function of the integer z that returns the index k, an int, or a tuple of ints if there are several
            dimensions. It is called once for each z that can occur. None: the index is z.
        output_shape: the shape of the outcomes, an int or a tuple of ints; needed with ``interpret``, and refused
            without it. Without ``interpret`` it is ``(2^c,)`` for the c bits of z.
        options: `FusedOptions`, which decide the number format too, or a mapping; copied.
        keywords: single options, which override ``options``.

    Attributes:
        output_shape: the shape of the outcomes, a tuple.

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate, such as a measurement in
            the middle.
        TypeError: for an unknown option, an interpret that is no function, or observables.
        ValueError: for a bad value of an option, a parameter that is not in the circuit, a parameter of the circuit
            that is neither input nor weight, another number of weights, an index outside of output_shape, or a circuit
            whose classical bits nothing is measured into.
        MemoryError: for more than 30 measured qubits, or more than 2^30 outcomes.
        RuntimeError: for a device that cannot be used.

    Cost: a row takes one forward sweep and one pass over the final state in a forward pass, and one forward and one
    backward sweep in a backward pass, for any number of outcomes. A row has as many values as there are outcomes.
    Making the module takes one call of ``interpret`` for each bitstring of the measured qubits.
    """

    @checks_keywords(no_precision(ALWAYS_EXACT))
    def __init__(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        input_params: Iterable[Parameter] = (),
        weight_params: Iterable[Parameter] = (),
        initial_weights: Any = None,
        *,
        interpret: Interpret | None = None,
        output_shape: int | Iterable[int] | None = None,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[ExactOptionsDict],
    ):
        input_params = _without_observables(input_params)
        outcomes, shape = find_outcomes(circuit, interpret, output_shape)
        super().__init__(circuit, outcomes, input_params, weight_params, initial_weights, options, keywords)
        self.output_shape = shape

    def _value_shape(self) -> tuple[int, ...]:
        return self.output_shape

    def _shown_shape(self) -> dict[str, Any]:
        return {"output_shape": self.output_shape}


def _without_observables(input_params: Iterable[Parameter]) -> Iterable[Parameter]:
    """Return the parameters. Raise a TypeError for observables, which stand before the parameters in a `FusedLayer`."""
    is_one = isinstance(input_params, (str, Mapping, Parameter, NoneType)) or hasattr(input_params, "num_qubits")
    found = [input_params] if is_one else list(input_params)
    for part in found:
        is_label = isinstance(part, str) and bool(part) and set(part) <= _LETTERS
        if is_label or isinstance(part, Mapping) or hasattr(part, "num_qubits"):
            raise TypeError(
                f"input_params contains the observable {part!r}, and this layer takes no observables; allowed: "
                "FusedProbabilityLayer(circuit, input_params, weight_params). FusedLayer takes observables."
            )
    return input_params if is_one else found
