# SPDX-License-Identifier: Apache-2.0
"""The order of the evaluations of an engine that are launched in several streams of one device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class StreamOrder:
    """Lets each evaluation of an engine wait for the earlier ones, which read and write the same kept arrays.

    Args:
        runtime: the device.
    """

    def __init__(self, runtime: Any):
        self.runtime = runtime
        self._mark: Any = None  # an event after the work that was launched last, in any stream

    @contextmanager
    def behind_earlier_work(self) -> Iterator[None]:
        """Let the work that is launched in this context wait for the work of earlier contexts in other streams."""
        self._wait()
        try:
            yield
        except BaseException:
            # After an error inside a kernel, every call of CUDA fails. The first error, the cause, is raised.
            with suppress(Exception):
                self._mark = self.runtime.mark()
            raise
        self._mark = self.runtime.mark()

    @contextmanager
    def kept_arrays(self) -> Iterator[None]:
        """Allocate and fill arrays that are kept between calls. Later work in the current stream waits for them.

        All kept arrays are allocated in one stream, and CuPy's pool gives the memory of a dropped array only to later
        work of this stream. This work waits here for the evaluations that may still read the dropped array.
        """
        with self.runtime.stream_of_kept_arrays():
            self._wait()
            yield
            filled = self.runtime.mark()
        self.runtime.wait_for(filled)

    def _wait(self) -> None:
        if self._mark is not None:
            self.runtime.wait_for(self._mark)
