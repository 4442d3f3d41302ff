# SPDX-License-Identifier: Apache-2.0
"""The estimator and its gradient behind Qiskit's interfaces."""
