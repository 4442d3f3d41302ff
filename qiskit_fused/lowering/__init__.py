# SPDX-License-Identifier: Apache-2.0
"""Lower a QuantumCircuit to a `Program`, in which every gate is made of one-qubit gates and diagonal terms.

A Qiskit circuit comes in, and a `Program` goes out. May import ``program`` and the folders before it.
"""
