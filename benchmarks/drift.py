"""Which drift is found, how soon, and what the guard then saves: a table over judged sets.

    python benchmarks/drift.py --data COLLECTIONS --cache SCORES --out benchmarks/results

Streams are scored once and cached (half an hour on one core); what follows takes five minutes. A
snapshot of web queries is compared with windows of distinct queries drawn from each stream.
Thresholds are chosen by a rule on one half of the sets and told on both, and the other way round.
"""

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import thresholds
from maps import drift_map
from streams import HALVES, MODEL, SNAPSHOT, Asked, asking, document, half, load, streams
from tables import Row, choosing, markdown
from thresholds import Stream, Thresholds, Tried

from rerank_plugins.config.build import build_setup
from rerank_plugins.config.read import parse_settings
from rerank_plugins.core import with_guard
from rerank_plugins.core.setup import Setup
from rerank_plugins.quality.drift import canaries
from rerank_plugins.quality.drift.features import FEATURES, Feature, Observation, observe
from rerank_plugins.quality.drift.snapshot import Snapshot, snapshot
from rerank_plugins.quality.drift.verdict import DriftReport, DriftThresholds, Finding, judge
from rerank_plugins.rules import fusion
from rerank_plugins.scoring.models.files import EMBEDDED
from rerank_plugins.scoring.runtime.scheduler import Scheduler

# At most as many distinct queries a window; smaller sets give what they have.
WINDOW = 40
# Windows of one stream, and runs of each stream.
LENGTH, RUNS = 10, 50
# Sets of this size are cut in two this often to count false alarms.
LARGE, SPLITS = 100, 500
CARD = json.loads((MODEL / "card.json").read_text(encoding="utf-8"))
PRIOR_WEIGHT = float(CARD["fusion"]["prior_weight"])
TOP = 10
# What moved in this share of windows is named.
OFTEN = 0.5
SHIPPED = Thresholds(
    DriftThresholds().agreement,
    DriftThresholds().separation,
    DriftThresholds().length,
    DriftThresholds().least,
    canaries.TOLERANCE,
)


def stream(
    name: str,
    asked: Sequence[Asked],
    before: Snapshot,
    source: np.random.Generator,
    *,
    deviation: float | None = None,
) -> Stream:
    """Draw many runs of windows from one set of requests and test each against the snapshot."""
    seen = [observed(one, source) for one in asked]
    size = min(WINDOW, len(seen))
    runs = tuple(
        tuple(
            judge(before, [seen[i] for i in chosen])
            for chosen in (source.choice(len(seen), size, replace=False) for _ in range(LENGTH))
        )
        for _ in range(RUNS)
    )
    start, alone, fused = (float(np.mean(one)) for one in zip(*map(quality, asked), strict=True))
    above = float(
        np.mean([np.less.outer(one.nulls, one.scores).mean() for one in asked if one.nulls])
    )
    return Stream(name, len(seen), start, alone, fused, deviation, above, runs)


def observed(one: Asked, source: np.random.Generator) -> Observation:
    """Note a request as the guard does, paired with one random passage."""
    scores = np.array(one.scores)
    return observe(
        scores,
        scores,
        chars=np.array(one.chars, dtype=np.float64),
        query_chars=one.query_chars,
        common=one.shared,
        null=float(source.choice(one.nulls)) if one.nulls else float("nan"),
    )


def quality(one: Asked) -> tuple[float, float, float]:
    """Return nDCG@10 of the first stage, the model, and both fused; 0 where nothing is relevant."""
    grades = np.array(one.grades or [0] * len(one.scores), dtype=np.float64)
    scores, priors = np.array(one.scores), np.array(one.priors)
    best = _dcg(np.array(one.ideal or [], dtype=np.float64))
    if not best:
        return 0.0, 0.0, 0.0
    alone, fused = (
        _dcg(grades[np.argsort(-fusion.fuse(scores, priors, weight), kind="stable")]) / best
        for weight in (0.0, PRIOR_WEIGHT)
    )
    return _dcg(grades) / best, alone, fused


def fixed_pairs(model: str | Path) -> list[float]:
    """Score the canaries."""
    with contextlib.closing(Scheduler(1)) as scheduler:
        return with_guard.canaries(_alone(model), scheduler)


def templated_pairs(query: Callable[[str], str], passage: Callable[[str], str]) -> list[float]:
    """Score the canaries as a service would whose own settings hold a template."""
    with contextlib.closing(Scheduler(1)) as scheduler:
        score = with_guard.pair_scorer(_alone(EMBEDDED), scheduler)
        return [
            score(query(asked), passage(text))
            for asked, texts in canaries.CANARIES
            for text in texts
        ]


def undrifted(seen: Sequence[Observation], source: np.random.Generator) -> list[DriftReport]:
    """Judge windows of a set that is cut at random into snapshot and window, many times."""
    found = []
    for _ in range(SPLITS):
        order = source.permutation(len(seen))
        before = snapshot([seen[i] for i in order[WINDOW:]], subject="", model="")
        found.append(judge(before, [seen[i] for i in order[:WINDOW]]))
    return found


def shuffled(asked: Sequence[Asked], source: np.random.Generator) -> Iterator[Asked]:
    """Return each candidate another one's score."""
    for one in asked:
        yield replace(one, scores=list(source.permutation(one.scores)))


def rows(tried: Tried, choices: Mapping[str, Thresholds]) -> Iterator[Row]:
    """Return what each choice makes of each stream."""
    for name, one in tried.streams.items():
        own, other = ("AB", "BA")[half(name)]
        at = tried.judged[name][SHIPPED.watch]
        verdicts = {"harmful": at.harmful, "watch": at.watch, "ok": 1.0 - at.harmful - at.watch}
        yield Row(
            replace(one, runs=()),
            own,
            at.found_by,
            max(verdicts, key=lambda verdict: verdicts[verdict]),
            _moved([window for run in one.runs for window in run]),
            _average(one, "agreement", lambda each: each.left),
            _average(one, "separation", lambda each: each.left),
            _average(one, "length_bias", lambda each: each.now),
            tried.outcome(name, SHIPPED),
            tried.outcome(name, choices[own]),
            tried.outcome(name, choices[other]),
        )


def _alone(model: str | Path) -> Setup:
    stage = {"scorer": str(model), "precision": "fp32"}
    return build_setup(parse_settings({"stages": [stage]}, "a benchmark"))


def _dcg(grades: np.ndarray) -> float:
    top = grades[:TOP]
    return float((top / np.log2(np.arange(top.size) + 2.0)).sum())


def _average(one: Stream, feature: Feature, value: Callable[[Finding], float]) -> float:
    windows = [window for run in one.runs for window in run]
    found = [each for window in windows for each in window.findings if each.feature == feature]
    return float(np.mean([value(each) for each in found]))


def _moved(reports: Sequence[DriftReport]) -> tuple[str, ...]:
    """Return what moved in at least half of the windows, the most frequent first, at most three."""
    counts = {name: sum(name in one.moved for one in reports) / len(reports) for name in FEATURES}
    often = sorted(
        (name for name in counts if counts[name] >= OFTEN), key=lambda name: -counts[name]
    )
    return tuple(often[:3])


def _drawn(
    data: Path, cache: Path, source: np.random.Generator
) -> tuple[list[Stream], dict[str, list[DriftReport]]]:
    """Draw windows of every stream, and windows without drift of every large set."""
    kept = {name: load(name, data, cache) for name in streams(cache)}
    for sets in HALVES:
        base = next(iter(sets))
        kept[f"{base}, shuffled scores"] = list(shuffled(kept[base], source))
    before = snapshot([observed(one, source) for one in kept.pop(SNAPSHOT)], subject="", model="")
    sound = fixed_pairs(EMBEDDED)
    found = []
    for name, asked in kept.items():
        folder = cache / name.partition(", ")[2].replace(" ", "-")
        damaged = folder.is_dir() and folder != cache
        off = canaries.deviation(sound, fixed_pairs(folder)) if damaged else None
        found.append(stream(name, asked, before, source, deviation=off))
    template = canaries.deviation(sound, templated_pairs(asking, document))
    found += [
        replace(one, name=f"{one.name} in the settings", canaries=template)
        for one in found
        if one.name.endswith("wrong template")
    ]
    large = [name for sets in HALVES for name, count in sets.items() if count >= LARGE]
    return found, {
        name: undrifted([observed(one, source) for one in kept[name]], source) for name in large
    }


def main() -> None:
    """Score what is not cached, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--data", "--cache", "--out"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    tried = thresholds.attempt(*_drawn(given.data, given.cache, np.random.default_rng(0)))
    names = {key: [one for one in tried.streams if half(one) == at] for at, key in enumerate("AB")}
    choices = {key: tried.choose(these) for key, these in names.items()}
    choices |= {
        f"{key}, length left out": tried.choose(these, (thresholds.NEVER,))
        for key, these in names.items()
    }
    choices |= {"A and B": tried.choose(list(tried.streams)), "shipped": SHIPPED}
    found = list(rows(tried, choices))
    given.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "model_version": CARD["version"],
        "prior_weight": PRIOR_WEIGHT,
        "thresholds": {key: asdict(one) for key, one in choices.items()},
        "false_alarms": tried.alarms,
        "streams": [asdict(one) for one in found],
    }
    (given.out / "drift.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    text = f"{markdown(found)}\n{choosing(tried, choices)}"
    (given.out / "drift.md").write_text(text, encoding="utf-8")
    halves = {key: [tried.streams[name] for name in these] for key, these in names.items()}
    drift_map(
        halves, {one.stream.name: one.agreement for one in found}, choices, given.out / "drift.svg"
    )
    print(text)


if __name__ == "__main__":
    main()
