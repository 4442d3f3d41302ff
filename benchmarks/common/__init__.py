# SPDX-License-Identifier: Apache-2.0
"""The parts of all benchmarks: circuits, contenders, options, the machine, and figures of qiskit-fused alone."""
