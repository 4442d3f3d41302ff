# SPDX-License-Identifier: Apache-2.0
"""Evaluations in several streams wait for each other, and kept arrays are filled behind what reads older ones."""

from contextlib import contextmanager

import pytest
from asking import ask
from cuda_cases import engine_on
from cuda_emulation import EmulatedRuntime, missing_tools
from engine_cases import all_pairs, plan_of, random_circuit, rows_of, total_z

from qiskit_fused.engines.cuda.stream_order import StreamOrder


class Streams(EmulatedRuntime):
    """An emulated device that records the work of each stream: allocations, marks, and waits for marks."""

    def __init__(self):
        super().__init__()
        self.current, self.log, self.num_marks, self.broken = "first", [], 0, False
        self.xp.array = self.recorded("allocate", self.xp.array)
        self.xp.empty = self.recorded("allocate", self.xp.empty)

    def recorded(self, what, function):
        def call(*args, **keywords):
            self.log.append((self.current, what))
            return function(*args, **keywords)

        return call

    def mark(self):
        if self.broken:
            raise RuntimeError("the device is lost")
        self.num_marks += 1
        self.log.append((self.current, "mark", self.num_marks))
        return self.num_marks

    def wait_for(self, mark):
        self.log.append((self.current, "wait", mark))

    @contextmanager
    def stream_of_kept_arrays(self):
        outer, self.current = self.current, "kept"
        yield
        self.current = outer


def test_work_waits_for_the_work_of_the_context_before():
    runtime = Streams()
    order = StreamOrder(runtime)
    for runtime.current in ("first", "second"):
        with order.behind_earlier_work():
            pass
    assert runtime.log == [("first", "mark", 1), ("second", "wait", 1), ("second", "mark", 2)]


def test_kept_arrays_are_made_behind_all_evaluations_and_before_the_next_work():
    runtime = Streams()
    order = StreamOrder(runtime)
    with order.behind_earlier_work():
        pass
    del runtime.log[:]
    runtime.current = "second"
    with order.kept_arrays():
        runtime.xp.empty(3)
    assert runtime.log == [("kept", "wait", 1), ("kept", "allocate"), ("kept", "mark", 2), ("second", "wait", 2)]


@pytest.mark.parametrize("broken", [False, True], ids=["works", "lost"])
def test_the_first_error_is_the_one_that_is_raised(broken):
    runtime = Streams()
    order = StreamOrder(runtime)

    def launch():
        with order.behind_earlier_work():
            runtime.broken = broken
            raise ValueError("illegal address")

    with pytest.raises(ValueError, match="illegal address"):
        launch()


@pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))
def test_plans_and_observables_are_kept_arrays_and_numbers_of_a_call_are_not():
    runtime = Streams()
    engine = engine_on(runtime)
    plan, operators = plan_of(random_circuit(6, 10, seed=1), total_z(6))
    question = plan, operators, rows_of(plan.program), all_pairs(3, 1)
    ask(engine, *question, gradient=True)
    kept = runtime.log.count(("kept", "allocate"))
    assert kept > 10
    del runtime.log[:]
    runtime.current = "second"
    ask(engine, *question, gradient=True)
    assert ("kept", "allocate") not in runtime.log and ("second", "allocate") in runtime.log
    assert runtime.log[0][:2] == ("second", "wait") and runtime.log[-1][:2] == ("second", "mark")
