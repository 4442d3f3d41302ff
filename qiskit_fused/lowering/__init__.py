# SPDX-License-Identifier: Apache-2.0
"""QuantumCircuit -> Program: every gate becomes one-qubit gates and diagonal terms.

A Qiskit circuit comes in, and a `Program` goes out. May import ``program`` and the folders before it.
"""
