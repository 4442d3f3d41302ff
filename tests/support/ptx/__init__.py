# SPDX-License-Identifier: Apache-2.0
"""Run what NVRTC compiles, without a GPU: the text of a PTX module is translated to C++ for the emulation of CUDA."""

from .instructions import Unsupported
from .module import PtxModule
from .runtime import PtxRuntime, compile_ptx

__all__ = ["PtxModule", "PtxRuntime", "Unsupported", "compile_ptx"]
