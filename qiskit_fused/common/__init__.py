# SPDX-License-Identifier: Apache-2.0
"""Helpers that do not depend on circuits: byte sizes, arrays, bounded caches, forks, threads of jobs, cancellation.

Every other folder may import this folder. It imports no other folder.
"""
