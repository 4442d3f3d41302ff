# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of the CUDA engine: an engine on the emulated device, and a count of its allocations."""

import weakref
from types import SimpleNamespace

import numpy as np
from cuda_emulation import EmulatedRuntime

from qiskit_fused.engines.cuda.engine import CudaEngine


def engine_on(runtime=None, tile_qubits=5, memory_limit=None, **options):
    """Return an engine whose tiles are small, so that small circuits take several sweeps."""
    return CudaEngine(runtime or EmulatedRuntime(**options), memory_limit, max_tile_qubits=tile_qubits)


def count_allocations(runtime):
    """Count the bytes of the arrays of a runtime: `live` is the current number, and `peak` the largest so far."""
    count = SimpleNamespace(live=0, peak=0)

    def release(size):
        count.live -= size

    class Counted(np.ndarray):
        def __array_finalize__(self, _):
            # indexing with an array returns a view of a plain array
            if self.base is None or type(self.base) is np.ndarray:
                count.live += self.nbytes
                count.peak = max(count.peak, count.live)
                weakref.finalize(self, release, self.nbytes)

    def counted(function):
        def make(*args, **kwargs):
            array = function(*args, **kwargs)
            copy = Counted(array.shape, array.dtype)
            copy[...] = array
            return copy

        return make

    for name in ("arange", "array", "asarray", "concatenate", "empty", "full", "ones", "repeat", "zeros"):
        setattr(runtime.xp, name, counted(getattr(runtime.xp, name)))
    return count


def forget_last_states(engine):
    """Drop the final states that the engine keeps after a call for values, as its next call does."""
    engine._cached_states = None
