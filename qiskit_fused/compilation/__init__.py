# SPDX-License-Identifier: Apache-2.0
"""Compile circuits and convert observables once, and keep the results in bounded caches.

Circuits and observables come in as the user gives them. Their programs, fused programs and bit masks go out, after a
check that the circuit has not changed. May import ``fusion`` and the folders before it.
"""
