# SPDX-License-Identifier: Apache-2.0
"""Engines: a fused program, observables and rows of angles come in, values and gradients go out.

``interface`` states the duties of an engine, and ``selection`` makes the engine of a device. ``reference`` is a slow
engine in NumPy. Tests compare the fast engines, ``cpu`` and ``cuda``, with it. May import ``compilation`` and the
folders before it.
"""
