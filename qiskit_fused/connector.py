# SPDX-License-Identifier: Apache-2.0
"""The former path of `qiskit_fused.machine_learning.torch_connector`, kept for one release."""

from qiskit_fused.common.moved import moved

__getattr__ = moved(__name__, "qiskit_fused.machine_learning.torch_connector")
