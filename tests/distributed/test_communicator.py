# SPDX-License-Identifier: Apache-2.0
"""Communicators: threads, MPI processes, and a transport of the user's own."""

import os
import shutil
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from piped_ranks import Pipes, run_beside
from qiskit.circuit.library import efficient_su2

from qiskit_fused import FusedEstimatorGradient
from qiskit_fused.distributed import MpiCommunicator, run_on_threads, value_and_gradient

CIRCUIT, OBSERVABLES = efficient_su2(7, reps=3), ["ZIZIZIZ", "XXXXXXX", "IIYIXZI"]
VALUES = np.linspace(-1, 2, CIRCUIT.num_parameters)

PROGRAM = """
import sys
import numpy as np
from qiskit.circuit.library import efficient_su2
from qiskit_fused.distributed import MpiCommunicator, value_and_gradient

communicator = MpiCommunicator()
circuit = efficient_su2(7, reps=3)
values, gradients = value_and_gradient(
    circuit, ["ZIZIZIZ", "XXXXXXX", "IIYIXZI"], np.linspace(-1, 2, circuit.num_parameters), communicator, num_threads=1
)
np.savez(f"{sys.argv[1]}/{communicator.rank}.npz", values=values, gradients=gradients, size=communicator.size)
"""


def expected():
    return FusedEstimatorGradient(device="reference").value_and_gradient(CIRCUIT, OBSERVABLES, VALUES)


def assert_is_expected(result):
    for found, wanted in zip(result, expected()):
        np.testing.assert_allclose(found, wanted, atol=1e-11, rtol=0)


def mpiexec():
    """Return the path of mpiexec: of the package mpich beside this Python, or of the machine."""
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("mpiexec", path=folders)


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_mpi_processes_agree_with_the_reference(num_ranks, tmp_path):
    pytest.importorskip("mpi4py")
    if mpiexec() is None:
        pytest.skip("no mpiexec: pip install mpich")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [mpiexec(), "-n", str(num_ranks), sys.executable, "-c", PROGRAM, str(tmp_path)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    for rank in range(num_ranks):
        found = np.load(tmp_path / f"{rank}.npz")
        assert found["size"] == num_ranks
        assert_is_expected((found["values"], found["gradients"]))


class StandIn:
    """A communicator of mpi4py for one process, with the methods that `MpiCommunicator` calls."""

    def Get_rank(self):  # noqa: N802
        return 0

    def Get_size(self):  # noqa: N802
        return 1

    def Sendrecv(self, sent, partner, recvbuf, source):  # noqa: N802
        assert partner == source == 0
        recvbuf[...] = sent

    def Allreduce(self, sent, received):  # noqa: N802
        received[...] = sent


def test_a_communicator_of_mpi4py_may_be_given():
    communicator = MpiCommunicator(StandIn())
    assert communicator.exchange(0, np.arange(3)).tolist() == [0, 1, 2]
    assert_is_expected(value_and_gradient(CIRCUIT, OBSERVABLES, VALUES, communicator))


def test_without_mpi4py_the_error_names_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match="pip install mpi4py mpich"):
        MpiCommunicator()


@pytest.mark.slow
def test_two_processes_with_a_transport_of_the_user_agree_with_the_reference():
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    beside = context.Process(target=run_beside, args=(theirs, CIRCUIT, OBSERVABLES, VALUES))
    beside.start()
    theirs.close()  # if the other process fails, an exchange raises EOFError
    assert_is_expected(value_and_gradient(CIRCUIT, OBSERVABLES, VALUES, Pipes(0, ours), num_threads=1))
    beside.join(60)
    assert beside.exitcode == 0


def test_threads_exchange_with_any_rank_and_all_get_the_same_sum():
    def work(ranks):
        received = [int(ranks.exchange(ranks.rank ^ flip, np.array([ranks.rank]))[0]) for flip in range(4)]
        return received, ranks.sum(np.array([0.1 * ranks.rank, 1.0])).tolist()

    results = run_on_threads(4, work)
    assert [received for received, _ in results] == [[rank ^ flip for flip in range(4)] for rank in range(4)]
    assert all(sums == results[0][1] for _, sums in results) and results[0][1][1] == 4.0


def test_the_error_of_one_thread_ends_all_and_is_raised():
    def work(ranks):
        if ranks.rank == 2:
            raise KeyError("of rank 2")
        return ranks.sum(np.ones(1))

    with pytest.raises(KeyError, match="of rank 2"):
        run_on_threads(4, work)
