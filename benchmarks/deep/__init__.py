# SPDX-License-Identifier: Apache-2.0
"""Deep and wide circuits of qiskit-fused alone, under memory budgets."""
