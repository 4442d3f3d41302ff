# SPDX-License-Identifier: Apache-2.0
"""A circuit as data: programs, their columns, start states and observables."""
