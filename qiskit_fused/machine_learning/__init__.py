# SPDX-License-Identifier: Apache-2.0
"""Networks behind the interfaces of qiskit-machine-learning, and `accelerate`, which switches models over in place.

Samples and weights come in, and outputs and gradients go out. May import ``torch`` and the folders before it.
"""
