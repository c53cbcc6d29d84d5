"""Score the judged sets once, then write the card: measures, intervals, fusion, calibration, probes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import calibrate, judged
from .encoder import embed
from .evaluate import score
from .export import rounded_copy
from .judged import standardise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .judged import JudgedQuery
    from .model import CrossEncoder

WEIGHTS = tuple(round(0.05 * i, 2) for i in range(13))
EXIT_NAMES = ("exit_2", "exit_4", "final")
STATIC = json.loads(Path(__file__).with_name("facts.json").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of one query's candidates: [candidates] each, exits [candidates, 3]."""

    query: JudgedQuery
    exits: np.ndarray
    exits_fp32: np.ndarray | None
    cosine: np.ndarray

    def fused(self, prior_weight: float, column: int = -1) -> np.ndarray:
        """Return (1 - w) z(model) + w z(prior)."""
        own = standardise(self.exits[:, column])
        return (1 - prior_weight) * own + prior_weight * standardise(np.array(self.query.prior))


def score_sets(
    model: CrossEncoder,
    sets: Mapping[str, list[JudgedQuery]],
    folder: Path,
    *,
    both: int = 3,
    part: int = 10,
    max_tokens: int = 192,
    device: str = "cpu",
) -> None:
    """Write scores with the shipped (rounded) weights, with fp32 weights on the first `both` queries, and cosines.

    One file per `part` queries of a set; what is there already is kept, so the work can be interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shipped = rounded_copy(model)
    most = max(len(queries) for queries in sets.values())
    for start in range(0, most, part):
        for name, queries in sets.items():
            path = folder / f"{name}.{start}.npz"
            chosen = queries[start : start + part]
            if path.exists() or not chosen:
                continue
            texts, groups = [q.text for q in chosen], [q.passages for q in chosen]
            exits = score(shipped, texts, groups, max_tokens=max_tokens, device=device)
            compared = max(0, both - start)
            full = (
                score(
                    model, texts[:compared], groups[:compared], max_tokens=max_tokens, device=device
                )
                if compared
                else []
            )
            np.savez(
                path,
                qids=np.array([q.qid for q in chosen]),
                sizes=np.array([len(group) for group in groups]),
                exits=np.concatenate(exits),
                full=np.concatenate(full) if full else np.zeros((0, 3), np.float32),
                cosine=np.concatenate(_cosines(texts, groups, max_tokens, device)),
            )


def _cosines(
    texts: list[str], groups: list[tuple[str, ...]], max_tokens: int, device: str
) -> list[np.ndarray]:
    every = sorted({text for group in groups for text in group})
    place = {text: i for i, text in enumerate(every)}
    rows = embed(every, max_tokens=max_tokens, device=device, quiet=True).astype(np.float32)
    asked = embed(texts, device=device, quiet=True).astype(np.float32)
    return [
        rows[[place[text] for text in group]] @ q for group, q in zip(groups, asked, strict=True)
    ]


def read_scores(folder: Path, sets: Mapping[str, list[JudgedQuery]]) -> dict[str, list[Scored]]:
    """Return what `score_sets` wrote, joined with the queries, in the order of `sets`."""
    scored: dict[str, list[Scored]] = {}
    for name, known in sets.items():
        queries = {q.qid: q for q in known}
        for path in sorted(
            folder.glob(f"{name}.*.npz"), key=lambda path: int(path.stem.rsplit(".", 1)[1])
        ):
            with np.load(path) as file:
                ends = np.cumsum(file["sizes"])
                exits, cosine = (
                    np.split(file["exits"], ends[:-1]),
                    np.split(file["cosine"], ends[:-1]),
                )
                compared = int(np.searchsorted(ends, len(file["full"]), side="right"))
                full = np.split(file["full"], ends[:compared])[:compared]
                scored.setdefault(name, []).extend(
                    Scored(
                        queries[str(qid)], exits[i], full[i] if i < compared else None, cosine[i]
                    )
                    for i, qid in enumerate(file["qids"])
                    if str(qid) in queries
                )
    return scored


def _mean(rows: Sequence[Scored], column: str, weight: float = 0.0) -> float:
    return float(np.mean([_value(row, column, weight) for row in rows]))


def _value(row: Scored, column: str, weight: float = 0.0) -> float:
    scores = {
        "bm25": lambda: np.array(row.query.prior),
        "encoder_cosine": lambda: row.cosine,
        "exit_2": lambda: row.exits[:, 0],
        "exit_4": lambda: row.exits[:, 1],
        "final": lambda: row.exits[:, 2],
        "fused": lambda: row.fused(weight),
        "fused_exit_2": lambda: row.fused(weight, 0),
        "fused_exit_4": lambda: row.fused(weight, 1),
        "cosine_fused": lambda: (
            (1 - weight) * standardise(row.cosine) + weight * standardise(np.array(row.query.prior))
        ),
    }[column]()
    return judged.ndcg_of(row.query, scores)


def tune_fusion(scored: Mapping[str, list[Scored]]) -> dict[str, object]:
    """Return the prior weight with the best mean that costs no set more than .01, and how it holds out."""
    table = {
        name: np.array([_mean(rows, "fused", w) for w in WEIGHTS]) for name, rows in scored.items()
    }
    bm25 = {name: _mean(rows, "bm25") for name, rows in scored.items()}

    def best(names: Sequence[str]) -> int:
        means = np.mean([table[name] for name in names], 0)
        safe = np.all([table[name] >= bm25[name] - 0.01 for name in names], 0)
        return int(np.argmax(np.where(safe, means, -1))) if safe.any() else int(np.argmax(means))

    chosen = best(list(table))
    left_out = {name: float(table[name][best([n for n in table if n != name])]) for name in table}
    return {
        "prior_weight": WEIGHTS[chosen],
        "normalise": "standardise over the request's candidates (mean 0, standard deviation 1)",
        "rule": "(1 - prior_weight) * z(model score) + prior_weight * z(first-stage score)",
        "mean_by_weight": {
            str(w): round(float(np.mean([t[i] for t in table.values()])), 4)
            for i, w in enumerate(WEIGHTS)
        },
        "left_one_set_out": {
            "mean": round(float(np.mean(list(left_out.values()))), 4),
            **{k: round(v, 4) for k, v in left_out.items()},
        },
        "worst_against_bm25": round(min(float(table[n][chosen]) - bm25[n] for n in table), 4),
    }


def measures(scored: Mapping[str, list[Scored]], weight: float) -> dict[str, dict[str, object]]:
    """Return the rows of the card's table; `final_fp32` and `final_int8_same_queries` compare on the same queries."""
    out: dict[str, dict[str, object]] = {}
    columns = (
        "bm25",
        "encoder_cosine",
        "exit_2",
        "exit_4",
        "final",
        "fused",
        "fused_exit_2",
        "fused_exit_4",
        "cosine_fused",
    )
    for name, rows in scored.items():
        row: dict[str, object] = {"queries": len(rows)}
        row |= {column: round(_mean(rows, column, weight), 4) for column in columns}
        both = [r for r in rows if r.exits_fp32 is not None]
        row["same_queries"] = len(both)
        row["final_fp32"] = round(
            float(np.mean([judged.ndcg_of(r.query, r.exits_fp32[:, -1]) for r in both])), 4
        )  # type: ignore[index]
        row["final_int8"] = round(_mean(both, "final"), 4)
        gains = [_value(r, "fused", weight) - _value(r, "bm25") for r in rows]
        row["fused_minus_bm25_95"] = [round(v, 4) for v in judged.bootstrap(gains)]
        over = [_value(r, "fused", weight) - _value(r, "encoder_cosine") for r in rows]
        row["fused_minus_cosine_95"] = [round(v, 4) for v in judged.bootstrap(over)]
        out[name] = row
    return out


def agreement(scored: Mapping[str, list[Scored]]) -> dict[str, float]:
    """Return the mean within-query Spearman correlation of exits 2 and 4 with the last score."""
    from scipy.stats import spearmanr

    found: dict[str, list[float]] = {"exit_2": [], "exit_4": []}
    for rows in scored.values():
        for column, name in enumerate(found):
            values = [spearmanr(r.exits[:, column], r.exits[:, 2]).statistic for r in rows]
            found[name].append(float(np.nanmean(values)))
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def probes(model: CrossEncoder) -> dict[str, object]:
    """Return how many of the hand-written cases each exit puts the right passage first in, and which fail."""
    lines = Path(__file__).with_name("probes.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [json.loads(line) for line in lines]
    found = score(
        model, [c["query"] for c in cases], [[c["right"], *c["distractors"]] for c in cases]
    )
    won = np.array([[scores[:, i].argmax() == 0 for i in range(3)] for scores in found])
    traps: dict[str, list[int]] = {}
    for case, line in zip(cases, won, strict=True):
        total = traps.setdefault(case["trap"], [0, 0])
        total[0] += int(line[-1])
        total[1] += 1
    return {
        "cases": len(cases),
        "passed": {name: int(won[:, i].sum()) for i, name in enumerate(EXIT_NAMES)},
        "passed_by_trap": {trap: f"{a} of {b}" for trap, (a, b) in traps.items()},
        "failed": [case["query"] for case, line in zip(cases, won, strict=True) if not line[-1]],
    }


def write(
    model: CrossEncoder,
    *,
    scores: Path,
    sets: Mapping[str, list[JudgedQuery]],
    data: Path,
    run: Path,
    out: Path,
    export_checks: Mapping[str, float],
) -> None:
    """Write card.json from the static part, the recipe and everything measured."""
    scored = read_scores(scores, sets)
    fusion = tune_fusion(scored)
    weight = float(fusion["prior_weight"])  # type: ignore[arg-type]
    table = measures(scored, weight)
    shipped = rounded_copy(model)
    numbers = [key for key, value in next(iter(table.values())).items() if isinstance(value, float)]
    calibration = calibrate.held_out(shipped, data)
    a, b = float(calibration["a"]), float(calibration["b"])  # type: ignore[arg-type]
    calibration["judged_sets"] = calibrate.judged_error(scored, a, b)
    recipe = json.loads((run / "recipe.json").read_text())
    # Where the starting weights lay is this machine's affair.
    recipe["start"] = Path(recipe["start"]).name
    if recipe["blended"]:
        begun = Path(recipe["blended"]).with_name("recipe.json")
        recipe["blended"] = json.loads(begun.read_text())
    card = STATIC | {
        "recipe": recipe,
        "export_checks": {name: float(f"{value:.2g}") for name, value in export_checks.items()},
        "fusion": fusion,
        "measures": table,
        "means": {
            key: round(float(np.mean([row[key] for row in table.values()])), 4) for key in numbers
        },  # type: ignore[arg-type]
        "spearman_to_final": agreement(scored),
        "calibration": calibration,
        "probes": probes(shipped),
    }
    (out / "card.json").write_text(
        json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
