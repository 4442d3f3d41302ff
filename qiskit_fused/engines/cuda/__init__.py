# SPDX-License-Identifier: Apache-2.0
"""The CUDA engine: passes over tiles of the state, records for the kernels, and launches of the kernels.

May import the modules of ``engines`` itself and the folders before it, nothing of ``engines.cpu``.
"""
