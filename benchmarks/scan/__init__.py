# SPDX-License-Identifier: Apache-2.0
"""Times over qubits, rows and layers, with pictures."""
