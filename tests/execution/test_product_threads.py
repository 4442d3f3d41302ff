# SPDX-License-Identifier: Apache-2.0
"""Tiles are computed on several threads, and each of their matrix products runs on one thread."""

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from qiskit_fused.execution.product_threads import for_each_tile, inner_product, single_threaded_products


@pytest.fixture(autouse=True)
def two_threads():
    """Give the libraries two threads, of which a limit takes one away. In `make test` they start with one thread."""
    with threadpool_limits(2, user_api="blas"):
        yield


def num_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_a_limit_holds_in_its_context_alone():
    before = num_threads()
    assert 2 in before
    with single_threaded_products():
        assert set(num_threads()) == {1}
    assert num_threads() == before


def test_a_limit_ends_with_an_error():
    before = num_threads()
    with pytest.raises(KeyError), single_threaded_products():
        raise KeyError
    assert num_threads() == before


def test_threads_that_enter_at_the_same_time_leave_the_number_as_it_was():
    before, inside, outside = num_threads(), threading.Barrier(2), threading.Barrier(2)

    def work(leaves_first):
        with single_threaded_products():
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


def test_a_limit_holds_in_each_of_several_threads_that_live():
    before, found = num_threads(), []

    def limit(context):
        with context:
            found.extend(num_threads())

    limit(single_threaded_products())
    for make in (single_threaded_products, lambda: threadpool_limits(1, user_api="blas")):  # ours, and other code's
        thread = threading.Thread(target=lambda make=make: limit(make()))
        thread.start()
        thread.join()
    assert set(found) == {1}
    assert num_threads() == before


@pytest.mark.parametrize("count", [1, 3])
def test_each_tile_is_computed_once_and_counted_in_order(count):
    threads, works = set(), []

    def compute(tile):
        threads.add(threading.get_ident())
        assert set(num_threads()) == {1}
        time.sleep(0.001 * (tile % 3))
        return tile

    for_each_tile(compute, range(20), count, works.append)
    assert works == list(range(20))
    assert threads == {threading.get_ident()} if count == 1 else threading.get_ident() not in threads


def test_an_error_ends_the_work():
    begun = []

    def compute(tile):
        begun.append(tile)
        time.sleep(0.01)
        return tile

    def stop(work):
        raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        for_each_tile(compute, range(100), 2, stop)
    assert len(begun) < 20


@pytest.mark.parametrize("dtype", ["float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", [(3, 5), (200, 300)])
def test_an_inner_product_of_any_size_is_that_of_numpy(shape, dtype):
    numbers = np.random.default_rng(0).normal(size=(2, *shape)) + 1j * np.random.default_rng(1).normal(size=(2, *shape))
    left, right = numbers.astype(dtype) if dtype[0] == "c" else numbers.real
    expected, atol = np.vdot(left, right).real, 1e-2 if dtype == "complex64" else 1e-10
    assert inner_product(left, right) == pytest.approx(expected, abs=atol)
    assert inner_product(left.T, right.T) == pytest.approx(expected, abs=atol)
