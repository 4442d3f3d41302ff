# SPDX-License-Identifier: Apache-2.0
"""Run CUDA kernels on a host without a GPU. See `emulation.py`."""

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
