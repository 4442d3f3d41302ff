# SPDX-License-Identifier: Apache-2.0
"""Compiled circuits and converted observables, which are made once and kept in bounded caches.

Circuits and observables come in as the user gives them. Their programs, fused programs and bit masks go out, after a
check that the circuit has not changed. May import ``fusion`` and the folders before it.
"""
