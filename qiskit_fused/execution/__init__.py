# SPDX-License-Identifier: Apache-2.0
"""Evaluates a batch: rows of parameter values and observables come in, values and gradients of all rows go out.

This folder checks the rows, cuts them to fit the memory, finds the gates that rows share, and sends the rows to an
engine or to the workers of an executor. May import ``engines`` and the folders before it.
"""
