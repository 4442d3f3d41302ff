# SPDX-License-Identifier: Apache-2.0
"""Networks, training steps and an epoch, timed beside other libraries."""
