# SPDX-License-Identifier: Apache-2.0
"""What is made once for each circuit or observable, and kept."""
