"""What tests of reports share: records, parity runs and stores made up on the spot, and a page as readers see it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from results.environment import environment_id
from results.record import CurvePoint, TrialRecord
from results.report import write_report
from results.store import Store

EVIL = "<img src=x onerror=alert(1)>|`$x$`"
RATIO = "Step time DGL / PyG (descriptive)"
COMMAND = "relduel report --store runs/default"
ENVIRONMENT: dict[str, Any] = {
    "os": "Linux 6.1",
    "cpu": "A CPU",
    "cores": 2,
    "threads": 1,
    "device": "cpu",
    "python": "3.11.9",
    "memory_bytes": 2**33,
    "versions": {"torch": "2.13.0+cpu", "dgl": "2.1.0"},
    "backends": {
        "pyg": {"version": "2.8.1", "storage": "coo", "ids": "int64", "fast_paths_off": ["pyg-lib absent"]},
        "dgl": {
            "version": "2.1.0",
            "storage": "auto",
            "ids": "int64",
            "graphbolt": "absent",
            "tensor_adapter": False,
            "fast_paths_off": [],
        },
    },
    "load": {"load_1m": 0.5, "psi_some_avg10": 1.0},
    "noisy": False,
}
STORAGE = {"pyg": "coo", "dgl": "auto", "reference": "edges"}


def make_record(backend: str = "pyg", seed: int = 0, **changes: Any) -> TrialRecord:
    """Make a finished trial on shop/churn; test AUROC .80 + seed/100, DGL .01 higher and 1.5 times as slow a step."""
    task = changes.pop("task", "churn")
    environment = changes.pop("environment", ENVIRONMENT)
    is_dgl = backend == "dgl"
    test = 0.80 + seed / 100 + 0.01 * is_dgl
    curve = tuple(
        CurvePoint(epoch=epoch, step=10 * epoch, train_s=2.0 * epoch, train_loss=0.5, val={"roc_auc": 0.7 + epoch / 50})
        for epoch in (1, 2, 3)
    )
    fields: dict[str, Any] = {
        "trial_id": f"{task.encode().hex()[:6]}-{backend}-{seed}",
        "config_id": f"c-{task}-{backend}-{seed}",
        "pair_id": f"p-{task}-{seed}",
        "repeat": 0,
        "config": {
            "backend": {"name": backend, "storage": STORAGE[backend], "ids": "int64"},
            "dataset": {"name": "shop"},
            "task": {"name": task, "metric": "roc_auc"},
            "model": {"family": "sage", "channels": 64},
            "seed": seed,
            "dtype": "float32",
        },
        "environment_id": environment_id(environment),
        "environment": environment,
        "data_fingerprint": "d" * 16,
        "code_version": "0.1.0",
        "started_at": "2026-11-21T02:00:00Z",
        "status": "ok",
        "phases": {"load_s": 0.5, "train_s": 6.0},
        "steps": {
            "num": 3,
            "step_s": [9.0, 0.030, 0.030] if is_dgl else [9.0, 0.020, 0.020],
            "sample_s": [0.010, 0.010, 0.010],
            "edges": [100, 1234, 5000],
        },
        "memory": {"host_peak_bytes": 512 * 2**20, "device_peak_bytes": None, "device_peak_reason": "no CUDA device"},
        "curve": curve,
        "metrics": {"val": {"roc_auc": 0.76}, "test": {"roc_auc": test, "average_precision": 0.4321}},
        "baselines": {"entity_mean": {"roc_auc": 0.4467}},
        "parity_key": "k1",
        "predictions_hash": f"h-{task}-{backend}-{seed}",
        "command": f"relduel run backend={backend} seed={seed}",
    }
    return TrialRecord(**(fields | changes))


def make_parity(**changes: Any) -> dict[str, Any]:
    """Make a green parity run for sage on both backends in float32."""
    row = {"family": "sage", "dtype": "float32", "quantity": "outputs", "conv": "native", "ok": True}
    row |= {"max_rel_diff": 2.5e-7, "tolerance": 1e-5}
    rows = [row | {"backend": backend} for backend in ("pyg", "dgl")]
    return {"key": "k1", "ok": True, "rows": rows, "dataset": "shop", "task": "churn"} | changes


def fill(folder: Path, records: list[TrialRecord], parity: dict[str, Any] | None = None) -> Store:
    """Make a store of the records and, where given, the parity run k1."""
    store = Store(folder)
    for record in records:
        store.write(record)
    if parity:
        store.write_parity("k1", parity)
    return store


def written(store: Store) -> tuple[str, str]:
    """Write the report and return its HTML and Markdown."""
    page = write_report(store, command=COMMAND)
    return page.read_text(encoding="utf-8"), (page.parent / "report.md").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Reads a page as a browser would: tags with their attributes, and the texts of table cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def rendered(markdown: str) -> Reader:
    """Read Markdown as a renderer shows it that lets raw HTML through."""
    return Reader(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))
