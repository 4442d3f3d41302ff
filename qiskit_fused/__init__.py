# SPDX-License-Identifier: Apache-2.0
"""Fast simulation of quantum machine learning behind Qiskit primitives."""
