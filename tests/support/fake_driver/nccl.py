# SPDX-License-Identifier: Apache-2.0
"""A fake of CuPy's module for NCCL, for ranks that are threads of one process, each with a fake device of its own.

A call checks its arguments as NCCL does, and more strictly. Its work waits in the queue of its stream until the host
waits for the stream (see `queues`); then it waits for the same call of the other ranks. A call first poisons the memory
that it will overwrite.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from .device import POISON, Devices
from .queues import DEFAULT

FLOAT32, FLOAT64, SUM = 7, 8, 0
ITEM = {FLOAT32: 4, FLOAT64: 8}
MOST_SECONDS = 60  # after which a call without a partner fails


class FakeNccl:
    """What `cupy.cuda.nccl` offers. The names are those of CuPy.

    Args:
        devices: the fake devices.

    Attributes:
        calls: (rank, name, count, datatype) of each call, in order.
    """

    available = True
    NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = FLOAT32, FLOAT64, SUM

    def __init__(self, devices: Devices):
        self.calls: list[tuple[int, str, int, int]] = []
        self._devices = devices
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._cliques: dict[tuple[int, ...], dict[int, int]] = {}  # unique id -> device of each rank
        self._mail: dict[tuple[Any, ...], SimpleQueue[Any]] = {}

    def get_unique_id(self) -> tuple[int, ...]:
        """Return 128 numbers of one signed byte."""
        return tuple([next(self._numbers), -128, 127] + [0] * 125)

    def NcclCommunicator(self, ndev: int, commId: tuple[int, ...], rank: int) -> FakeConnection:  # noqa: N802
        assert isinstance(commId, tuple) and len(commId) == 128 and all(-128 <= number < 128 for number in commId)
        assert commId[1:3] == (-128, 127), "the unique id is not the one of rank 0"
        assert 0 <= rank < ndev
        with self._lock:
            clique = self._cliques.setdefault(commId, {})
            assert rank not in clique, "two ranks have the same number"
            assert self._devices.getDevice() not in clique.values(), "two ranks have the same device"
            clique[rank] = self._devices.getDevice()
        return FakeConnection(self, commId, ndev, rank, self._devices.getDevice())

    def groupStart(self) -> None:  # noqa: N802
        assert self.group is None, "a group is open"
        self._thread.group = []

    def groupEnd(self) -> None:  # noqa: N802
        """Add all calls of the group to their stream, as one piece of work that sends before it receives."""
        calls, self._thread.group = self.group, None
        assert calls, "a group without calls"
        assert len({stream for stream, _, _ in calls}) == 1, "the calls of a group are in several streams"
        for phase in range(2):
            self.add(calls[0][0], lambda phase=phase: [call[1 + phase]() for call in calls])

    @property
    def group(self) -> list[Any] | None:
        return getattr(self._thread, "group", None)

    def mail(self, *key: Any) -> SimpleQueue[Any]:
        """Return the queue of what one rank sent to another and the other did not receive yet."""
        with self._lock:
            return self._mail.setdefault(key, SimpleQueue())

    def add(self, stream: int, work: Any) -> None:
        self._devices._queues_of(stream).add(stream, work)

    def check_memory(self, device: int, address: int, size: int) -> None:
        """Check that memory lies in one allocation of a device."""
        assert isinstance(address, int) and size > 0
        sizes = self._devices._sizes.items()
        assert any(
            own == device and begin <= address and address + size <= begin + number for begin, (own, number) in sizes
        ), "the memory is not of the device of the rank"

    def check_call(self, device: int, count: int, datatype: int, stream: int) -> None:
        assert self._devices.getDevice() == device, "another device is current than where the connection was made"
        assert isinstance(count, int) and count > 0 and datatype in ITEM
        assert stream == DEFAULT or self._devices._device_of_stream[stream] == device, "a stream of another device"


class FakeConnection:
    """A communicator of one rank; the names of methods and arguments are those of CuPy's `NcclCommunicator`."""

    def __init__(self, nccl: FakeNccl, clique: tuple[int, ...], size: int, rank: int, device: int):
        self._nccl, self._clique, self._size, self._rank, self._device = nccl, clique, size, rank, device

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        bytes_ = self._check("send", sendbuf, count, datatype, peer, stream)
        mail = self._nccl.mail(self._clique, self._rank, peer)
        self._nccl.group.append((stream, lambda: mail.put((datatype, ctypes.string_at(sendbuf, bytes_))), lambda: None))

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        bytes_ = self._check("recv", recvbuf, count, datatype, peer, stream)
        mail = self._nccl.mail(self._clique, peer, self._rank)

        def receive() -> None:
            kind, data = _next(mail)
            assert kind == datatype and len(data) == bytes_, "the ranks exchange different arrays"
            ctypes.memmove(recvbuf, data, bytes_)

        self._nccl.group.append((stream, lambda: ctypes.memset(recvbuf, POISON, bytes_), receive))

    def allReduce(  # noqa: N802
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int
    ) -> None:
        assert op == SUM and datatype == FLOAT64 and self._nccl.group is None
        self._nccl.check_call(self._device, count, datatype, stream)
        for address in (sendbuf, recvbuf):
            self._nccl.check_memory(self._device, address, 8 * count)
        self._nccl.calls.append((self._rank, "allReduce", count, datatype))

        def reduce() -> None:
            own = np.frombuffer(ctypes.string_at(sendbuf, 8 * count))
            ctypes.memset(recvbuf, POISON, 8 * count)
            for rank in range(self._size):
                self._nccl.mail(self._clique, "sum", self._rank, rank).put(own)
            parts = [_next(self._nccl.mail(self._clique, "sum", rank, self._rank)) for rank in range(self._size)]
            assert {len(part) for part in parts} == {count}, "the ranks add up different arrays"
            ctypes.memmove(recvbuf, np.sum(parts, axis=0).tobytes(), 8 * count)

        self._nccl.add(stream, reduce)

    def _check(self, name: str, address: int, count: int, datatype: int, peer: int, stream: int) -> int:
        assert self._nccl.group is not None, "a rank that sends before it receives may wait for ever"
        assert 0 <= peer < self._size and peer != self._rank
        self._nccl.check_call(self._device, count, datatype, stream)
        size = count * ITEM[datatype]
        self._nccl.check_memory(self._device, address, size)
        self._nccl.calls.append((self._rank, name, count, datatype))
        return size


def _next(mail: SimpleQueue[Any]) -> Any:
    try:
        return mail.get(timeout=MOST_SECONDS)
    except Empty:
        raise AssertionError("no other rank made the same call") from None
