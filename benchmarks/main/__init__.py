# SPDX-License-Identifier: Apache-2.0
"""Named workloads, timed with qiskit-fused and beside other simulators."""
