"""From raw times to tables and plots: medians, paired ratios, the equality gate, GFLOP/s."""

import json
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import numpy as np
from text import TOKENIZER, workload
from tokenizers import Tokenizer

OURS, REFERENCE = "rerank-plugins", "transformers"
# A variant whose scores are further from the reference than this share of their spread computes
# something else, and its time says nothing.
GATE = 1e-3
SHAPES = {
    "TinyBERT-L2": (2, 128, 512),
    "MiniLM-L6": (6, 384, 1536),
    "MiniLM-L12": (12, 384, 1536),
    "base": (12, 768, 3072),
}
Row = Mapping[str, object]


@cache
def gflop(geometry: str, load: str, draw: int) -> float:
    """Count what the unrewritten graph must compute for a workload, without padding."""
    layers, width, inner = SHAPES[geometry]
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    work = workload(load, draw)
    encoded = tokenizer.encode_batch([(work.query, one) for one in work.passages])
    lengths = np.array([len(one.ids) for one in encoded], dtype=np.float64)
    linear = 2 * lengths.sum() * (4 * width**2 + 2 * width * inner)
    attention = 4 * (lengths**2).sum() * width
    return float(layers * (linear + attention) / 1e9)


def table(rows: Sequence[Row], peak: float) -> list[str]:
    """Write the table of one geometry and workload."""
    by_name = {str(row["variant"]): row for row in rows}
    reference = by_name.get(REFERENCE, {}).get("scores", {})
    ours = by_name.get(OURS, {}).get("seconds", [])
    lines = [
        (
            "| variant | median ms | p95 ms | x ours (paired) | GFLOP/s | share of peak | "
            "difference / spread | RSS MB |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda one: statistics.median(one.get("seconds") or [1e9])):
        if "error" in row:
            lines.append(f"| {row['variant']} | failed: {row['error']} | | | | | | |")
            continue
        seconds = row["seconds"]
        median = statistics.median(seconds)
        # The reference is timed in the first rounds only.
        ratio = statistics.median(a / b for a, b in zip(seconds, ours, strict=False))
        work = statistics.median(
            gflop(str(row["geometry"]), str(row["workload"]), turn % row["draws"]) / one
            for turn, one in enumerate(seconds, start=1)
        )
        apart = _apart(row, reference)
        mark = "" if apart <= GATE else " **other scores**"
        lines.append(
            f"| {row['variant']}{mark} | {median * 1e3:,.0f} "
            f"| {np.percentile(seconds, 95) * 1e3:,.0f} | {ratio:.2f} | {work:.0f} "
            f"| {work / peak:.2f} | {apart:.0e} | {row['rss_mb']:.0f} |"
        )
    return lines


def _apart(row: Row, reference: Mapping[int, Sequence[float]]) -> float:
    """Compare with the reference, or say what an earlier run found, whose scores are gone."""
    return float(row["difference"]) if "scores" not in row else difference(row["scores"], reference)


def difference(
    scores: Mapping[int, Sequence[float]], reference: Mapping[int, Sequence[float]]
) -> float:
    """Return the largest difference of any draw as a share of the reference's spread."""
    apart = [
        float(np.abs(np.asarray(scores[draw]) - wanted).max() / np.std(wanted))
        for draw, wanted in reference.items()
        if draw in scores
    ]
    return max(apart, default=float("inf"))


def reading(rows: Sequence[Row]) -> list[str]:
    """Return the share of our time that tokenising takes, where that is known."""
    shares = [f"{row['variant']} {row['reading']:.1%}" for row in rows if "reading" in row]
    return [f"Share of tokenising: {', '.join(shares)}.", ""] if shares else []


def crowd_table(rows: Sequence[Row]) -> list[str]:
    """Write the table of concurrent callers."""
    lines = [
        "| variant | callers | requests of each | p50 ms | p95 ms | p99 ms | passages/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        good = [run for run in row["runs"] if "error" not in run]
        lock = ", under a lock" if row["locked"] else ""
        who = f"| {row['variant']}{lock} | {row['callers']} | {row['each']}"
        if not good:
            lines.append(f"{who} | failed | | | |")
            continue
        latencies = [one for run in good for one in run["latencies"]]
        p50, p95, p99 = np.percentile(latencies, [50, 95, 99]) * 1e3
        per_s = statistics.median(run["passages_s"] for run in good)
        lines.append(f"{who} | {p50:,.0f} | {p95:,.0f} | {p99:,.0f} | {per_s:.0f} |")
    return lines


def among_table(rows: Sequence[Row]) -> list[str]:
    """Write the table of small requests among big ones."""
    lines = [
        "| variant | alone p50 ms | p95 ms | among p50 ms | p95 ms | p95 / p95 alone |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['variant']} | failed | | | | |")
            continue
        alone, busy = (np.percentile(row[name], [50, 95]) * 1e3 for name in ("alone", "busy"))
        lines.append(
            f"| {row['variant']} | {alone[0]:.0f} | {alone[1]:.0f} | {busy[0]:.0f} | {busy[1]:.0f} "
            f"| {busy[1] / alone[1]:.1f} |"
        )
    return lines


def write(facts: Mapping[str, object], folder: Path) -> None:
    """Write results.json (without scores), results.md and one plot per table."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = facts["machine"]
    peak = float(machine["sgemm_gflops"])
    lines = ["# Results", "", *_machine(machine), ""]
    for key, group in groupby(facts["rows"], key=lambda row: (row["geometry"], row["workload"])):
        rows = list(group)
        origin = facts["weights"][key[0]]
        lines += [f"## {key[0]}, {key[1]} (weights: {origin})", "", *table(rows, peak), ""]
        lines += reading(rows)
        _plot(rows, folder / f"{key[0]}-{key[1]}.png")
    if "crowds" in facts:
        lines += ["## Concurrent callers, MiniLM-L6, k = 20", ""]
        lines += [*crowd_table(facts["crowds"]), ""]
    if "among" in facts:
        lines += ["## A request of 5 passages among requests of 200 from two callers", ""]
        lines += [*among_table(facts["among"]), ""]
    if "cold" in facts:
        lines += ["## Fresh process to the first ranking of 10 passages, s", ""]
        lines += ["| variant | median | all |", "|---|---|---|"]
        for row in facts["cold"]:
            every = ", ".join(f"{one:.2f}" for one in row["seconds"])
            lines.append(
                f"| {row['variant']} | {statistics.median(row['seconds']):.2f} | {every} |"
            )
    (folder / "results.md").write_text("\n".join(lines).rstrip() + "\n")
    reference = {
        (row["geometry"], row["workload"]): row.get("scores")
        for row in facts["rows"]
        if row["variant"] == REFERENCE
    }
    slim = []
    for row in facts["rows"]:
        kept = {name: value for name, value in row.items() if name != "scores"}
        if "scores" in row:
            expected = reference[row["geometry"], row["workload"]]  # of each draw
            kept["difference"] = difference(row["scores"], expected)
        slim.append(kept)
    (folder / "results.json").write_text(json.dumps({**facts, "rows": slim}, indent=1) + "\n")


def _machine(machine: Mapping[str, object]) -> list[str]:
    versions = ", ".join(f"{name} {one}" for name, one in machine["versions"].items())
    peaks = ", ".join(f"{name} {one:.0f}" for name, one in machine["sgemm"].items())
    return [
        (
            f"{machine['cpu']}, {machine['cores']} cores, {', '.join(machine['features'])}, "
            f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}; "
            f"best sgemm {machine['sgemm_gflops']:.0f} GFLOP/s ({peaks}); load before the run "
            f"{machine['load_before']:.1f}."
        ),
        "",
        f"{versions}.",
        "",
        (
            "One process per variant, interleaved round by round; medians, and medians of ratios "
            "within rounds. GFLOP/s count what the graph as exported must compute for the tokens, "
            "without padding: a graph that computes less may pass the peak. Rows marked "
            f'"other scores" are further from transformers than {GATE:g} of the spread.'
        ),
    ]


def _plot(rows: Sequence[Row], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    good = [row for row in rows if row.get("seconds")]
    good.sort(key=lambda row: -statistics.median(row["seconds"]))
    figure, axes = plt.subplots(figsize=(8, 0.35 * len(good) + 1.2), layout="constrained")
    axes.barh(
        [str(row["variant"]) for row in good],
        [statistics.median(row["seconds"]) * 1e3 for row in good],
        color=["#c0392b" if str(row["variant"]) == OURS else "#8aa1b1" for row in good],
    )
    axes.set_xlabel("median ms")
    axes.set_title(path.stem)
    figure.savefig(path, dpi=110)
    plt.close(figure)
