"""The section of a report on inference: latency cold, warm and under load, the bars, and a figure.

Guarantees: percentiles are order statistics of the requests of one trial (``latency.py``), and stand with how many
those were; a verdict on a bar is measured; nothing is divided by anything of another process. Trials that shared the
machine are left out, by name.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from results.arms import form_of, library_of
from results.blocks import Block, Code, Picture, Points, Prose, Table
from results.drawing import add_legend, label
from results.frame import is_timed
from results.latency import PERCENTILES, judge, percentile, throughput_per_s
from results.listings import ID_DIGITS, make_table
from results.record import TrialRecord
from results.text import MISSING, backend_name, plain, significant

#: Bars on the p99 of one entity, warm, in seconds, with where each comes from.
_BARS: Final = (("published: under 100 ms", 0.1), ("aim: under 10 ms", 0.01))
_WHAT: Final = (
    "One process answers requests about rows of the test split. A latency is that of sampling, building the library's "
    "batch, copying it, the forward pass, and having the predictions on the host. Warm requests follow one another; "
    "under load they arrive on a Poisson schedule of a fixed seed, one server takes them in order, and a latency "
    "counts from the scheduled arrival, so the time in the queue is in it. Percentiles are order statistics. Weights "
    "are as initialised, which changes no latency. Before a record was kept, answers about one entity at a time were "
    "held against the plain reference's about all of them at once."
)
_COLORS: Final = {"pyg": ("#2f6fa5", "-", "o"), "dgl": ("#b3461b", "--", "s")}
_HEADING: Final = ("Trial", "Task", "Model", "Backend")


def is_serving(record: TrialRecord) -> bool:
    """Tell whether a trial answered requests instead of training."""
    return bool(record.setting("scenario.name") == "inference")


def serving_blocks(records: Sequence[TrialRecord]) -> tuple[Block, ...]:
    """Return the section's blocks, of the trials that answered requests; none where there is no such trial."""
    served = sorted(filter(is_serving, records), key=lambda its: (*_heading(its)[1:3], library_of(its.config) != "pyg"))
    if not served:
        return ()
    shown = [record for record in served if record.inference and is_timed(record)]
    rest = [record for record in served if record not in shown]
    blocks: list[Block] = [Prose(text=_WHAT)]
    if shown:
        blocks += [_bars(shown), _warm(shown), _under_load(shown), *_figures(shown), _cold(shown), _parts(shown)]
        answers = [record.inference["answers"] for record in shown if record.inference]
        blocks.append(
            Prose(
                text=f"Answers held against the reference's: {min(its['num'] for its in answers)} or more a trial, "
                f"largest relative difference {max(its['max_rel_diff'] for its in answers):.1e}."
            )
        )
    if rest:
        title = "Trials without a latency to show"
        blocks.append(Points(title=title, items=tuple(f"{_heading(its)[0]}: {_why(its)}" for its in rest)))
    commands = (f"{plain(its.command, 2000, keep_spaces=True)}  # {its.trial_id[:ID_DIGITS]}" for its in served)
    return (*blocks, Code(title="Commands that remake each trial", lines=tuple(commands)))


def _bars(records: Sequence[TrialRecord]) -> Table:
    rows = []
    for record, its in _measured(records):
        latencies = its["warm"][0]["latency_s"]
        verdicts = [judge(latencies, 0.99, bar) for _, bar in _BARS]
        p99 = significant(1e3 * percentile(latencies, 0.99))
        rows.append((*_heading(record), p99, str(len(latencies)), *verdicts, _noise(record)))
    titles = [*_HEADING, "p99 (ms)", "n", *(name for name, _ in _BARS), "CPU at the start"]
    text = [*_HEADING, *(name for name, _ in _BARS), "CPU at the start"]
    return make_table("One entity, warm: p99 against the bars, each judged by its 95 % bound", titles, rows, text=text)


def _warm(records: Sequence[TrialRecord]) -> Table:
    rows = []
    for record, its in _measured(records):
        for batch in its["warm"]:
            latencies = batch["latency_s"]
            rate = batch["batch_size"] * throughput_per_s(latencies)
            rows.append(
                (
                    *_heading(record),
                    str(batch["batch_size"]),
                    str(len(latencies)),
                    *_percentiles(latencies),
                    significant(rate),
                )
            )
    titles = [*_HEADING, "Entities / request", "n", "p50 (ms)", "p95 (ms)", "p99 (ms)", "Entities / s"]
    return make_table("Warm: one request after the other", titles, rows, text=_HEADING)


def _under_load(records: Sequence[TrialRecord]) -> Table:
    rows = [
        (
            *_heading(record),
            f"{100 * load['share']:.0f} %",
            significant(load["rate_per_s"]),
            str(len(load["latency_s"])),
            *_percentiles(load["latency_s"]),
        )
        for record, its in _measured(records)
        for load in its["open_loop"]
    ]
    titles = [*_HEADING, "Of capacity", "Requests / s", "n", "p50 (ms)", "p95 (ms)", "p99 (ms)"]
    return make_table("Under load: one entity a request, Poisson arrivals", titles, rows, text=_HEADING)


def _cold(records: Sequence[TrialRecord]) -> Table:
    names = list(dict.fromkeys(name for _, its in _measured(records) for name in its["cold_s"]))
    rows = [
        (
            *_heading(record),
            *(significant(its["cold_s"].get(name)) for name in names),
            significant(math.fsum(its["cold_s"].values())),
            its.get("sampler_kernels") or MISSING,
        )
        for record, its in _measured(records)
    ]
    titles = [*_HEADING, *(plain(name.removesuffix("_s").replace("_", " "), 40) for name in names)]
    titles += ["Whole", "Sampler's kernels"]
    caption = "Cold: seconds from the start of the process to the first answer"
    return make_table(caption, titles, rows, text=[*_HEADING, titles[-1]])


def _parts(records: Sequence[TrialRecord]) -> Table:
    names = ("sample", "build", "topology", "forward", "answer")
    rows = [
        (*_heading(record), *(_median_ms(its["parts_s"].get(name)) for name in names))
        for record, its in _measured(records)
    ]
    titles = [*_HEADING, "Sample (ms)", "Build and copy (ms)", "of it the library's graph (ms)", "Forward (ms)"]
    titles += ["Predictions to the host (ms)"]
    caption = "Parts of a request for one entity (medians, from a pass of their own)"
    return make_table(caption, titles, rows, text=_HEADING)


def _median_ms(seconds: Sequence[float] | None) -> str:
    return significant(1e3 * statistics.median(seconds)) if seconds else MISSING


def _figures(records: Sequence[TrialRecord]) -> list[Picture]:
    """Return a figure for each task and model, so that a library's lines are told apart."""
    groups: dict[tuple[str, ...], list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(_heading(record)[1:3], []).append(record)
    if len(groups) == 1:
        return [_figure(records, "latency", "")]
    return [
        _figure(own, f"latency_{number}", ", ".join(about)) for number, (about, own) in enumerate(groups.items(), 1)
    ]


def _figure(records: Sequence[TrialRecord], name: str, about: str) -> Picture:
    """Draw p50 and p99 against the size of a request, and against the load: a line a trial and percentile."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    sizes, loads = figure.subplots(1, 2)
    handles, names = [], []
    for record, its in _measured(records):
        color, line, marker = _COLORS.get(library_of(record.config), ("#555555", ":", "^"))
        for share, filled in ((0.5, False), (0.99, True)):
            style = {"color": color, "linestyle": line, "marker": marker, "linewidth": 1.6, "markersize": 5}
            style |= {"markerfacecolor": color if filled else "white"}
            x = [batch["batch_size"] for batch in its["warm"]]
            (drawn,) = sizes.plot(x, [1e3 * percentile(batch["latency_s"], share) for batch in its["warm"]], **style)
            x = [100 * load["share"] for load in its["open_loop"]]
            loads.plot(x, [1e3 * percentile(load["latency_s"], share) for load in its["open_loop"]], **style)
            handles.append(drawn)
            names.append(label(f"{_heading(record)[3]} p{100 * share:.0f}", 90))
    sizes.set_xscale("log", base=2)
    sizes.set_xticks(ticks := [batch["batch_size"] for batch in _measured(records)[0][1]["warm"]], map(str, ticks))
    sizes.set_xlabel("entities in a request, warm")
    loads.set_xlabel("load (% of the capacity for one entity)")
    loads.set_xlim(left=0)
    for axis in (sizes, loads):
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_ylabel("latency (ms)")
        axis.grid(color="#d0d0d0", linewidth=0.6, which="both")
        for words, bar in _BARS:
            axis.axhline(1e3 * bar, color="black", linewidth=0.8, linestyle=":")
            axis.annotate(words, (0, 1e3 * bar), (4, 2), axis.get_yaxis_transform(), "offset points", fontsize=7.5)
    add_legend(figure, handles, names, about)
    told = f"{about}. " if about else ""
    return Picture(
        name=name,
        alt=f"{told}Two line charts of latency in milliseconds on logarithmic axes, against the entities in a request "
        "and against the load, with p50 and p99 of each trial. The figures are in the tables of this section.",
        caption=f"{told}Latency of a request, warm (left) and under load (right, from the scheduled arrival). Separate "
        "processes: descriptive, no verdict between the libraries.",
        figure=figure,
    )


def _measured(records: Sequence[TrialRecord]) -> list[tuple[TrialRecord, Mapping[str, Any]]]:
    return [(record, record.inference) for record in records if record.inference]


def _percentiles(latencies: Sequence[float]) -> list[str]:
    return [significant(1e3 * percentile(latencies, share)) for share in PERCENTILES]


def _heading(record: TrialRecord) -> tuple[str, str, str, str]:
    names = [plain(record.setting(path, "?"), 60) for path in ("dataset.name", "task.name", "model.family")]
    form = form_of(record.config, record.environment)
    library = backend_name(library_of(record.config))
    return record.trial_id[:ID_DIGITS], f"{names[0]} / {names[1]}", names[2], f"{library} ({form})" if form else library


def _noise(record: TrialRecord) -> str:
    noisy = record.environment.get("noisy")
    return "noisy" if noisy is True else "quiet" if noisy is False else MISSING


def _why(record: TrialRecord) -> str:
    if record.inference and not is_timed(record):
        return "it shared the machine, so its times say nothing"
    return f"{record.status}, {plain(record.reason or 'no reason recorded')}"
