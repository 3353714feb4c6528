"""Each distinct row goes through the encoder once: in a batch with gradients, in an evaluation over all its batches."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from test_train import CPU, feed_of, task  # noqa: F401 - a fixture
from torch import Tensor, nn
from torch_frame import TensorFrame

from backends import blocks
from backends.batch import Batch, TableInput
from backends.blocks import RowEncoder
from backends.encoded import EncodedRows
from backends.model import RelationalModel
from backends.spec import ModelSpec
from backends.weights import build_model
from harness import train
from harness.train import Feed, objective_of, score
from tasks.graph import TableSchema

SPEC = ModelSpec(channels=8, encoder_layers=2, dropout=0.5)


def repeated(batch: Batch) -> Batch:
    """Return the batch with a row of features for every node in place of one for every distinct row."""
    tables = tuple(
        dataclasses.replace(
            table,
            row_id=table.row_id[table.row_index],
            numeric=table.numeric[table.row_index],
            categorical=table.categorical[table.row_index],
            text=table.text[table.row_index],
            row_index=torch.arange(len(table.row_index)),
        )
        for table in batch.tables
    )
    return dataclasses.replace(batch, tables=tables)


def count_rows(model: RelationalModel) -> list[int]:
    """Count, from now on, the rows that each table's encoder takes."""
    taken = [0] * len(model.rows)

    def counter(index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            taken[index] += len(args[0].numeric)

        return hook

    for index, encoder in enumerate(model.rows):
        encoder.register_forward_hook(counter(index))
    return taken


@pytest.fixture
def feed(task: Any) -> Feed:  # noqa: F811
    """Return PyG's feed in float64."""
    return dataclasses.replace(feed_of(task, "pyg"), dtype=torch.float64)


def test_the_encoder_reads_the_kinds_of_column_as_pytorch_frame_orders_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds of column are encoded as through pytorch-frame's own frame, which torch 2.6 cannot trace."""
    schema = TableSchema(
        name="all", num_numeric=2, num_categories=(3, 4), num_text=1, text_width=5, num_timestamps=0, has_time=False
    )
    torch.manual_seed(0)
    encoder = RowEncoder(schema, channels=4, layers=1, dropout=0.0)
    rows = TableInput(
        row_id=torch.arange(6),
        numeric=torch.randn(6, 2),
        categorical=torch.tensor([[0, 1], [1, 3], [2, 0], [1, 2], [0, 0], [2, 3]]),
        text=torch.randn(6, 5),
        row_index=torch.arange(6),
        time=torch.zeros(6, 0),
    )
    found = encoder(rows)
    frame = blocks._Frame
    monkeypatch.setattr(blocks, "_Frame", TensorFrame)
    assert torch.equal(found, encoder(rows))
    monkeypatch.setattr(frame, "stypes", property(lambda its: [*its.feat_dict][::-1]))
    monkeypatch.setattr(blocks, "_Frame", frame)
    assert not torch.allclose(found, encoder(rows))  # the order counts


def model_of(feed: Feed) -> RelationalModel:
    """Build a model with the weights of the seed, in evaluation mode."""
    model = build_model(feed.backend, SPEC, feed.task.graph.schema, seed=0, device=CPU, dtype=torch.float64)
    return model.eval()


@pytest.mark.parametrize("task", ["customer-churn"], indirect=True)
def test_distinct_rows_give_the_outputs_and_gradients_of_all_nodes(feed: Feed) -> None:
    """Encoding each distinct row once is encoding every node, up to rounding, forward and backward, for fewer rows."""
    batch = feed.batch("train", np.arange(200))
    outputs, gradients, rows = [], [], []
    for its in (batch, repeated(batch)):
        model = model_of(feed)
        taken = count_rows(model)
        output = model(its)
        output.square().sum().backward()
        outputs.append(output.detach())
        gradients.append([parameter.grad for parameter in model.parameters()])
        rows.append(sum(taken))
    assert rows[0] < 0.8 * rows[1]
    assert torch.allclose(*outputs, rtol=1e-11, atol=1e-13)
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-9, atol=1e-11)


def test_an_evaluation_encodes_a_row_at_most_once(feed: Feed) -> None:
    """In ten batches no table gives more rows to its encoder than it has, and predictions are those of fresh ones."""
    model, objective, seeds = model_of(feed), objective_of(feed.task), feed.task.split.val
    parts, met = [], [set() for _ in feed.task.graph.tables]
    with torch.no_grad():
        for first in range(0, len(seeds), 32):
            batch = feed.batch("val", np.arange(first, min(first + 32, len(seeds))))
            parts.append(objective.predict(model(batch)))
            for rows, table in zip(met, batch.tables, strict=True):
                rows.update(table.row_id.tolist())
    taken = count_rows(model)
    predictions = score(model, feed, objective, "val", 32)[1]
    assert taken == [len(rows) for rows in met]
    assert np.allclose(predictions, torch.cat(parts).numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("num_kept", [0, 1])
def test_tables_beyond_the_limit_are_encoded_batch_by_batch(
    num_kept: int, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one table or none, predictions are equal, and only what is kept goes through its encoder once."""
    model, objective, tables = model_of(feed), objective_of(feed.task), feed.task.graph.tables
    expected = score(model, feed, objective, "val", 32)[1]
    limit = num_kept * tables[0].num_rows * (8 * SPEC.channels + 1)
    made: list[EncodedRows] = []

    def limited(num_rows: list[int]) -> EncodedRows:
        made.append(EncodedRows(num_rows, limit))
        return made[-1]

    monkeypatch.setattr(train, "EncodedRows", limited)
    taken = count_rows(model)
    predictions = score(model, feed, objective, "val", 32)[1]
    assert np.allclose(predictions, expected, rtol=1e-11, atol=1e-13)
    (kept,) = made
    assert [kept.keeps(index) for index in range(len(tables))] == [index < num_kept for index in range(len(tables))]
    assert [count > table.num_rows for count, table in zip(taken, tables, strict=True)].count(True) > 0
    assert all(taken[index] <= tables[index].num_rows for index in range(num_kept))


@pytest.mark.parametrize("task", ["customer-churn"], indirect=True)
def test_other_weights_are_another_evaluation(feed: Feed) -> None:
    """Nothing encoded is kept from one call to the next: a changed encoder changes the score's predictions."""
    model, objective = model_of(feed), objective_of(feed.task)
    before = score(model, feed, objective, "val", 64)[1]
    with torch.no_grad():
        for parameter in model.rows.parameters():
            parameter.add_(0.1)
    after = score(model, feed, objective, "val", 64)[1]
    fresh = model_of(feed)
    fresh.load_state_dict(model.state_dict())
    assert not np.allclose(before, after)
    assert np.array_equal(after, score(fresh, feed, objective, "val", 64)[1])


def test_a_row_is_kept_where_it_belongs() -> None:
    """Rows of two batches that overlap come back in each batch's own order, the shared ones from the first."""

    class Counter(nn.Module):
        calls = 0

        def forward(self, table: Any) -> Tensor:
            self.calls += 1
            return table.numeric + 1000 * self.calls

    def table(rows: list[int]) -> Any:
        ids = torch.tensor(rows)
        none = torch.empty(len(rows), 0)
        from backends.batch import TableInput

        return TableInput(row_id=ids, numeric=ids[:, None], categorical=none, text=none, row_index=ids, time=none)

    kept, encoder = EncodedRows([10]), Counter()
    assert kept.rows(0, encoder, table([3, 1])).squeeze(1).tolist() == [1003, 1001]
    assert kept.rows(0, encoder, table([2, 1, 9, 3])).squeeze(1).tolist() == [2002, 1001, 2009, 1003]
    assert kept.rows(0, encoder, table([9, 1])).squeeze(1).tolist() == [2009, 1001]
    assert encoder.calls == 2
