"""The figures of trials with their captions, and what each shows to those who cannot see it.

Guarantees: each names the table that holds its figures; a figure of separate processes says that it is no verdict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from results.arms import arms_in
from results.blocks import Block, Picture, Prose
from results.plots import plot_convergence, plot_memory, plot_step_time
from results.text import backend_name

_NOT_A_NAME = re.compile(r"[^A-Za-z0-9]+")


def convergence_blocks(curves: pd.DataFrame) -> tuple[Block, ...]:
    """Return the curves of validation scores against epochs and against time."""
    curves = curves[curves["status"] == "ok"]
    lines = ", ".join(backend_name(arm) for arm in arms_in(curves))
    pictures: list[Block] = []
    axes = {"epoch": ("epochs", "epoch"), "train_s": ("seconds of training, evaluation not counted", "time")}
    for against, (unit, name) in axes.items():
        pictures += _pictures(
            f"convergence_{name}",
            plot_convergence(curves, against),
            alt=f"Line charts, one per task and model: validation score against {unit}, a line each for {lines}. "
            "The test scores are in the first table.",
            caption=f"Validation score against {unit}. Median over trials; the band is the 20-80 % range.",
        )
    return tuple(pictures) or (Prose(text="No trial recorded a validation curve."),)


def measure_blocks(trials: pd.DataFrame) -> tuple[Block, ...]:
    """Return the charts of step time and host memory."""
    blocks = _pictures(
        "step_time",
        plot_step_time(trials),
        alt="Bar chart of milliseconds per step by task, model and backend, split into making the batch and the "
        "model's step. The figures are in the table of time, memory and edges.",
        caption="Time per step: batch + model, medians. Descriptive: one fresh process each, no verdict.",
    )
    blocks += _pictures(
        "host_memory",
        plot_memory(trials),
        alt="Bar chart of peak host memory in MiB by task, model and backend, with a dot per trial. The figures are in "
        "the table of time, memory and edges.",
        caption="Peak host memory of the trial's process. Bar: median; dots: trials.",
    )
    return tuple(blocks) or (Prose(text="No trial recorded step times or memory."),)


def _pictures(stem: str, figures: Mapping[str, Figure], *, alt: str, caption: str) -> list[Block]:
    """Return a picture for each figure, its file named by number and what it is about."""
    pictures: list[Block] = []
    for number, (about, figure) in enumerate(figures.items(), 1):
        slug = _NOT_A_NAME.sub("-", about.partition(" / ")[2] or about).strip("-")[:40]
        name = f"{stem}_{number}_{slug}".rstrip("_") if about else stem
        told = f"{about}. " if about else ""
        pictures.append(Picture(name=name, alt=told + alt, caption=told + caption, figure=figure))
    return pictures
