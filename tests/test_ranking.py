"""Rankings: the first k of a stable sort without the sort, and each row of a table encoded once."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_encoded import count_rows
from test_recommendation import LINKS, feed_of, spec_of, visits_folder

from backends.model import RelationalModel
from backends.weights import build_model
from harness.feed import Feed
from harness.objective import destinations_of, head_width
from harness.ranking import first_k, rank_destinations
from tasks.load import load_task


def by_sort(scores: torch.Tensor, k: int, *, stable: bool = True) -> torch.Tensor:
    """Return the first k of a whole sort."""
    if not stable:  # the mistake: topk leaves the order of ties open, and takes any of them at the end
        return scores.flip(1).topk(k, dim=1).indices.neg() + scores.shape[1] - 1
    return torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :k]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 5, 40, 50])
def test_the_first_k_are_those_of_a_stable_sort(k: int, dtype: torch.dtype) -> None:
    """With ties inside, at the end and over the whole row, and rows that know few candidates; the twin differs."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (64, 40), generator=generator).to(dtype)
    scores[10:30] = torch.where(torch.rand(20, 40, generator=generator) < 0.9, -math.inf, scores[10:30])
    scores[30] = -math.inf
    scores[31] = 0.0
    scores[32, ::2] = -0.0
    scores[33:40] = torch.randn(7, 40, generator=generator).to(dtype)
    assert torch.equal(first_k(scores, k), by_sort(scores, k))
    if k < 40:
        assert not torch.equal(by_sort(scores, k, stable=False), by_sort(scores, k))


def test_a_row_that_is_not_finite_disturbs_no_other() -> None:
    """Its own order means nothing; it has as many entries as the others."""
    scores = torch.tensor([[1.0, 3.0, 2.0], [math.nan, 1.0, 2.0], [math.nan] * 3, [math.inf, math.nan, 0.0]])
    found = first_k(scores, 2)
    assert found.shape == (4, 2)
    assert found[0].tolist() == [1, 2]


@pytest.mark.parametrize("link", LINKS)
def test_a_ranking_encodes_a_row_at_most_once(link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of one, no encoder takes more rows than its table has, and the ranking is that of fresh encodings.

    The twin, a compiled model, which does not read what is kept, encodes rows again.
    """
    task = load_task(visits_folder().write(tmp_path / "club"), "busy")
    feed, rankings, taken = feed_of(task, link), [], []
    for compiled in (False, True):
        model = model_of(feed, link)
        model.compiled = compiled
        taken.append(count_rows(model))
        with torch.no_grad():
            rankings.append(rank_destinations(model, feed, "val", 1))
    assert np.array_equal(*rankings)
    rows = [table.num_rows for table in task.graph.tables]
    assert all(its <= num for its, num in zip(taken[0], rows, strict=True))
    assert any(its > num for its, num in zip(taken[1], rows, strict=True))


def model_of(feed: Feed, link: str) -> RelationalModel:
    """Build a small model in evaluation mode."""
    spec = replace(spec_of(link), dropout=0.5)
    return build_model(
        feed.backend,
        spec,
        feed.task.graph.schema,
        seed=0,
        device=torch.device("cpu"),
        dtype=torch.float64,
        num_outputs=head_width(feed.task, spec),
        destinations=destinations_of(feed.task, spec),
    ).eval()
