# SPDX-License-Identifier: Apache-2.0
"""The benchmark of deep and wide circuits under memory budgets, of qiskit-fused alone."""
