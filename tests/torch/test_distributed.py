# SPDX-License-Identifier: Apache-2.0
"""FusedLayer under DistributedDataParallel: two processes share the rows and add their gradients."""

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

PROCESS = """
import sys
import torch
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from qiskit_fused.torch import FusedLayer

rank, meeting, result = int(sys.argv[1]), sys.argv[2], sys.argv[3]
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
torch.manual_seed(0)
features, ansatz = zz_feature_map(2), real_amplitudes(2, reps=1)
layer = FusedLayer(features.compose(ansatz), ["ZI"], features.parameters, ansatz.parameters).double()
rows = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2)
alone = torch.autograd.grad(layer(rows).square().mean(), layer.weight)[0]
model = DistributedDataParallel(layer)  # adds no gradients after its own end
model(rows[rank::2]).square().mean().backward()
if rank == 0:
    torch.save((layer.weight.grad, alone), result)
distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
def test_processes_of_distributed_data_parallel_add_their_gradients(tmp_path):
    arguments = str(tmp_path / "meeting"), str(tmp_path / "result")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [  # python -c imports from its folder first, and a checkout has no extension module
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), *arguments], cwd=tmp_path, env=environment)
        for rank in range(2)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    shared, alone = torch.load(arguments[1])
    torch.testing.assert_close(shared, alone, atol=1e-12, rtol=0)
