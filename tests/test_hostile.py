"""A database whose names are attacks goes all the way: files, both libraries, parity, report, a real browser."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from relbench_folder import TASK, Folder
from small_shop import MODEL, relduel

from results.store import Store

EVIL = "<img src=x onerror=document.title='owned'>"


def evil_folder(path: Path) -> Path:
    """Write a sound folder whose table, columns and task have names of HTML, SQL, quotes and markup."""
    folder = Folder()
    rename = {"mood": "x'); DROP TABLE members; --", "note": EVIL, "minutes": 'so "called" | minutes', "at": "a t"}
    visits = folder.tables.pop("visits")
    folder.tables[EVIL] = visits.rename_columns([rename.get(name, name) for name in visits.column_names])
    spec = folder.manifest["tables"].pop("visits")
    folder.manifest["tables"][EVIL] = {**spec, "time_col": "a t"}
    folder.manifest["name"] = EVIL
    folder.task["name"] = EVIL
    folder.write(path)
    (path / "tasks" / TASK).rename(path / "tasks" / EVIL)
    return path


def dom(page: Path, profile: Path) -> str:
    """Load a page in headless Chromium, scripts and all, and return the document as it then stands."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed; everything but the browser was checked")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    options += [f"--user-data-dir={profile / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]
    return subprocess.run(
        [chromium, *options, page.resolve().as_uri()], capture_output=True, text=True, timeout=120
    ).stdout


def test_hostile_names_run_and_stay_inert(tmp_path: Path) -> None:
    """Both libraries train on it, parity is green, and the report shows the names as text in a real browser."""
    folder = evil_folder(tmp_path / "data")
    store = ["--store", str(tmp_path / "store")]
    chosen = ["dataset=folder", f"dataset.path='{folder}'", f'task="{EVIL}"', "model=sage", *MODEL, *store]
    parity = relduel("parity", *chosen, "--json")
    assert parity.returncode == 0, parity.stderr + parity.stdout
    for library in ("pyg", "dgl"):
        done = relduel("run", f"backend={library}", *chosen, "--json")
        assert json.loads(done.stdout)["status"] == "ok", done.stderr
    report = relduel("report", *store)
    assert report.returncode == 0, report.stderr
    page = Path(report.stdout.strip())
    html = page.read_text()
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=" in html
    outside_code = page.with_suffix(".md").read_text().split("```")[::2]
    assert not any("<img src=x" in part for part in outside_code)
    (trial, *_) = Store(tmp_path / "store").records()[0]
    assert trial.setting("task.name") == EVIL

    shown = dom(page, tmp_path)
    assert "<title>" in shown
    assert "<title>owned</title>" not in shown
    assert '<img src="x"' not in shown


def test_the_browser_would_have_noticed(tmp_path: Path) -> None:
    """The twin: a page that does hold the markup is owned, so the check above can fail."""
    page = tmp_path / "page.html"
    page.write_text(f"<html><head><title>fine</title></head><body>{EVIL}</body></html>")
    shown = dom(page, tmp_path)
    assert "<title>owned</title>" in shown
