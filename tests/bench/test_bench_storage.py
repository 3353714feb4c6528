"""What a storage form costs: sage on one rel-f1 batch, each form in turn; ``make bench PYTEST_ARGS="-s -k storage"``.

A round times every form once, there and back (ABBA): building the batch, which a training step does too and in which
or after which DGL makes the formats that it lacks, and one forward and backward pass of the two convolutions in
float32. CPU seconds of the process on one thread, which other work on the machine disturbs less than it does the clock.
The table says what was seen in one process on one machine.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.base import load_backend
from backends.batch import build_batch
from backends.model import RelationalModel
from backends.registry import STORAGES
from backends.sampler import TemporalSampler
from backends.spec import Layout, ModelSpec, SamplerSpec
from backends.tensors import to_tensor
from backends.weights import build_model
from tasks.load import load_task

CPU = torch.device("cpu")
ROUNDS = 12


@pytest.mark.parametrize("blocks", [False, True], ids=["whole", "blocks"])
@pytest.mark.parametrize("conv", ["native", "primitive"])
def test_storage_forms(conv: str, blocks: bool, rel_f1: Path) -> None:
    """Print a row for each form, relative to PyG's coo of the same round; all forms give the same outputs."""
    task = load_task(rel_f1, "driver-dnf")
    schema, spec = task.graph.schema, ModelSpec(channels=64, encoder_layers=1, conv=conv)
    rows = np.random.default_rng(0).permutation(len(task.split.train))[:512]
    sampler = TemporalSampler(task.graph, SamplerSpec(fanout=(128, 64)), 0)
    subgraph = sampler.sample(task.split.train, rows, split="train", epoch=0)
    forms = [(library, Layout(storage=form, blocks=blocks)) for library in ("pyg", "dgl") for form in STORAGES[library]]
    forms += [("dgl", Layout(storage=form, ids="int32", blocks=blocks)) for form in ("auto", "csc")]
    arms = {}
    for library, layout in forms:
        backend = load_backend(library)
        model = build_model(backend, spec, schema, seed=0, device=CPU, dtype=torch.float32)
        graph, target = backend.compile_graph(task.graph, CPU), to_tensor(task.split.train.target[rows])
        batch = build_batch(backend, graph, schema, subgraph, target, layout=layout, device=CPU, dtype=torch.float32)
        x_NC = [x.detach().requires_grad_() for x in model.encode(batch)]
        arms[f"{library} {layout.storage} {layout.ids}"] = (backend, model, layout, batch, x_NC)

    def run(arm: str) -> tuple[float, float, torch.Tensor]:
        backend, model, layout, batch, x_NC = arms[arm]
        assert isinstance(model, RelationalModel)
        start = time.process_time()
        its = replace(batch, layers=backend.compile_batch(subgraph, schema, CPU, layout))
        built = time.process_time()
        output = model.convolve(its, x_NC)
        output.sum().backward()
        return built - start, time.process_time() - built, output.detach()

    outputs = {arm: run(arm)[2] for arm in arms}
    first = next(iter(arms))
    assert all(torch.allclose(output, outputs[first], atol=1e-4) for output in outputs.values())
    taken_s: dict[str, list[tuple[float, float]]] = {arm: [] for arm in arms}
    for turn in range(ROUNDS):
        for arm in list(arms)[:: -1 if turn % 2 else 1]:
            taken_s[arm].append(run(arm)[:2])
    print(f"\nsage mean, {conv}, {'blocks' if blocks else 'whole'}, {subgraph.num_edges} edges, {ROUNDS} rounds")
    print("form               build ms   pass ms   both, relative to the first (quartiles)")
    for arm, its in taken_s.items():
        build_s, pass_s = (statistics.median(part) for part in zip(*its, strict=True))
        ratios = [sum(own) / sum(other) for own, other in zip(its, taken_s[first], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{arm:16}{1e3 * build_s:11.1f}{1e3 * pass_s:10.1f}   {middle:.2f} ({low:.2f} to {high:.2f})")
