# SPDX-License-Identifier: Apache-2.0
"""Values of parameters -> expectation values and gradients, on an engine."""
