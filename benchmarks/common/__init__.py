# SPDX-License-Identifier: Apache-2.0
"""The parts of all benchmarks; this folder imports no other folder.

`workloads` describes circuits, `contender` says how a library is called, `worker` is the process of a contender,
`comparison` checks and times contenders, `own` holds qiskit-fused as a contender, `harness` reads options and writes
results, `tables` makes tables from results, and `report` makes a report from tables.
"""
