# SPDX-License-Identifier: Apache-2.0
"""Program -> fused program: gates merge into layers of rotations and phases.

A `Program` and the qubits that the observables see come in. The fused program goes out: phases and layers in turn,
without the gates that no observable sees. May import ``lowering`` and the folders before it.
"""
