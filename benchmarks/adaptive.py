"""What adaptive work saves, what it loses, and whether budgets are kept.

python benchmarks/adaptive.py [--quick], with the extras `eval` and `export` (for the random model
of twelve layers; left out where torch is missing). Writes adaptive.json and adaptive.md into
benchmarks/results and the plots into docs/measured. On two idle cores it takes about half
an hour, quick about 4 minutes.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import clocked
import curves
import judged
import machine
import numpy as np
import onnx
import replayed
from cascades import cascades
from clocked import Kept, Paired
from judged import Asked
from replayed import Measured, Replay

from rerank_plugins import Reranker, Stage, load
from rerank_plugins.adaptive.exits import tradeoff
from rerank_plugins.adaptive.exits.calibrate import CalibrationOptions
from rerank_plugins.adaptive.exits.collect import observe
from rerank_plugins.config.build import card_calibration, card_prior_weight
from rerank_plugins.core.setup import Setup
from rerank_plugins.errors import ConfigError
from rerank_plugins.rules.keep import MarginKeep
from rerank_plugins.scoring.exits import calibration_file, segmented_model
from rerank_plugins.scoring.exits.calibration_file import Limits
from rerank_plugins.scoring.exits.heads import Head, Probe, from_card
from rerank_plugins.scoring.exits.scorer import exit_scorers, segment_costs
from rerank_plugins.scoring.exits.segmented_model import SegmentedModel
from rerank_plugins.scoring.models.files import EMBEDDED, ModelFiles, find
from rerank_plugins.scoring.onnx.graph.rewrite import rewrite
from rerank_plugins.scoring.onnx.options import OnnxOptions
from rerank_plugins.scoring.onnx.scorer import OnnxScorer

ROOT = Path(__file__).parent.parent
CLOCK_SET = "trec-dl19"
# The loss that exits under a budget are certified for, or the least that can be.
ALPHAS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)


def main() -> None:
    """Run everything and write what came out."""
    how = _arguments()
    started = time.monotonic()
    files = find(how.model)
    options = OnnxOptions(max_tokens=how.max_tokens, long="truncate")
    made = SegmentedModel(files, from_card(files.card), options)
    one, first = replay(made, how, started)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        calibration_file.save(one.done.exits, folder / "exits")
        queries = judged.asked(how.data, CLOCK_SET, made, sample=1000)
        clock = {
            "the model": pairs(one, first, how, folder / "whole"),
            "MiniLM-L12, random weights": mechanics(
                folder / "L12", options, queries[: 1 if how.quick else 2], started
            ),
        }
        say(started, "paired requests timed")
        kept = budgets(one, folder / "exits", how, queries, started)
    rows, found = replayed.table(one, first), cascades(first)
    splits = replayed.splits(one)
    say(started, "replayed")
    draw(one, rows, found, kept, model=named(files), folder=how.plots)
    facts = {
        "model": files.name,
        "graph_sha256": one.done.exits.subject.graph_sha256,
        "machine": machine.describe(sys.executable),
        "quick": how.quick,
        "max_tokens": how.max_tokens,
        "queries": {"calibrated on": how.calibrated, "measured on": len(one.asked)},
        "held out for certifying": len(one.done.cases),
        "segment_share": [cost / sum(one.costs) for cost in one.costs],
        "ndcg on the measured": {"first stage": one.first_stage, "whole model": one.whole},
        "ndcg by set": one.sets,
        "minutes": (time.monotonic() - started) / 60.0,
    }
    tables = {
        "replayed": rows,
        **{f"clock: {name}": found_rows for name, found_rows in clock.items()},
        "budgets": kept,
    }
    write(how.out, facts, tables, splits, found)
    say(started, f"written to {how.out} and {how.plots}")


def replay(made: SegmentedModel, how: argparse.Namespace, started: float) -> tuple[Replay, Replay]:
    """Score the queries in full, calibrate on half of them: all exits, and the first one alone."""
    sample = min(8, how.sample) if how.quick else how.sample
    most = {judged.CALIBRATION: 24 if how.quick else 1000}
    queries = [
        query
        for name in judged.collections(how.data)
        for query in judged.asked(how.data, name, made, sample=most.get(name, sample))
    ]
    card = made.files.card
    plan = CalibrationOptions(
        prior_weight=card_prior_weight(card), probability=card_calibration(card)
    )
    done = 0

    def progress() -> None:
        nonlocal done
        done += 1
        if done % 25 == 0:
            say(started, f"scored {done} of {len(queries)} queries in full")

    costs = segment_costs(made)
    seen = observe(made, [one.question for one in queries], progress=progress)
    one = replayed.run(made, queries, seen, plan, costs)
    alone = SegmentedModel(made.files, made.heads[:1], made.options)
    at_first = [replace(saw, first=saw.first[:1], own=saw.own[:1]) for saw in seen]
    first = replayed.run(alone, queries, at_first, plan, (costs[0], sum(costs[1:])))
    how.calibrated = len(queries) - len(one.asked)
    say(started, "calibrated")
    return one, first


def pairs(one: Replay, first: Replay, how: argparse.Namespace, folder: Path) -> list[Paired]:
    """Time the whole model beside its exits, with everyone kept and as they were certified."""
    layers = [fitted.head.layer for fitted in one.done.fitted]
    cut = {"max_tokens": how.max_tokens, "long": "truncate"}
    with_heads = {**cut, "scorer": str(with_every_head(find(how.model), folder)), "rewrite": False}
    ways: dict[str, Mapping[str, object]] = {
        "whole model": {"stages": [{**cut, "scorer": how.model}]},
        "whole model, its exits' heads computed too": {"stages": [with_heads]},
        "exits, everyone kept": {"stages": [{**cut, "scorer": how.model, "exits": layers}]},
    }
    opened = {way: partial(load, settings) for way, settings in ways.items()}
    for exits_of, name in ((one, "exits"), (first, "first exit > whole")):
        for method, alpha in (("crc", 0.02), ("ucb", 0.03)):
            certain = replayed.certified(exits_of, method, alpha)
            if certain is not None:
                way = f"{name}, {method} {alpha:g}"
                opened[way] = partial(_margined, exits_of, how, certain)
    return clocked.paired(opened, one.asked[:: 16 if how.quick else 4])


def with_every_head(files: ModelFiles, folder: Path) -> Path:
    """Write a model whose graph, rewritten as for running it whole, gives every exit's score."""
    model = onnx.load(str(files.graph))
    rewrite(model, [one.name for one in model.graph.output])
    folder.mkdir()
    onnx.save(model, str(folder / "model.onnx"))
    shutil.copy(files.tokenizer, folder)
    (folder / "card.json").write_text(json.dumps(dict(files.card)), encoding="utf-8")
    return folder


def mechanics(
    folder: Path, options: OnnxOptions, queries: Sequence[Asked], started: float
) -> list[Paired]:
    """Time a model of twelve layers whole, and cut into thirds with everyone kept."""
    try:
        import checkpoint
    except ImportError:
        say(started, "no torch here: the model of twelve layers is left out")
        return []
    checkpoint.make("MiniLM-L12", folder)
    files = find(str(folder))
    names = segmented_model.layers(files)
    width = checkpoint.GEOMETRIES["MiniLM-L12"][1]
    probe = Probe(np.zeros(width, np.float32), previous=0.0, log_rank=0.0, bias=0.0)
    heads = [Head(layer, names[layer], "probe", probe=probe) for layer in (4, 8)]

    def whole() -> Reranker:
        return Reranker(Setup((Stage(OnnxScorer(files, options)),), workers=1))

    def segmented() -> Reranker:
        stages = tuple(
            Stage(scorer) for scorer in exit_scorers(SegmentedModel(files, heads, options))
        )
        return Reranker(Setup(stages, workers=1))

    return clocked.paired({"whole model": whole, "exits, everyone kept": segmented}, queries)


def budgets(
    one: Replay, folder: Path, how: argparse.Namespace, queries: Sequence[Asked], started: float
) -> list[Kept]:
    """Ask within budgets: the whole model on the first that fit, and the calibrated exits."""
    # Passages seen before would be read for nothing, which new ones are not.
    stage = {
        "scorer": how.model,
        "max_tokens": how.max_tokens,
        "long": "truncate",
        "token_cache_bytes": 0,
    }
    exiting = {**stage, "exits": str(folder), "exit_method": "crc", "keep": {"risk": _least(one)}}
    sets = {100: queries, 200: clocked.doubled(how.data, queries)}
    both = {"first k that fit, whole model": stage, "calibrated exits": exiting}
    return clocked.budgets(
        {way: partial(load, {"stages": [one_stage]}) for way, one_stage in both.items()},
        sets,
        requests=12 if how.quick else how.requests,
        progress=lambda text: say(started, text),
    )


def draw(
    one: Replay,
    rows: Sequence[Measured],
    found: Sequence[Measured],
    kept: Sequence[Kept],
    *,
    model: str,
    folder: Path,
) -> None:
    """Draw the plots of the documentation; each names the model and the queries."""
    folder.mkdir(parents=True, exist_ok=True)
    alpha = _least(one)
    limits, _ = one.done.exits.choose(alpha, method="crc")
    gained = tradeoff.gain(one.done, one.costs, one.how, limits=limits)
    asked = f"queries of {len({query.collection for query in one.asked})} sets, BM25's first 100"
    title = f"{model}, {len(one.done.cases)} held-out {asked}"
    tradeoff.draw(gained, folder / "early-exit.svg", loss=one.how.loss, alpha=alpha, title=title)
    title = f"{model}, {len(one.cases)} {asked}"
    points = [*rows, *replayed.curve(one)]
    curves.cascades(one, points, found, folder / "cascades.svg", title)
    curves.top_k(one, folder / "top-k.svg", title)
    lines = {name: value for name, value in one.sets[CLOCK_SET].items() if name != "queries"}
    title = f"{model}, TREC DL 2019, BM25's first 100"
    curves.budgets(kept, lines, folder / "budgets.svg", title)


def named(files: ModelFiles) -> str:
    """Return a model's name and version for a plot's title."""
    version = files.card.get("version")
    name = f"{files.name} model" if files.name == EMBEDDED else files.name
    return f"{name} {version}" if version else name


def write(
    folder: Path,
    facts: Mapping[str, object],
    tables: Mapping[str, Sequence[Measured | Paired | Kept]],
    splits: Sequence[Mapping[str, object]],
    cascades: Sequence[Measured],
) -> None:
    """Write everything as JSON, and what a person reads as Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {
        "facts": facts,
        **{name: [asdict(row) for row in rows] for name, rows in tables.items()},
        "splits": list(splits),
        "cascades": [asdict(row) for row in cascades],
    }
    text = json.dumps(whole, indent=1) + "\n"
    (folder / "adaptive.json").write_text(text, encoding="utf-8")
    parts = ["# Adaptive work", "", *(f"* {name}: {value}" for name, value in facts.items()), ""]
    for name, rows in tables.items():
        if rows:
            names = [field.name for field in fields(rows[0])]
            parts += [f"## {name}", "", *_markdown(names, [asdict(row) for row in rows]), ""]
    parts += [f"## {replayed.SPLITS} random splits", "", *_markdown(list(splits[0]), splits), ""]
    (folder / "adaptive.md").write_text("\n".join(parts), encoding="utf-8")


def say(started: float, text: str) -> None:
    """Print the progress."""
    print(f"{time.monotonic() - started:6.0f} s  {text}", file=sys.stderr, flush=True)


def _least(one: Replay) -> float:
    """Return the least loss that exits can be certified for."""
    for alpha in ALPHAS:
        try:
            one.done.exits.choose(alpha, method="crc")
        except ConfigError:
            continue
        return alpha
    return 1.0


def _margined(one: Replay, how: argparse.Namespace, limits: Limits) -> Reranker:
    files = find(how.model)
    heads = [fitted.head for fitted in one.done.fitted]
    scorers = exit_scorers(
        SegmentedModel(files, heads, OnnxOptions(max_tokens=how.max_tokens, long="truncate"))
    )
    keeps = [*(MarginKeep(m, one.how.top_k, min=one.how.top_k) for m in limits.margins), None]
    first, *rest = (Stage(s, keep) for s, keep in zip(scorers, keeps, strict=True))
    stages = (replace(first, enter=limits.depth), *rest)
    return Reranker(Setup(stages, prior_weight=one.how.prior_weight))


def _markdown(names: Sequence[str], rows: Sequence[Mapping[str, object]]) -> list[str]:
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for row in rows:
        cells = [f"{row[n]:.4g}" if isinstance(row[n], float) else str(row[n]) for n in names]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "ir")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "measured")
    parser.add_argument("--sample", type=int, default=120, help="queries of each set")
    parser.add_argument(
        "--requests",
        type=int,
        default=100,
        help="per cell of the budget table; half as many of a lone caller",
    )
    parser.add_argument(
        "--max-tokens", type=int, default=160, help="tokens a pair; what is over is cut"
    )
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
