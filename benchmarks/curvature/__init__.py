# SPDX-License-Identifier: Apache-2.0
"""The benchmark of curvature: metric tensors, Hessians, their products with vectors, and differential equations."""
