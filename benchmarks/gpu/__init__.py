# SPDX-License-Identifier: Apache-2.0
"""A training step on a GPU, timed beside other libraries."""
