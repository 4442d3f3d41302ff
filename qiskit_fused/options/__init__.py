# SPDX-License-Identifier: Apache-2.0
"""The options of the primitives and the names of keyword arguments."""

from qiskit_fused.options.fused_options import FusedOptions, FusedOptionsDict

__all__ = ["FusedOptions", "FusedOptionsDict"]
