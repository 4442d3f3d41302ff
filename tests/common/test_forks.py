# SPDX-License-Identifier: Apache-2.0
"""Forked children of a process whose threads work: no lock of the package stays locked in them."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qiskit_fused.common import forks
from qiskit_fused.common.caches import BoundedCache

PACKAGE = Path(forks.__file__).parents[1]

FORKS = 30
HARD_WORK = """
import os, random, sys, threading, time, warnings
import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from qiskit_fused import FusedEstimator, FusedEstimatorGradient, compile_circuit

warnings.simplefilter("ignore", DeprecationWarning)  # fork of several threads, in Python 3.12
sys.setswitchinterval(1e-6)  # threads change in the middle of what they do
ends, strings = threading.Event(), ["".join(random.Random(i).choices("IXYZ", k=4)) for i in range(40)]

def work(number):
    choose, shared = random.Random(number), [real_amplitudes(4, reps=1) for _ in range(3)]
    while not ends.is_set():
        circuit = choose.choice([*shared, real_amplitudes(4, reps=1)])
        chosen = choose.sample(strings, 3)
        observables = [SparsePauliOp(chosen[0]), chosen[1], SparsePauliOp(chosen, [1.0, number, choose.random()])]
        compiled = compile_circuit(circuit)
        values = np.full((2, circuit.num_parameters), 0.1)
        FusedEstimatorGradient(num_threads=1 + number % 2).value_and_gradient(compiled, observables, values)
        FusedEstimator(num_threads=2).run([(circuit, observables, values[0])]).result()

def answer():
    theta = Parameter("t")
    circuit = QuantumCircuit(4)
    circuit.rx(theta, 0)
    circuit.cx(0, 1)
    gradient = FusedEstimatorGradient(num_threads=2)
    values, gradients = gradient.value_and_gradient(circuit, ["IIIZ", "ZZII", "IIZI"], [0.4])
    found = FusedEstimator(num_threads=2).run([(circuit, "IIZI", [0.4])]).result()[0].data.evs
    right = np.allclose(values, [[np.cos(0.4), 1, np.cos(0.4)]])
    return right and np.allclose(gradients[0, 0], -np.sin(0.4)) and np.isclose(found, np.cos(0.4))

assert answer()
threads = [threading.Thread(target=work, args=[number], daemon=True) for number in range(6)]
for thread in threads:
    thread.start()
bad = []
for number in range(FORKS):
    time.sleep(0.02 * random.random())
    child = os.fork()
    if not child:
        try:
            code = 0 if answer() else 1
        except BaseException:
            code = 2
        os._exit(code)
    until = time.monotonic() + 10
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < until:
        time.sleep(0.002)
    if ended[0] == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
        bad.append("hangs")
    elif ended[1]:
        bad.append(os.waitstatus_to_exitcode(ended[1]))
    if len(bad) > 2:
        break
print("children that failed:", bad)
os._exit(bool(bad))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_forked_children_of_a_process_with_working_threads_compute():
    code = HARD_WORK.replace("range(FORKS)", f"range({FORKS})")
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_locks_are_open_in_a_child_and_registered_actions_are_called(monkeypatch):
    called = []
    monkeypatch.setattr(forks, "_actions", [lambda: called.append(lock.locked())])
    lock, nested = forks.new_lock(), forks.new_rlock()
    lock.acquire()
    thread = threading.Thread(target=nested.acquire)
    thread.start()
    thread.join()
    forks.begin_anew()
    assert called == [False]
    assert nested.acquire(blocking=False)


def test_every_lock_of_the_package_is_renewed_in_a_child():
    allowed = PACKAGE / "common" / "forks.py"
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if path != allowed:
            assert not re.search(r"threading\.(R?Lock|Condition|Semaphore)\(", text), path
            assert "register_at_fork" not in text, path
            assert "from functools import cached_property" not in text, path


def test_a_child_finds_the_places_of_a_cache_right():
    cache = BoundedCache(10_000)
    for number in range(5):
        cache.put(number, str(number), 100)
    cache._keys.pop()  # the state in which a thread may leave the cache in the middle of a change
    cache._num_bytes = 0
    forks.begin_anew()
    assert len(cache._keys) == len(cache) == 5 and cache.num_bytes > 500
    for number in range(100):
        cache.put(number, str(number), 100)
    assert cache.num_bytes <= 10_000
