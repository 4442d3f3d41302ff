# SPDX-License-Identifier: Apache-2.0
"""A function that the caller leaves in its thread is called once, by the CPU engine or by the caller."""

import threading

import numpy as np
import pytest
from engine_cases import plan_of, random_circuit, random_observables, rows_of

from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.cpu.work_beside import WorkBeside, take_work
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.engines.request import Request, all_pairs


@pytest.fixture
def question():
    plan, operators = plan_of(random_circuit(4, 20, seed=1), random_observables(4, 1))
    columns = rows_of(plan.program)
    return plan, operators, Request(columns, all_pairs(len(columns), len(operators)))


def test_the_cpu_engine_calls_the_work_once_in_the_thread_of_the_caller(question):
    threads = []
    engine, (plan, operators, request) = CpuEngine(), question
    expected = engine.evaluate(plan, operators, request).values
    with WorkBeside(lambda: threads.append(threading.get_ident())) as work:
        found = [engine.evaluate(plan, operators, request).values for _ in range(2)]
        assert threads == [threading.get_ident()]
        work.result()
    assert threads == [threading.get_ident()]
    assert np.array_equal(found[0], expected) and np.array_equal(found[1], expected)


def test_an_engine_that_does_not_look_for_the_work_leaves_it_to_the_caller(question):
    plan, operators, request = question
    with WorkBeside(lambda: 7) as work:
        ReferenceEngine().evaluate(plan, operators, request)
        assert work.result() == 7
        assert work.result() == 7


def test_work_of_another_thread_and_of_an_earlier_block_is_not_found():
    found = []
    with WorkBeside(lambda: None):
        thread = threading.Thread(target=lambda: found.append(take_work()))
        thread.start()
        thread.join()
    assert found == [None]
    assert take_work() is None


def test_an_error_of_the_work_ends_the_evaluation_and_the_engine_works_again(question):
    def fail():
        raise ZeroDivisionError("the work failed")

    plan, operators, request = question
    engine = CpuEngine()
    with pytest.raises(ZeroDivisionError, match="the work failed"), WorkBeside(fail):
        engine.evaluate(plan, operators, request)
    assert np.isfinite(engine.evaluate(plan, operators, request).values).all()
