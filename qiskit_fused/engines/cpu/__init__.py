# SPDX-License-Identifier: Apache-2.0
"""The CPU engine, in front of the C++ extension."""
