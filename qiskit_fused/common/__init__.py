# SPDX-License-Identifier: Apache-2.0
"""What every other folder may use and what knows nothing of circuits: bytes, arrays, caches, forks, cancellation."""
