# SPDX-License-Identifier: Apache-2.0
"""The benchmark of named workloads, qiskit-fused beside other simulators; other folders import its contenders."""
