# SPDX-License-Identifier: Apache-2.0
"""Fake devices below CuPy run work as late as events allow; on them, and on a GPU, the engine keeps its promises.

The tests marked gpu run on a real GPU, or on fake devices: see ``fake_driver``.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from asking import ask
from cuda_emulation import missing_tools
from engine_cases import all_pairs, assert_agree, plan_of, random_circuit, random_observables, rows_of
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2

from qiskit_fused.engines.cuda.availability import usable_gpu
from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.engines.split_columns import SplitColumns
from qiskit_fused.execution.expectations import Expectations

if missing_tools() is not None:
    pytest.skip(missing_tools(), allow_module_level=True)
pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC comes with the extra `test`")
from fake_driver.queues import DEFAULT, Queues, Stream


def queues_of(*streams):
    queues = Queues()
    for handle, is_blocking in streams:
        queues.streams[handle] = Stream(is_blocking)
    return queues


def test_work_of_another_stream_runs_only_if_an_event_asks_for_it():
    queues, done = queues_of((1, False), (2, False)), []
    queues.add(1, lambda: done.append("a"))
    queues.record(7, 1)
    queues.add(1, lambda: done.append("b"))
    queues.add(2, lambda: done.append("c"))
    queues.synchronize(2)
    assert done == ["c"] and not queues.is_done(7)
    queues.wait(2, 7)
    queues.add(2, lambda: done.append("d"))
    assert done == ["c"]
    queues.synchronize(2)
    assert done == ["c", "a", "d"] and queues.is_done(7)
    queues.synchronize_all()
    assert done == ["c", "a", "d", "b"]


def test_the_default_stream_and_blocking_streams_wait_for_each_other():
    queues, done = queues_of((1, True), (2, False)), []
    for name, handle in (("a", 1), ("b", 2), ("c", DEFAULT), ("d", 1)):
        queues.add(handle, lambda name=name: done.append(name))
    queues.synchronize(DEFAULT)
    assert done == ["a", "c"]
    queues.add(DEFAULT, lambda: done.append("e"))
    queues.add(1, lambda: done.append("f"))
    queues.synchronize(1)
    assert done == ["a", "c", "d", "e", "f"]


def test_an_event_that_was_never_recorded_holds_nobody_up():
    queues, done = queues_of((1, False)), []
    queues.wait(1, 5)
    queues.add(1, lambda: done.append("a"))
    queues.synchronize_event(5)
    assert done == [] and queues.is_done(5)
    queues.synchronize(1)
    assert done == ["a"]


@pytest.fixture
def runtime():
    runtime, reason = usable_gpu()
    if runtime is None:
        pytest.skip(reason)
    return runtime


@pytest.fixture
def fake_devices(runtime):
    """The fake devices below CuPy."""
    if "fake_driver.plugin" not in sys.modules:
        pytest.skip("needs the fake devices of fake_driver")
    from fake_driver import installed

    return installed()


def make_question(num_qubits=6, num_rows=3):
    plan, operators = plan_of(random_circuit(num_qubits, 20, seed=2), random_observables(num_qubits, 1))
    return plan, operators, rows_of(plan.program, num_rows=num_rows), all_pairs(num_rows, 2)


@pytest.mark.gpu
def test_dropped_plans_are_not_overwritten_while_another_stream_reads_them(runtime):
    plan, operators, columns, pairs = make_question()
    engine, cupy = CudaEngine(runtime, max_tile_qubits=5), runtime.xp
    with runtime.context():
        first, second = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
        split = SplitColumns(cupy.asarray(columns), cupy.zeros(0), np.ones(columns.shape[1], bool))
        cupy.cuda.Device().synchronize()
        with first:
            ask(engine, plan, operators, split, pairs)  # plan and observables go to the device
        with second:
            actual = ask(engine, plan, operators, split, pairs)
        engine._plans.clear()
        engine._observables.clear()
        with first:
            junk = [cupy.full(size, 0xFF, dtype=np.uint8) for size in (512, 1024, 4096, 1 << 14) for _ in range(30)]
            first.synchronize()
        second.synchronize()
    assert len(junk) == 120
    expected = ask(ReferenceEngine(), plan, operators, columns, pairs)
    np.testing.assert_allclose(runtime.to_host(actual.values), expected.values, rtol=0, atol=1e-12)


@pytest.mark.gpu
def test_threads_use_the_devices_that_they_chose(runtime):
    cupy, question = runtime.xp, make_question()
    count = cupy.cuda.runtime.getDeviceCount()
    if count < 2:
        pytest.skip("needs two devices")
    expected = ask(ReferenceEngine(), *question, gradient=True)

    def evaluate(device):
        with cupy.cuda.Device(device):
            engine = CudaEngine(usable_gpu()[0])
            return engine.runtime, ask(engine, *question, gradient=True)

    with ThreadPoolExecutor(count) as pool:
        runtimes, results = zip(*pool.map(evaluate, range(count)))
    assert len(set(runtimes)) == count
    for result in results:
        assert_agree(result, expected, "complex128")


@pytest.mark.gpu
@pytest.mark.filterwarnings("error")
def test_a_stream_of_another_library_is_used_without_warnings(runtime):
    question = make_question()
    with runtime.context():
        stream = runtime.xp.cuda.Stream(non_blocking=True)
    with runtime.stream(stream.ptr):
        assert runtime.current_stream() == stream.ptr
        actual = ask(CudaEngine(runtime), *question, gradient=True)
    assert_agree(actual, ask(ReferenceEngine(), *question, gradient=True), "complex128")


@pytest.mark.gpu
def test_an_allocation_that_fails_is_made_again_in_smaller_chunks(runtime, fake_devices):
    question = make_question(num_rows=8)
    engine = CudaEngine(runtime, max_tile_qubits=5)
    whole = ask(engine, *question, gradient=True)
    engine.release_memory()
    fake_devices.total, total = fake_devices.counts.live + whole.stats["bytes"] * 3 // 4, fake_devices.total
    try:
        with runtime.context():
            free = runtime.xp.cuda.runtime.memGetInfo
            runtime.xp.cuda.runtime.memGetInfo = lambda: (1 << 30, 1 << 30)  # the device reports more than it has
            actual = ask(engine, *question, gradient=True)
    finally:
        fake_devices.total, runtime.xp.cuda.runtime.memGetInfo = total, free
    assert actual.stats["chunks"] > 1
    assert np.array_equal(actual.values, whole.values) and np.array_equal(actual.gradients, whole.gradients)


@pytest.mark.gpu
def test_weights_are_copied_to_the_device_once_and_pairs_are_not_copied_again(fake_devices):
    circuit, inputs = efficient_su2(5, reps=20), ParameterVector("x", 5)
    for qubit, parameter in enumerate(inputs):
        circuit.rx(parameter, qubit)
    weights = [parameter for parameter in circuit.parameters if parameter not in set(inputs)]
    function = Expectations(circuit, ["ZZZZZ"], inputs, weights, device="cuda", dtype="complex64")
    rng = np.random.default_rng(0)
    rows, cotangents, values = rng.normal(size=(200, 5)), np.ones((200, 1)), rng.normal(size=len(weights))
    function.value_and_vjp(rows, values, cotangents)
    before = fake_devices.counts.uploaded
    found = function.value_and_vjp(rows, values, cotangents)
    # Inputs, weights and cotangents; the places of the pairs are on the device since the first call.
    sent = rows.nbytes + values.nbytes + cotangents.nbytes
    assert sent <= fake_devices.counts.uploaded - before < 1.01 * sent
    expected = Expectations(circuit, ["ZZZZZ"], inputs, weights, device="cpu").value_and_vjp(rows, values, cotangents)
    for actual, reference in zip(found[:3], expected[:3]):
        np.testing.assert_allclose(actual, reference, rtol=0, atol=2e-4)
