# SPDX-License-Identifier: Apache-2.0
"""The emulation of CUDA: right kernels pass and give NumPy's results, and it reports every kind of planted bug."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_emulation import CompilationError, EmulatedRuntime, EmulationError, building, missing_tools, planted

pytestmark = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))

FOLDER = Path(__file__).parents[2] / "support" / "cuda_emulation"
SEEDS = [0, 1, 7]


def source(file):
    return (FOLDER / file).read_text()


@pytest.fixture(scope="module", params=[False, True], ids=["unchecked", "checked"])
def right(request):
    return EmulatedRuntime(check=request.param, source=source)


@pytest.fixture(scope="module")
def checked():
    return EmulatedRuntime(check=True, source=source)


def kernel_of(runtime, name, file="right_kernels.cu", seed=0, **defines):
    runtime.seed = seed
    return runtime.module(file, **defines).function(name)


def launch_planted(runtime, name, grid, block, seed=0):
    # The array is a slice in the middle of another one, as the engine's arrays are slices of a pool.
    x = np.ones(4096, np.float32)[1024:2048]
    others = {"global_before_begin": (x[512:], x[:512]), "write_of_constant": (x, x)}
    others |= {"null_pointer": (x, None), "unwritten_global": (x, runtime.xp.empty(64))}
    args = others.get(name, (x,))
    kernel_of(runtime, name, "planted_bugs.cu", seed)(grid, block, args, shared_memory=256)


FOUND_ALWAYS = [
    ("different_barriers", 1, 64, "divergent __syncthreads: planted_bugs.cu:"),
    ("return_before_barrier", 1, 64, "returned"),
    ("barrier_against_warp_barrier", 1, 64, "no thread can go on: .*__syncthreads"),
    ("mask_without_caller", 1, 32, "calling lane .* is not in mask 0000ffff"),
    ("mask_with_absent_lanes", 1, 32, "no thread can go on: .*__shfl"),
    ("shuffle_from_outside_mask", 1, 32, "reads lane .*, which is not in mask 0000ffff"),
    ("different_collectives", 1, 32, "divergent warp collective"),
    ("large_local_array", 1, 64, "stack overflow"),
]
FOUND_BY_CHECKS = [
    ("unwritten_shared", 1, 64, "uninitialised: .* of static shared memory"),
    ("unwritten_dynamic_shared", 1, 64, "uninitialised: .* of dynamic shared memory"),
    ("no_barrier_after_write", 1, 64, "race: .* of static shared memory|uninitialised"),
    ("no_barrier_before_overwrite", 1, 64, "race: .* of static shared memory"),
    ("no_warp_barrier", 1, 32, "race: .* of dynamic shared memory"),
    ("shuffle_for_warp_barrier", 1, 32, "race: .* of dynamic shared memory"),
    ("same_output_of_blocks", 2, 32, "race: write of byte 0 of x .* of another block"),
    ("read_of_other_block", 2, 32, "race: .* of x .* of another block"),
    ("plain_write_beside_atomic", 2, 1, "race: .* of x"),
    ("global_past_end", 1, 64, "out of bounds: .* at byte 4096 of x, which has 4096 bytes"),
    ("global_before_begin", 1, 64, "out of bounds: read of 4 bytes at byte -4 of x"),
    ("dynamic_shared_past_end", 1, 64, "out of bounds: .* the launch asked for 256"),
    ("write_of_constant", 1, 32, "restrict: write of byte .* of same, a const __restrict__ pointer"),
    ("unwritten_global", 1, 32, "uninitialised: read of byte .* of unwritten, which nothing wrote"),
    ("null_pointer", 1, 1, "null pointer: read at planted_bugs.cu:"),
    ("misaligned_vector", 1, 32, "misaligned"),
    ("shift_too_far", 1, 64, "undefined: shift_out_of_bounds at planted_bugs.cu:"),
]


@pytest.mark.parametrize("check", [False, True], ids=["unchecked", "checked"])
@pytest.mark.parametrize(("name", "grid", "block", "message"), FOUND_ALWAYS)
def test_divergence_is_found_with_and_without_checks(name, grid, block, message, check):
    runtime = EmulatedRuntime(check=check, source=source)
    for seed in SEEDS:
        with pytest.raises(EmulationError, match=message):
            launch_planted(runtime, name, grid, block, seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "grid", "block", "message"), FOUND_BY_CHECKS)
def test_checks_find_planted_bugs_in_every_order(checked, name, grid, block, message, seed):
    with pytest.raises(EmulationError, match=message):
        launch_planted(checked, name, grid, block, seed)


def test_every_planted_bug_is_tested(checked):
    tested = {case[0] for case in FOUND_ALWAYS + FOUND_BY_CHECKS}
    assert set(checked.module("planted_bugs.cu").kernels) == tested


def test_errors_name_kernel_line_block_and_thread(checked):
    with pytest.raises(EmulationError) as error:
        launch_planted(checked, "same_output_of_blocks", 2, 32)
    lines = source("planted_bugs.cu").split("\n")
    line = next(number for number, text in enumerate(lines, 1) if "float>(blockIdx.x)" in text)
    assert f"same_output_of_blocks: race: write of byte 0 of x at planted_bugs.cu:{line} `" in str(error.value)
    assert "written by thread 0 of another block [block 1, thread 0]" in str(error.value)


def test_a_launch_after_an_error_is_right(right):
    with pytest.raises(EmulationError):
        launch_planted(right, "barrier_against_warp_barrier", 1, 64)
    test_right_kernels_give_numpys_results(right, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_right_kernels_give_numpys_results(right, seed):
    x = np.random.default_rng(seed).normal(size=512).astype(np.float32)

    sums = right.xp.empty(8)
    kernel_of(right, "block_sums", seed=seed)(8, 64, (x, sums), shared_memory=16)
    np.testing.assert_allclose(sums, x.astype(float).reshape(8, 64).sum(1), rtol=1e-12, atol=1e-12)

    swapped = x.copy()
    kernel_of(right, "swap_halves", seed=seed)(8, 64, (swapped,))
    assert np.array_equal(swapped, x.reshape(8, 2, 32)[:, ::-1].ravel())

    mirrored = x[:64].copy()
    kernel_of(right, "warp_barriers", seed=seed)(1, 64, (mirrored,))
    assert np.array_equal(mirrored, x[:64].reshape(2, 32)[:, ::-1].ravel())

    shuffled = np.abs(x[:64])
    kernel_of(right, "half_warps", seed=seed)(1, 64, (shuffled,))
    assert np.array_equal(shuffled, np.abs(x[:64])[np.arange(64) ^ 8])

    count = np.zeros(1, np.uint32)
    kernel_of(right, "count_blocks", seed=seed)(12, 48, (count,))
    assert count[0] == 12


def test_the_portable_switch_of_fibers_works_too(monkeypatch):
    monkeypatch.setattr(building, "FLAGS", [*building.FLAGS, "-DCUDA_ON_HOST_UCONTEXT"])
    runtime = EmulatedRuntime(source=source)
    test_right_kernels_give_numpys_results(runtime, 1)
    with pytest.raises(EmulationError, match="no thread can go on"):
        launch_planted(runtime, "barrier_against_warp_barrier", 1, 64)


RECORD = np.dtype([("number", np.int64), ("kind", np.int32), ("unused", np.int32)])
GOOD_ARGUMENTS = {
    "out": np.zeros(4),
    "records": np.zeros(4, RECORD),
    "count": np.int32(4),
    "offset": np.int64(10),
    "scale": np.float32(0.5),
    "negative": np.bool_(True),
}


def test_scalars_records_and_null_pointers_arrive(right):
    records = np.zeros(4, RECORD)
    records["number"] = 1 << 40, 2, -3, 4
    out = np.zeros(4)
    kernel_of(right, "take_arguments")(1, 4, tuple({**GOOD_ARGUMENTS, "records": records, "out": out}.values()))
    assert np.array_equal(out, -0.5 * (records["number"] + 10))
    kernel_of(right, "take_arguments")(1, 4, (out, records.view(np.uint8), *list(GOOD_ARGUMENTS.values())[2:]))

    x = np.ones(8, np.float32)
    kernel_of(right, "add_optional")(1, 8, (x, None))
    assert np.array_equal(x, np.ones(8))
    kernel_of(right, "add_optional")(1, 8, (x, x.copy()))
    assert np.array_equal(x, np.full(8, 2))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("count", 4),
        ("count", np.int64(4)),
        ("count", np.float32(4)),
        ("offset", np.int32(10)),
        ("scale", 0.5),
        ("scale", np.float64(0.5)),
        ("negative", np.int32(1)),
        ("out", np.zeros(4, np.float32)),
        ("out", np.zeros(4, np.int64)),
        ("out", np.zeros(8)[::2]),
        ("out", np.broadcast_to(np.float64(0), 4)),
        ("out", 0),
        ("out", [0.0] * 4),
        ("records", np.zeros(4, [("number", np.int64)])),
        ("records", np.zeros(3, np.int64)),
    ],
)
def test_an_argument_of_the_wrong_type_is_refused(right, name, wrong):
    arguments = {**GOOD_ARGUMENTS, name: wrong}
    with pytest.raises(TypeError, match=f"take_arguments: {name}: "):
        kernel_of(right, "take_arguments")(1, 4, tuple(arguments.values()))


def test_a_wrong_number_of_arguments_is_refused(right):
    with pytest.raises(TypeError, match="has 6 parameters, got 1"):
        kernel_of(right, "take_arguments")(1, 4, (np.zeros(4),))


@pytest.mark.parametrize(
    ("grid", "block", "shared_memory", "message"),
    [
        (0, 64, 0, "a grid of 0 blocks"),
        (1, 0, 0, "a block of 0 threads"),
        (1, 65, 0, "its limit is 64"),
        (1, 64, 4097, "the device has 4096"),
    ],
)
def test_launches_that_a_device_refuses_are_refused(grid, block, shared_memory, message):
    runtime = EmulatedRuntime(source=source, shared_memory_per_block=4096)
    with pytest.raises(EmulationError, match=message):
        kernel_of(runtime, "block_sums")(grid, block, (np.zeros(64, np.float32), np.zeros(1)), shared_memory)


def test_definitions_make_modules_of_their_own(right):
    x, sums = np.ones(128, np.float32), np.zeros(1)
    kernel_of(right, "block_sums", BLOCK=128)(1, 128, (x, sums), shared_memory=32)
    assert sums[0] == 128
    assert right.module("right_kernels.cu", BLOCK=128) is right.module("right_kernels.cu", BLOCK=128)
    with pytest.raises(EmulationError, match="its limit is 64"):
        kernel_of(right, "block_sums")(1, 128, (x, sums), shared_memory=32)


def test_unwritten_memory_is_nan():
    runtime = EmulatedRuntime(source=source)
    x = runtime.xp.empty(128, np.float32)
    assert np.isnan(x).all()
    kernel = kernel_of(runtime, "copy_unwritten_shared")
    for _ in range(2):
        kernel(1, 64, (x,), shared_memory=256)
        assert np.array_equal(np.isnan(x), np.tile(np.arange(64) > 0, 2))


def test_slices_of_one_array_keep_apart_and_overlapping_ones_keep_together(checked):
    pool = np.arange(128, dtype=np.float32)
    with pytest.raises(EmulationError, match="out of bounds: read of 4 bytes at byte 128 of y"):
        kernel_of(checked, "add_optional")(1, 64, (pool[:64], pool[64:96]))
    pool = np.arange(128, dtype=np.float32)
    kernel_of(checked, "add_optional")(1, 64, (pool[:64], pool[:64]))
    assert np.array_equal(pool, np.where(np.arange(128) < 64, 2, 1) * np.arange(128))
    with pytest.raises(EmulationError, match=r"race: .* of x\|y"):
        kernel_of(checked, "add_optional")(1, 64, (pool[:64], pool[1:65]))


def sites_by_code(runtime, name, x):
    with runtime.trace():
        kernel_of(runtime, name)(1, 32, (x,))
    return {(site.code, site.space, site.write): site for site in runtime.sites()}


@pytest.mark.parametrize(
    ("name", "passes", "fewest"),
    # A warp makes one read: of 32 numbers side by side, of 32 rows, or of 32 vectors.
    [("copy_rows", 4, 4), ("copy_strided", 32, 4), ("copy_vectors", 16, 16)],
)
def test_sectors_of_global_reads_are_counted(checked, name, passes, fewest):
    sites = sites_by_code(checked, name, np.zeros(1024, np.float32))
    (read,) = (site for site in sites.values() if not site.write)
    assert (read.space, read.instructions, read.passes, read.fewest) == ("global", 1, passes, fewest)
    (write,) = (site for site in sites.values() if site.write)
    assert write.passes == write.fewest
    assert read.file == "right_kernels.cu" and source(read.file).split("\n")[read.line - 1].strip() == read.code


def test_a_slice_that_begins_inside_a_sector_costs_one_more(checked):
    pool = np.zeros(2048, np.float32)
    for start, passes in [(0, 4), (4, 5), (8, 4)]:
        sites = sites_by_code(checked, "copy_rows", pool[start:][:1024])
        assert [site.passes for site in sites.values()] == [passes, passes]


@pytest.mark.parametrize(
    ("name", "passes"),
    [("sum_columns_with_conflicts", 32 * 32), ("sum_columns_padded", 32)],
    ids=["rows 32", "rows 33"],
)
def test_bank_conflicts_are_counted(checked, name, passes):
    x = np.random.default_rng(3).normal(size=1024).astype(np.float32)
    expected = x.reshape(32, 32).sum(1)
    sites = sites_by_code(checked, name, x)
    np.testing.assert_allclose(x[:32], expected, atol=1e-5)
    (read,) = (site for site in sites.values() if site.space == "shared" and not site.write)
    assert (read.instructions, read.passes, read.fewest) == (32, passes, 32)
    (write,) = (site for site in sites.values() if site.space == "shared" and site.write)
    assert (write.instructions, write.passes) == (32, 32)


def test_vectors_pass_the_banks_by_quarter_warps(checked):
    sites = sites_by_code(checked, "swap_vectors_in_shared", np.zeros(1024, np.float32))
    (write,) = (site for site in sites.values() if site.space == "shared" and site.write)
    assert (write.size, write.passes, write.fewest) == (16, 4, 4)
    (read,) = (site for site in sites.values() if site.space == "shared" and not site.write)
    assert (read.size, read.passes, read.fewest) == (4, 4, 1)


def test_a_planted_edit_is_found():
    edit = planted(
        "right_kernels.cu", "values[threadIdx.x] = *mine;\n        __syncthreads();", "values[threadIdx.x] = *mine;"
    )
    runtime = EmulatedRuntime(check=True, source=source, source_edit=edit)
    with pytest.raises(EmulationError, match=r"race|uninitialised"):
        kernel_of(runtime, "swap_halves")(1, 64, (np.zeros(64, np.float32),))
    runtime.module("planted_bugs.cu")
    with pytest.raises(ValueError, match="contains 0 times"):
        EmulatedRuntime(source=source, source_edit=planted("right_kernels.cu", "not there", "")).module(
            "right_kernels.cu"
        )


def test_a_kernel_that_does_not_compile_is_no_finding():
    broken = planted("right_kernels.cu", "unsigned* count", "unsigned* number")
    with pytest.raises(CompilationError, match=r"right_kernels.cu:\d+:.*count"):
        EmulatedRuntime(source=source, source_edit=broken).module("right_kernels.cu")


def test_processes_may_compile_at_the_same_time(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from cuda_emulation import EmulatedRuntime\n"
        "text = 'extern \"C\" __global__ void store(int* x) { x[threadIdx.x] = threadIdx.x; }'\n"
        "runtime = EmulatedRuntime(source=lambda file: text)\n"
        "x = runtime.xp.empty(4, 'i4'); runtime.module('store.cu').function('store')(1, 4, (x,)); print(x)"
    )
    command = [sys.executable, "-c", program, str(FOLDER.parent)]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "QISKIT_FUSED_EMULATION_CACHE": str(tmp_path / "cache")}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in processes] == ["[0 1 2 3]\n"] * 2
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".o", ".o", ".so"]


@pytest.mark.parametrize("file", ["sweeps.cu", "bind.cu", "observe.cu", "outcomes.cu", "gradients.cu"])
def test_the_engines_kernels_compile_for_the_host(file):
    definitions = {"QF_DOUBLE": 0, "QF_TILE_QUBITS": 6, "QF_REGISTER_QUBITS": 3, "QF_STATES_AT_ONCE": 2}
    module = EmulatedRuntime(check=True).module(file, **definitions)
    assert module.kernels and all(module.function(name) for name in module.kernels)


def test_the_runtime_has_what_the_engine_asks_for():
    runtime = EmulatedRuntime(memory=12345, num_multiprocessors=2)
    assert runtime.name == "emulated" and runtime.free_memory() == 12345 and runtime.num_multiprocessors == 2
    assert runtime.shared_memory_per_block == 232448 and runtime.l2_bytes > 0
    array = runtime.xp.arange(3)
    with runtime.context():
        runtime.synchronize()
        host = runtime.to_host(array)
    assert np.array_equal(host, array) and host is not array
