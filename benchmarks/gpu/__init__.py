# SPDX-License-Identifier: Apache-2.0
"""The benchmark of a training step on a GPU, qiskit-fused beside other libraries."""
