# SPDX-License-Identifier: Apache-2.0
"""The benchmark of samplers: networks of probabilities, lists of circuits, many shots, and a classifier trained."""
