# SPDX-License-Identifier: Apache-2.0
"""Program -> fused program: gates merge into layers of rotations and phases.

The input is a `Program` and the qubits that the observables act on. The output is a `FusedProgram`: phases and layers
in turn, without the gates that no observable depends on. May import ``lowering`` and the folders before it.
"""
