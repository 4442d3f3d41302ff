# SPDX-License-Identifier: Apache-2.0
"""Expectation values, probabilities and kernels of circuits as PyTorch modules and functions. It imports torch.

Tensors come in, and tensors with a backward pass go out. May import ``primitives`` and the folders before it.
"""

try:
    import torch  # noqa: F401  (the modules below need it, and this is the place that says so)
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "qiskit_fused.torch needs PyTorch, which is not installed; use: pip install torch",
        name="torch",
    ) from error

from qiskit_fused.torch.functions import expectation_values
from qiskit_fused.torch.kernel_layer import FusedKernelLayer
from qiskit_fused.torch.kernels import alignment_loss, kernel_matrix, svc_loss
from qiskit_fused.torch.layer import FusedLayer
from qiskit_fused.torch.probability_layer import FusedProbabilityLayer

__all__ = [
    "FusedKernelLayer",
    "FusedLayer",
    "FusedProbabilityLayer",
    "alignment_loss",
    "expectation_values",
    "kernel_matrix",
    "svc_loss",
]
