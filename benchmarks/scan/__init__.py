# SPDX-License-Identifier: Apache-2.0
"""The benchmark of times over qubits, rows and layers, with pictures."""
