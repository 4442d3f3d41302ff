# SPDX-License-Identifier: Apache-2.0
"""`FusedKernelLayer`: the kernel matrix of a batch of samples as a PyTorch module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qiskit.circuit import Parameter, QuantumCircuit
from torch import Tensor

from qiskit_fused.common.choices import check_choice
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.execution.fidelities import Fidelities
from qiskit_fused.execution.kernel_function import KernelFunction
from qiskit_fused.execution.projections import Projections
from qiskit_fused.options.fused_options import ExactOptionsDict, FusedOptions, Unpack
from qiskit_fused.options.keywords import checks_keywords, no_precision
from qiskit_fused.torch.base_layer import ALWAYS_EXACT, WeightedModule
from qiskit_fused.torch.kernels import kernel_matrix

_KERNELS = ("fidelity", "projected")


class FusedKernelLayer(WeightedModule):
    """A kernel matrix of samples: a module that maps (N, I), or (N, I) and (M, I), to (N, M).

    Element ij of the matrix is the kernel of the samples x_i and y_j after one circuit, with weights w that all samples
    share: the fidelity ``|<psi(x_i, w)|psi(y_j, w)>|^2``, or a projected kernel. Without y, the matrix is made of x
    alone; it is symmetric, and its diagonal is 1. A backward pass takes one backward sweep for each sample. There are
    no second derivatives.

    The ``weight``, number formats and devices are as in `FusedLayer`. Samples and matrices go through the memory of the
    host. Between a forward and a backward pass, the layer keeps the states of all samples where they fit
    ``memory_limit``. The example trains a kernel for two classes:

    >>> import torch
    >>> from qiskit.circuit.library import real_amplitudes, zz_feature_map
    >>> from qiskit_fused.torch import alignment_loss
    >>> first, second = real_amplitudes(2, reps=1), zz_feature_map(2, reps=1)
    >>> layer = FusedKernelLayer(first.compose(second), second.parameters, first.parameters, torch.ones(4))
    >>> samples = torch.rand(20, 2, generator=torch.manual_seed(0))
    >>> labels = samples[:, 0] > 0.5
    >>> optimizer, losses = torch.optim.Adam(layer.parameters(), lr=0.1), []
    >>> for _ in range(10):
    ...     optimizer.zero_grad()
    ...     loss = alignment_loss(layer(samples), labels)
    ...     loss.backward()
    ...     _ = optimizer.step()
    ...     losses.append(loss.item())
    >>> losses[-1] < losses[0]
    True
    >>> layer(samples[:3], samples).shape
    torch.Size([3, 20])

    Args:
        circuit: the circuit, or the result of `compile_circuit`.
        input_params: the I parameters of the circuit whose values are the samples, in the order of the samples.
        weight_params: the W parameters of the circuit whose values are the weights, in the order of the weights. Each
            parameter of the circuit is one input or one weight.
        initial_weights: as in `FusedLayer`.
        kernel: ``"fidelity"``, or ``"projected"`` for
            `Projections <qiskit_fused.execution.projections.Projections>`.
        observables: observables of a projected kernel; None is X, Y and Z divided by sqrt(2) on each qubit.
        gamma: the factor in the exponent of a projected kernel, above 0.
        options: `FusedOptions`, which decide the number format too, or a mapping; copied.
        keywords: single options, which override ``options``.

    Raises:
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        TypeError: for an unknown option, or observables of a fidelity kernel.
        ValueError: for a bad value of an argument, or a parameter of the circuit that is neither input nor weight.
        RuntimeError: for a device that cannot be used.

    Cost: as `Fidelities` or `Projections`.
    """

    @checks_keywords(no_precision(ALWAYS_EXACT))
    def __init__(
        self,
        circuit: QuantumCircuit | CompiledCircuit,
        input_params: Iterable[Parameter] = (),
        weight_params: Iterable[Parameter] = (),
        initial_weights: Any = None,
        *,
        kernel: str = "fidelity",
        observables: Any = None,
        gamma: float = 1.0,
        options: FusedOptions | Mapping[str, Any] | None = None,
        **keywords: Unpack[ExactOptionsDict],
    ):
        is_projected = check_choice("kernel", kernel, _KERNELS) == "projected"
        if not is_projected and (observables is not None or gamma != 1):
            raise TypeError("observables and gamma belong to projected kernels; allowed: kernel='projected' with them.")

        def make_function(options: FusedOptions) -> KernelFunction:
            if is_projected:
                return Projections(circuit, input_params, weight_params, observables, gamma, options)
            return Fidelities(circuit, input_params, weight_params, options)

        super().__init__(make_function, initial_weights, options, keywords)

    def forward(self, inputs: Tensor, others: Tensor | None = None) -> Tensor:
        """Return the matrix (N, M), of the dtype and device of ``weight``.

        Args:
            inputs: the samples x, real (N, I).
            others: the samples y, real (M, I). None makes the symmetric matrix of x.

        Raises:
            TypeError: for an argument that is no tensor, or complex samples.
            ValueError: for shapes that do not fit, tensors on several devices, or values that are not finite.
            MemoryError: if a state does not fit the memory limit, or the matrix does not fit the free memory.
            RuntimeError: inside a transform of ``torch.func``.
        """
        inputs = self._checked_inputs("inputs", inputs)
        others = None if others is None else self._checked_inputs("others", others)
        return kernel_matrix(self._function, self.weight, inputs, others)

    def _shown_shape(self) -> dict[str, Any]:
        return {} if isinstance(self._double, Fidelities) else {"kernel": "projected", "gamma": self._double.gamma}
