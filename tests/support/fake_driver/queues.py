# SPDX-License-Identifier: Apache-2.0
"""Streams whose work runs as late as the events allow, so that a missing event shows in the results.

A device may run the work of two streams in any order that events, and the rules of the default stream, allow. Here work
waits in queues. When the host waits for a stream, only the work of this stream runs, and the work of other streams for
which it has to wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

DEFAULT = 0  # handle of the legacy default stream


@dataclass
class Stream:
    """A queue of work.

    Attributes:
        is_blocking: whether the stream and the default stream wait for each other.
        work: functions in order, each with its number.
        count: number of functions that were ever added.
        done: number of functions that have run.
    """

    is_blocking: bool = True
    work: deque[Callable[[], None]] = field(default_factory=deque)
    count: int = 0
    done: int = 0


class Queues:
    """The streams and events of one device. Threads may share them.

    Args:
        eager: whether work runs at once, in the order of the calls.
    """

    def __init__(self, eager: bool = False):
        self.eager = eager
        self.streams: dict[int, Stream] = {DEFAULT: Stream()}
        self.events: dict[int, tuple[int, int] | None] = {}  # stream and count of the last record
        self.lock = threading.RLock()

    def add(self, stream: int, work: Callable[[], None]) -> None:
        """Add work to a stream. Work of the default stream waits for all blocking streams, and they wait for it."""
        with self.lock:
            queue = self.streams[stream]
            if stream == DEFAULT:
                others = [handle for handle, other in self.streams.items() if other.is_blocking and handle != DEFAULT]
            else:
                others = [DEFAULT] if queue.is_blocking else []
            for other in others:
                self._add_wait(queue, other, self.streams[other].count)
            self._append(queue, work)
            if self.eager:
                self.synchronize(stream)

    def record(self, event: int, stream: int) -> None:
        """Record an event after all work of a stream so far; in the default stream, after all blocking streams."""
        with self.lock:
            self.add(stream, lambda: None)
            self.events[event] = stream, self.streams[stream].count

    def wait(self, stream: int, event: int) -> None:
        """Let later work of a stream wait for the last record of an event."""
        with self.lock:
            recorded = self.events.get(event)
            if recorded is not None:
                self._add_wait(self.streams[stream], *recorded)

    def is_done(self, event: int) -> bool:
        """Say whether the work before the last record of an event has run.

        This takes no lock: work that waits for another device holds the lock of its own device.
        """
        recorded = self.events.get(event)
        return recorded is None or self.streams[recorded[0]].done >= recorded[1]

    def synchronize(self, stream: int) -> None:
        """Run the work of a stream, and the work for which it waits."""
        with self.lock:
            self._run(stream, self.streams[stream].count)

    def synchronize_event(self, event: int) -> None:
        """Run the work before the last record of an event."""
        with self.lock:
            recorded = self.events.get(event)
            if recorded is not None:
                self._run(*recorded)

    def synchronize_all(self) -> None:
        """Run the work of all streams."""
        with self.lock:
            for stream in list(self.streams):
                self.synchronize(stream)

    def _append(self, queue: Stream, work: Callable[[], None]) -> None:
        queue.work.append(work)
        queue.count += 1

    def _add_wait(self, queue: Stream, other: int, count: int) -> None:
        if self.streams[other].done < count and self.streams[other] is not queue:
            self._append(queue, lambda: self._run(other, count))

    def _run(self, stream: int, count: int) -> None:
        queue = self.streams[stream]
        while queue.done < count:
            work = queue.work.popleft()
            queue.done += 1
            work()
