# SPDX-License-Identifier: Apache-2.0
"""Run CUDA kernels on a host without a GPU; `emulation.py` says how."""

from .building import kernels_of
from .emulation import CompilationError, EmulatedModule, EmulatedRuntime, EmulationError, Site, missing_tools, planted

__all__ = [
    "CompilationError",
    "EmulatedModule",
    "EmulatedRuntime",
    "EmulationError",
    "Site",
    "kernels_of",
    "missing_tools",
    "planted",
]
