# SPDX-License-Identifier: Apache-2.0
"""A circuit as data: `Program` and `Observables` are arrays that do not depend on Qiskit or on an engine.

A program has the gates, the angle of each gate as a function of the parameters, and the start states. May import only
``common`` and ``options``.
"""
