# SPDX-License-Identifier: Apache-2.0
"""Networks behind the interfaces of qiskit-machine-learning."""
