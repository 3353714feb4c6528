"""A one-layer model on the database of three tables, for tests of torch.compile."""

from pathlib import Path

import numpy as np
import torch
from relbench_folder import TASK

from backends.base import load_backend
from backends.batch import Batch, build_batch
from backends.model import RelationalModel
from backends.sampler import TemporalSampler
from backends.tensors import to_tensor
from backends.weights import build_model
from harness.compose import compose_trial
from harness.feed import Feed
from tasks.load import load_task

#: Overrides: a model that compiles in little time, and a compiler that only traces it.
ONE_LAYER = ["model.layers=1", "model.channels=4", "model.encoder_layers=1", "sampler.fanout=[3]"]
TRACED = ["compile=model-dynamic", "compile.backend=eager"]


class Small:
    """A one-layer model on the club, and batches of some sizes."""

    def __init__(self, club: Path, *overrides: str) -> None:
        choice = ["dataset=folder", f"dataset.path={club}", f"task={TASK}", *ONE_LAYER, *overrides]
        self.config = compose_trial(choice).config
        self.backend, self.task = load_backend(self.config.backend.name), load_task(club, TASK, self_depth=2)
        self.graph = self.backend.compile_graph(self.task.graph, torch.device("cpu"))

    def model(self, dtype: torch.dtype = torch.float32) -> RelationalModel:
        """Build the eager model with the weights of the seed."""
        schema = self.task.graph.schema
        return build_model(self.backend, self.config.model, schema, seed=0, device=torch.device("cpu"), dtype=dtype)

    def batch(self, num_seeds: int, dtype: torch.dtype = torch.float32) -> Batch:
        """Sample the first train seeds."""
        sampler, seeds = TemporalSampler(self.task.graph, self.config.sampler, 0), self.task.split.train
        rows = np.arange(num_seeds)
        return build_batch(
            self.backend,
            self.graph,
            self.task.graph.schema,
            sampler.sample(seeds, rows, split="train", epoch=0),
            to_tensor(seeds.target[rows]),
            layout=self.config.layout,
            device=torch.device("cpu"),
            dtype=dtype,
        )

    def feed(self) -> Feed:
        """Return what draws and builds batches in a trial."""
        return Feed(
            backend=self.backend,
            graph=self.graph,
            task=self.task,
            sampler=TemporalSampler(self.task.graph, self.config.sampler, 0),
            layout=self.config.layout,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
