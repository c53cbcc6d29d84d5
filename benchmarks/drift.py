"""Which drift is found, how soon, and what the guard then saves: a table over judged sets.

    python benchmarks/drift.py --data COLLECTIONS --cache SCORES --out benchmarks/results

Streams are scored once and cached (half an hour on one core); the table itself takes a minute.
A snapshot of web queries is compared with windows of distinct queries drawn from each stream.
"""

import argparse
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from streams import SETS, Asked, load, streams

from rerank_plugins import config, drift, fusion, guarded
from rerank_plugins.drift import Observation, Report, Snapshot, Window, canaries
from rerank_plugins.guard import GuardOptions
from rerank_plugins.guard.resolve import Resolve
from rerank_plugins.scorers.files import EMBEDDED
from rerank_plugins.scorers.scheduler import Scheduler

SNAPSHOT, CHANGED = "trec-dl22", "trec-dl19"
# At most as many distinct queries a window; smaller sets give what they have.
WINDOW = 40
# Windows of one stream, and streams of each kind.
LENGTH, STREAMS = 10, 100
# Sets of this size are cut in two this often to count false alarms.
LARGE, SPLITS = 100, 500
# As the embedded model's card has it.
PRIOR_WEIGHT = 0.3
TOP = 10
# What moved in this share of windows is named.
OFTEN = 0.5
HEAD = (
    "| stream | queries | watch | harmful | found by window | what moved most | canaries "
    "| guard acts | first stage | model alone | reranker | guarded | below the better |"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One stream: shares of its windows by verdict, windows until found, and nDCG@10.

    `found_by` is the window by which 95 of 100 streams had one that was not ok, None for later than
    the last; `acts` the share of streams that end with the guard acting. `canaries` is how far the
    fixed pairs deviate, where the model is another one. `model` orders by its scores alone,
    `reranker` fuses them with the prior as the package does by default.
    """

    stream: str
    queries: int
    watch: float
    harmful: float
    found_by: int | None
    moved: tuple[str, ...]
    acts: float
    canaries: float | None
    first_stage: float | None
    model: float | None
    reranker: float | None
    guarded: float | None

    @property
    def loss(self) -> float | None:
        """Tell by how much the guarded order is below the better of the two."""
        if self.first_stage is None or self.reranker is None or self.guarded is None:
            return None
        return max(self.first_stage, self.reranker) - self.guarded


def row(
    name: str,
    asked: Sequence[Asked],
    before: Snapshot,
    source: np.random.Generator,
    *,
    deviation: float | None = None,
) -> Row:
    """Judge many streams of windows drawn from one set of requests."""
    seen = [observed(one, source) for one in asked]
    size = min(WINDOW, len(seen))
    options = GuardOptions()
    found: list[int] = []
    reports: list[Report] = []
    acts = 0
    for _ in range(STREAMS):
        resolve = Resolve(options.patience, options.relief)
        first = LENGTH + 1
        for place in range(1, LENGTH + 1):
            chosen = source.choice(len(seen), size, replace=False)
            report = drift.judge(before, Window(size, [seen[i] for i in chosen]), options.watch)
            resolve.hear(report)
            reports.append(report)
            if report.verdict != "ok":
                first = min(first, place)
        found.append(first)
        if deviation is not None:
            resolve.insist("canaries", on=deviation > canaries.TOLERANCE)
        acts += resolve.harm
    by = int(np.quantile(found, 0.95, method="higher"))
    start, alone, fused = (_mean(one) for one in zip(*map(quality, asked), strict=True))
    share = acts / STREAMS
    return Row(
        name,
        len(seen),
        _share(reports, "watch"),
        _share(reports, "harmful"),
        by if by <= LENGTH else None,
        _moved(reports),
        share,
        deviation,
        start,
        alone,
        fused,
        None if start is None or fused is None else share * start + (1.0 - share) * fused,
    )


def observed(one: Asked, source: np.random.Generator) -> Observation:
    """Note a request as the guard does, paired with one random passage."""
    scores = np.array(one.scores)
    return drift.observe(
        scores,
        scores,
        chars=np.array(one.chars, dtype=np.float64),
        query_chars=one.query_chars,
        null=float(source.choice(one.nulls)) if one.nulls else float("nan"),
    )


def quality(one: Asked) -> tuple[float | None, float | None, float | None]:
    """Give nDCG@10 of the first stage, the model, and both fused; None where not judged."""
    if one.grades is None or one.ideal is None:
        return None, None, None
    grades = np.array(one.grades, dtype=np.float64)
    scores, priors = np.array(one.scores), np.array(one.priors)
    best = _dcg(np.array(one.ideal, dtype=np.float64))
    if not best:
        return 0.0, 0.0, 0.0
    alone, fused = (
        _dcg(grades[np.argsort(-fusion.fuse(scores, priors, weight), kind="stable")]) / best
        for weight in (0.0, PRIOR_WEIGHT)
    )
    return _dcg(grades) / best, alone, fused


def fixed_pairs(model: str | Path) -> list[float]:
    """Score the canaries."""
    setup = config.build(config.parse({"stages": [{"scorer": str(model)}]}, "a benchmark"))
    with contextlib.closing(Scheduler(1)) as scheduler:
        return guarded.canaries(setup, scheduler)


def false_alarms(seen: Sequence[Observation], source: np.random.Generator) -> float:
    """Give the share of windows that are not ok when a set is cut into snapshot and window."""
    wrong = 0
    for _ in range(SPLITS):
        order = source.permutation(len(seen))
        rest = [seen[i] for i in order[WINDOW:]]
        before = drift.snapshot(rest, subject="", model="")
        window = Window(WINDOW, [seen[i] for i in order[:WINDOW]])
        wrong += drift.judge(before, window).verdict != "ok"
    return wrong / SPLITS


def shuffled(asked: Sequence[Asked], source: np.random.Generator) -> Iterator[Asked]:
    """Give each candidate another one's score."""
    for one in asked:
        yield Asked(**{**asdict(one), "scores": list(source.permutation(one.scores))})


def markdown(rows: Sequence[Row]) -> str:
    """Give the table."""
    lines = [HEAD, "|---|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|"]
    for one in rows:
        figures = " | ".join(
            "" if value is None else f"{value:.3f}"
            for value in (one.first_stage, one.model, one.reranker, one.guarded, one.loss)
        )
        lines.append(
            f"| {one.stream} | {one.queries} | {one.watch:.0%} | {one.harmful:.0%} "
            f"| {one.found_by or 'not'} | {', '.join(one.moved)} "
            f"| {'' if one.canaries is None else f'{one.canaries:.2f}'} "
            f"| {one.acts:.0%} | {figures} |"
        )
    return "\n".join(lines) + "\n"


def _dcg(grades: np.ndarray) -> float:
    top = grades[:TOP]
    return float((top / np.log2(np.arange(top.size) + 2.0)).sum())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return float(np.mean(known)) if known else None


def _share(reports: Sequence[Report], verdict: str) -> float:
    return sum(one.verdict == verdict for one in reports) / len(reports)


def _moved(reports: Sequence[Report]) -> tuple[str, ...]:
    """Name what moved in at least half of the windows, the most frequent first, at most three."""
    counts = {
        name: sum(name in one.moved for one in reports) / len(reports) for name in drift.FEATURES
    }
    often = sorted(
        (name for name in counts if counts[name] >= OFTEN), key=lambda name: -counts[name]
    )
    return tuple(often[:3])


def main() -> None:
    """Score what is not cached, print the table and write both."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--data", "--cache", "--out"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    source = np.random.default_rng(0)
    kept = {name: load(name, given.data, given.cache) for name in streams(given.cache)}
    kept[f"{CHANGED}, shuffled scores"] = list(shuffled(kept[CHANGED], source))
    web = [observed(one, source) for one in kept[SNAPSHOT]]
    before = drift.snapshot(web, subject="", model="")
    sound = fixed_pairs(EMBEDDED)
    rows = []
    for name, asked in kept.items():
        folder = given.cache / name.removeprefix(f"{CHANGED}, ").replace(" ", "-")
        off = canaries.deviation(sound, fixed_pairs(folder)) if folder.is_dir() else None
        if name != SNAPSHOT:
            rows.append(row(name, asked, before, source, deviation=off))
    alarms = {
        name: false_alarms([observed(one, source) for one in kept[name]], source)
        for name, count in SETS.items()
        if len(kept[name]) == count == LARGE
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "drift.json").write_text(
        json.dumps({"false_alarms": alarms, "streams": [asdict(one) for one in rows]}, indent=1)
        + "\n",
        encoding="utf-8",
    )
    table = markdown(rows)
    (given.out / "drift.md").write_text(table, encoding="utf-8")
    print(table, alarms)


if __name__ == "__main__":
    main()
