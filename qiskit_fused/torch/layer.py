# SPDX-License-Identifier: Apache-2.0
"""`FusedLayer`: expectation values of a circuit as a PyTorch module. A backward pass is one backward sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.options.fused_options import FusedOptions, FusedOptionsDict, Unpack
from qiskit_fused.options.keywords import checks_keywords, no_shots
from qiskit_fused.torch.base_layer import ALWAYS_EXACT, BaseLayer


class FusedLayer(BaseLayer):
    """Expectation values of K observables after a circuit: a module that maps (..., I) to (..., K).

    For inputs x (I,) and weights w (W,), value k is ``E_k(x, w) = <0|U(x, w)^+ O_k U(x, w)|0>``: U is the circuit,
    ``U^+`` its adjoint, ``|0>`` the state of all qubits in 0 (or an initial state), and O_k the k-th observable. A
    backward pass computes the vector-Jacobian products ``sum_k g[b, k] dE_k(x_b, w)/dx_i`` of each row b and
    ``sum_bk g[b, k] dE_k(x_b, w)/dw_j``, where g is the gradient of the loss with respect to the values.

    Gradients can be differentiated again: with ``create_graph=True``, ``torch.autograd.grad`` gives second derivatives,
    and a loss of second derivatives can be trained, which takes third derivatives. Each is a central difference of
    fourth order of the exact derivatives before, along the vector that autograd gives, at four points. In float64 the
    relative error of a second derivative is about 1e-11, and of a third derivative about 1e-8; in float32 they are 1e-5
    and 1e-3. Errors grow with the number of weights that the vector moves, and where angles are not affine in the
    parameters. `input_derivatives` gives first and second derivatives of the inputs faster. There are no second
    derivatives of initial states.

    The transforms of ``torch.func`` (``grad``, ``vjp``, ``jacrev``, ``vmap``, ``jvp``, ``jacfwd``, ``hessian``), and
    ``functional_call`` with them, take the layer. ``vmap`` makes one batch of all rows, also if each row has its own
    weights. A derivative in forward mode is a central difference too, so it is as exact as a second derivative.

    The weights are one Parameter, ``weight`` (W,). Gradients of the inputs, and of initial states, are computed only if
    autograd asks for them. The circuit is compiled when the module is made, and later changes of it do not count.
    Observables are read in each forward pass: a change in place counts from the next pass on.

    ``weight.dtype`` decides the number format, unless an option does: amplitudes are complex128 if it is float64
    (``layer.double()``), else complex64. Values have the dtype and the device of ``weight``.

    The ``device`` option alone says where the sweeps run. A float64 tensor (complex128 for states) in CPU memory is
    shared with the engine on the CPU; a tensor of another dtype is converted, because angles are float64 in all
    engines. A tensor on the GPU on which the sweeps run goes to the engine through DLPack, in torch's current stream,
    and its values and gradients come back the same way, without a copy through the host. (Tested with an emulated
    device; this has not run on a GPU yet.) GPU tensors are copied through CPU memory if the sweeps run on the CPU, if
    an executor shares the rows, if parameters are amplitudes, if an angle is not affine in one parameter, or if parts
    of the circuit are simulated once for all rows.

    >>> import torch
    >>> circuit, x, w = QuantumCircuit(1), Parameter("x"), Parameter("w")
    >>> _ = circuit.ry(x + w, 0)
    >>> layer = FusedLayer(circuit, ["Z", "X"], [x], [w], initial_weights=[0.5])
    >>> values = layer(torch.tensor([[0.0], [0.5]]))
    >>> values.shape
    torch.Size([2, 2])
    >>> values.sum().backward()
    >>> round(layer.weight.grad.item(), 3)
    0.097

    Args:
        circuit: the circuit, or the result of `compile_circuit`.
        observables: one observable or a list of K; None is Z on all qubits.
        input_params: the I parameters of the circuit whose values are the inputs, in the order of the inputs.
        weight_params: the W parameters of the circuit whose values are the weights, in the order of the weights. Each
            parameter of the circuit is one input or one weight. ``input_parameters`` and ``weight_parameters``, the
            former names of both arguments, still work, with a FutureWarning.
        initial_weights: W numbers; a dict of numbers by the names of their parameters; or a function that fills a
            tensor in place, as the functions of ``torch.nn.init`` do. A tensor keeps its dtype and device; other
            numbers become the default dtype. None is uniform in [-1, 1), as in ``TorchConnector``.
        options: `FusedOptions`, which decide the number format too, or a mapping; copied.
        keywords: single options, which override ``options``.

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        TypeError: for an unknown option.
        ValueError: for a bad value of an option, a parameter that is not in the circuit, a parameter of the circuit
            that is neither input nor weight, observables on another number of qubits, or another number of weights.
        RuntimeError: for a device that cannot be used.

    Cost: a row takes one forward sweep in a forward pass, and one forward and one backward sweep in a backward pass,
    for any number of observables. Memory does not depend on the number of rows times the number of weights.

    Source: adjoint differentiation, arXiv:2009.02823; gates fused in both directions, arXiv:2603.02804.
    """

    @checks_keywords(no_shots(ALWAYS_EXACT), input_parameters="input_params", weight_parameters="weight_params")
    def __init__(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        observables: Any = None,
        input_params: Iterable[Parameter] = (),
        weight_params: Iterable[Parameter] = (),
        initial_weights: Any = None,
        *,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[FusedOptionsDict],
    ):
        super().__init__(circuit, observables, input_params, weight_params, initial_weights, options, keywords)

    def _value_shape(self) -> tuple[int, ...]:
        return (self._double.num_observables,)

    def _shown_shape(self) -> dict[str, Any]:
        return {"num_observables": self._double.num_observables}
