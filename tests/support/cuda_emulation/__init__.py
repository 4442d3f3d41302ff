# SPDX-License-Identifier: Apache-2.0
"""CUDA kernels on a host without a GPU: see emulation.py."""

from .emulation import CompilationError, EmulatedModule, EmulatedRuntime, EmulationError, Site, missing_tools, planted

__all__ = [
    "CompilationError",
    "EmulatedModule",
    "EmulatedRuntime",
    "EmulationError",
    "Site",
    "missing_tools",
    "planted",
]
