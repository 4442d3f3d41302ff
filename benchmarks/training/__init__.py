# SPDX-License-Identifier: Apache-2.0
"""The benchmark of networks, training steps and an epoch, qiskit-fused beside other libraries."""
