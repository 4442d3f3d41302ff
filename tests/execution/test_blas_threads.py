# SPDX-License-Identifier: Apache-2.0
"""The number of threads of matrix products is limited inside a context, and is as before behind it."""

import threading

import pytest
from threadpoolctl import threadpool_info

from qiskit_fused.execution.blas_threads import limited_products


def num_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_none_changes_nothing():
    before = num_threads()
    with limited_products(None):
        assert num_threads() == before


def test_a_limit_holds_in_the_context_alone():
    before = num_threads()
    with limited_products(1):
        assert set(num_threads()) == {1}
    assert num_threads() == before


def test_a_limit_ends_with_an_error():
    before = num_threads()
    with pytest.raises(KeyError), limited_products(1):
        raise KeyError
    assert num_threads() == before


def test_threads_that_enter_at_the_same_time_leave_the_number_as_it_was():
    before, inside, outside = num_threads(), threading.Barrier(2), threading.Barrier(2)

    def work(leaves_first):
        with limited_products(1):
            inside.wait()
            if not leaves_first:
                outside.wait()
        if leaves_first:
            outside.wait()

    threads = [threading.Thread(target=work, args=(leaves_first,)) for leaves_first in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert num_threads() == before
