"""From raw times to tables and plots: medians, paired ratios, the equality gate, GFLOP/s."""

import json
import statistics
from collections.abc import Mapping, Sequence
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


def gflop(geometry: str, load: str) -> float:
    """Count what the unrewritten graph must compute for a workload, without padding."""
    layers, width, inner = SHAPES[geometry]
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    work = workload(load)
    encoded = tokenizer.encode_batch([(work.query, one) for one in work.passages])
    lengths = np.array([len(one.ids) for one in encoded], dtype=np.float64)
    linear = 2 * lengths.sum() * (4 * width**2 + 2 * width * inner)
    attention = 4 * (lengths**2).sum() * width
    return float(layers * (linear + attention) / 1e9)


def table(rows: Sequence[Row], peak: float) -> list[str]:
    """Write the table of one geometry and workload."""
    by_name = {str(row["variant"]): row for row in rows}
    reference = by_name.get(REFERENCE, {}).get("scores")
    ours = by_name.get(OURS, {}).get("seconds", [])
    work = gflop(str(rows[0]["geometry"]), str(rows[0]["workload"]))
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
        ratio = statistics.median(a / b for a, b in zip(seconds, ours, strict=True))
        apart = difference(row["scores"], reference)
        mark = "" if apart <= GATE else " **other scores**"
        lines.append(
            f"| {row['variant']}{mark} | {median * 1e3:,.0f} "
            f"| {np.percentile(seconds, 95) * 1e3:,.0f} | {ratio:.2f} | {work / median:.0f} "
            f"| {work / median / peak:.2f} | {apart:.0e} | {row['rss_mb']:.0f} |"
        )
    return lines


def difference(scores: object, reference: object) -> float:
    """Give the largest difference as a share of the reference's spread."""
    wanted = np.asarray(reference, dtype=np.float64)
    return float(np.abs(np.asarray(scores) - wanted).max() / wanted.std())


def crowd_table(rows: Sequence[Row]) -> list[str]:
    """Write the table of concurrent callers."""
    lines = ["| variant | callers | p50 ms | p95 ms | passages/s |", "|---|---|---|---|---|"]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['variant']} | {row['callers']} | failed | | |")
            continue
        p50, p95 = np.percentile(row["latencies"], [50, 95]) * 1e3
        lock = ", under a lock" if row["locked"] else ""
        lines.append(
            f"| {row['variant']}{lock} | {row['callers']} | {p50:,.0f} | {p95:,.0f} "
            f"| {row['passages_s']:.0f} |"
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
        _plot(rows, folder / f"{key[0]}-{key[1]}.png")
    if "crowds" in facts:
        lines += ["## Concurrent callers, MiniLM-L6, k = 20, three requests each", ""]
        lines += [*crowd_table(facts["crowds"]), ""]
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
            expected = reference[row["geometry"], row["workload"]]
            kept["difference"] = difference(row["scores"], expected)
        slim.append(kept)
    (folder / "results.json").write_text(json.dumps({**facts, "rows": slim}, indent=1) + "\n")


def _machine(machine: Mapping[str, object]) -> list[str]:
    versions = ", ".join(f"{name} {one}" for name, one in machine["versions"].items())
    return [
        (
            f"{machine['cpu']}, {machine['cores']} cores, {', '.join(machine['features'])}, "
            f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}; "
            f"sgemm {machine['sgemm_gflops']:.0f} GFLOP/s; load before the run "
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
