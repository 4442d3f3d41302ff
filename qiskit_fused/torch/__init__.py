# SPDX-License-Identifier: Apache-2.0
"""Expectation values of circuits as PyTorch modules and functions. Importing this package imports torch.

Tensors come in, and tensors with a backward pass go out. May import ``primitives`` and the folders before it.
"""

from qiskit_fused.torch.layer import FusedLayer, expectation_values

__all__ = ["FusedLayer", "expectation_values"]
