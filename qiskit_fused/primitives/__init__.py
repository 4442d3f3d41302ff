# SPDX-License-Identifier: Apache-2.0
"""Implements Qiskit's interfaces: PUBs and gradient requests come in, jobs with results go out.

May import ``inspection`` and the folders before it.
"""
