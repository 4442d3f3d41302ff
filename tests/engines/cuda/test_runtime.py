# SPDX-License-Identifier: Apache-2.0
"""The CUDA runtime uses devices, streams, memory and kernels of CuPy as it should; a fake CuPy records the calls."""

import fake_cupy
import numpy as np
import pytest
from fake_cupy import CURRENT, FREE, Device, make_cupy

from qiskit_fused.engines.cuda.availability import usable_gpu
from qiskit_fused.engines.cuda.kernel_source import kernel_source

GIB = 1 << 30
world = fake_cupy.world


def test_a_stream_of_another_library_is_current_on_the_device_of_the_runtime(world):
    world(make_cupy())
    with Device(1):
        runtime, _ = usable_gpu()
    outer = list(CURRENT.streams)
    with runtime.stream(1234):
        assert CURRENT.device == 1
        assert CURRENT.streams[1].ptr == 1234 and CURRENT.streams[0] is outer[0]
        array = np.arange(3.0)
        assert np.shares_memory(runtime.from_dlpack(array), array)
        mark = runtime.mark()
        assert runtime.current_stream() == 1234 and mark.stream is CURRENT.streams[1]
    with runtime.stream(77):
        runtime.wait_for(mark)
        assert CURRENT.streams[1].waited is mark
    assert CURRENT.device == 0 and CURRENT.streams == outer


def test_arrays_that_are_kept_have_a_stream_of_their_own(world):
    world(make_cupy())
    runtime, _ = usable_gpu()
    outer = list(CURRENT.streams)
    with Device(1), runtime.stream_of_kept_arrays():
        stream = CURRENT.streams[0]
        assert CURRENT.device == 0 and stream.non_blocking and stream not in outer
    with runtime.stream_of_kept_arrays():
        assert CURRENT.streams[0] is stream
    assert CURRENT.streams == outer


def test_only_small_arrays_are_copied_through_pinned_memory(world):
    world(cupy := make_cupy())
    runtime, _ = usable_gpu()
    staged, copy = [], cupy.array
    cupy.array = lambda array: staged.append(array.nbytes) or copy(array)
    for array in (np.arange(1 << 21), np.arange(1 << 22)[::2], np.arange((1 << 21) + 1), np.arange(1 << 23)[::2]):
        copied = runtime.to_device(array)
        assert np.array_equal(copied, array) and not np.shares_memory(copied, array)
    assert staged == [1 << 24, 1 << 24]


def test_kernels_get_null_pointers_as_integers(world):
    world(cupy := make_cupy())
    launch = usable_gpu()[0].module("bind.cu").function("bind_runs")
    launch(1, 32, (np.zeros(1), None, np.int32(3)))
    _, null, number = cupy.kernels[-1].arguments
    assert null == 0 and null.nbytes == 8 and number == 3


def test_kernels_are_compiled_once_per_file_and_macros(world):
    world(cupy := make_cupy())
    runtime, _ = usable_gpu()
    del cupy.compiled[:]
    one = runtime.module("bind.cu", QF_DOUBLE=0, QF_TILE_QUBITS=10)
    assert runtime.module("bind.cu", QF_TILE_QUBITS=10, QF_DOUBLE=0) is one
    assert runtime.module("bind.cu", QF_TILE_QUBITS=11, QF_DOUBLE=0) is not one
    assert [options for _, options in cupy.compiled] == [
        ("-std=c++17", "-DQF_DOUBLE=0", f"-DQF_TILE_QUBITS={qubits}") for qubits in (10, 11)
    ]
    assert cupy.compiled[0][0] == kernel_source("bind.cu")
    assert one.function("sweep") is one.function("sweep") is not one.function("other")


def test_shared_memory_beyond_the_default_is_asked_for_once(world):
    world(cupy := make_cupy())
    launch = usable_gpu()[0].module("bind.cu").function("sweep")
    kernel = cupy.kernels[-1]
    for size in (0, 47 << 10, 48 << 10, 60 << 10, 50 << 10, 64 << 10):  # 1 KiB of the default 48 KiB is static
        launch(7, 128, (), size)
    assert kernel.limits == [48 << 10, 60 << 10, 64 << 10]
    assert kernel.launches[-1] == ((7,), (128,), 64 << 10)


def test_free_memory_counts_the_pool_and_keeps_to_its_limit(world):
    world(cupy := make_cupy())
    runtime, _ = usable_gpu()
    assert runtime.free_memory() == FREE + GIB
    cupy.pool_limit = 2 * GIB
    assert runtime.free_memory() == 2 * GIB - GIB // 2


@pytest.mark.gpu
def test_a_real_gpu_gives_more_shared_memory_than_the_default():
    runtime, reason = usable_gpu()
    if runtime is None:
        pytest.skip(reason)
    source = 'extern "C" __global__ void last(int* x) { extern __shared__ int s[]; s[x[0]] = 7; x[1] = s[x[0]]; }'
    size = runtime.shared_memory_per_block
    with runtime.context():
        numbers = runtime.xp.asarray(np.array([size // 4 - 1, 0], dtype=np.int32))
        runtime._compile(source).function("last")(1, 1, (numbers,), size)
        assert runtime.to_host(numbers)[1] == 7
    assert 0 < runtime.free_memory() <= runtime.total_memory
