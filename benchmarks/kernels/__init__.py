# SPDX-License-Identifier: Apache-2.0
"""The benchmark of quantum kernels: matrices, a training step of a kernel, and large matrices within a memory limit."""
