# SPDX-License-Identifier: Apache-2.0
"""The CPU engine: calls of the C++ extension, the choice of the method, and the memory of a call in bytes.

May import the modules of ``engines`` itself and the folders before it, nothing of ``engines.cuda``.
"""
