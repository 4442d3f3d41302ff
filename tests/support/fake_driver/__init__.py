# SPDX-License-Identifier: Apache-2.0
"""CuPy itself on a host without a GPU: the CUDA runtime and driver below it are fake, and their memory is the host's.

`install` replaces the C functions of the CUDA runtime that CuPy's compiled modules call, and the CUDA driver that CuPy
loads. CuPy's arrays, memory pools, pinned uploads, modules, argument packing, streams and events are the real code.
CuPy compiles to PTX, which is translated to C++ and runs as the emulation runs kernels; CuPy's own kernels run, too.
Streams run their work as late as events allow (`queues`), so that a missing event shows in the results.

    python -m pytest -p fake_driver.plugin -m gpu tests

What stays untested: the machine code that ptxas makes of PTX, the memory system and the scheduler of a GPU, real
streams of other libraries, event timing, and all times.
"""

from .device import Devices
from .installation import install, installed

__all__ = ["Devices", "install", "installed"]
