"""The one command: python -m training all --data ../shared/data --build build/embedded."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file

from . import altered, card, encoder, evaluate, export, mining, sources, train
from .model import HIDDEN, CrossEncoder
from .pairs import Mined

if TYPE_CHECKING:
    from collections.abc import Callable

# Queries, and as many passages, from which the exits' maps to the last layer are fitted.
BRIDGE_TEXTS = 3_000
STEPS = ("download", "prepare", "embed", "mine", "train", "blend", "measure", "package")


def download(options: argparse.Namespace) -> None:
    """Fetch the permissively licensed packages whose functions become code pairs."""
    target = options.build / "wheels"
    command = (
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(target),
        *sources.CODE_PACKAGES,
    )
    subprocess.run((sys.executable, "-m", "pip", *command), check=True)  # noqa: S603 fixed arguments


def prepare(options: argparse.Namespace) -> None:
    """Write queries.jsonl and passages.jsonl."""
    counts = sources.prepare(
        options.data / "train",
        options.build / "wheels",
        options.data / "ir",
        options.build / "data",
        seed=0,
    )
    counts |= altered.extend(options.build / "data")
    sys.stdout.write(json.dumps(counts) + "\n")


def _texts(options: argparse.Namespace, name: str, key: str) -> list[str]:
    with (options.build / "data" / f"{name}.jsonl").open(encoding="utf-8") as file:
        # Altered passages stand last; mined for other queries they would be neither right nor wrong.
        rows = [row for row in map(json.loads, file) if not row.get("altered") or name == "queries"]
    return [row[key] for row in rows]


def embed(options: argparse.Namespace) -> None:
    """Embed the queries and passages that have no vectors yet with the starting encoder."""
    for name, key, cap in (("passages", "text", 128), ("queries", "query", 64)):
        path = options.build / "data" / f"minilm-{name}.npy"
        known = np.load(path) if path.exists() else np.zeros((0, HIDDEN), np.float16)
        texts = _texts(options, name, key)[len(known) :]
        if texts:
            rows = encoder.embed(texts, max_tokens=cap, device=options.device)
            np.save(path, np.concatenate([known, rows]))
    rng = random.Random(0)
    chosen = [
        text
        for name, key in (("queries", "query"), ("passages", "text"))
        for text in rng.sample(_texts(options, name, key), BRIDGE_TEXTS)
    ]
    save_file(
        encoder.bridges(chosen, device=options.device), options.build / "data/bridges.safetensors"
    )


def mine(options: argparse.Namespace) -> None:
    """Write mined.npz: candidates and teacher signals of every query."""
    folder = options.build / "data"
    with (folder / "queries.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    mined = mining.mine(
        [row["query"] for row in rows],
        [row["positive"] for row in rows],
        _texts(options, "passages", "text"),
        (np.load(folder / "minilm-queries.npy"), np.load(folder / "minilm-passages.npy")),
        plan=mining.Plan(),
    )
    np.savez(folder / "mined.npz", **mined)


def _recipe(options: argparse.Namespace) -> train.Recipe:
    given = {
        key: getattr(options, key)
        for key in ("head", "start", "seed", "steps", "decay_from")
        if getattr(options, key) is not None
    }
    return train.Recipe(**given)


def train_model(options: argparse.Namespace) -> None:
    """Train, or go on from the run's last checkpoint."""
    _run(options, _recipe(options), options.name)


def blend(options: argparse.Namespace) -> None:
    """Write the run NAME-blend: between the start and the end of NAME, its exits trained anew."""
    ended = options.build / "runs" / options.name / "last.pt"
    recipe = replace(_recipe(options), blended=str(ended), share=options.share, **train.FOLLOW)
    _run(options, recipe, _blended(options.name))


def _blended(name: str) -> str:
    return f"{name}-blend"


def _run(options: argparse.Namespace, recipe: train.Recipe, name: str) -> None:
    watched = (
        evaluate.sample(options.data / "ir", queries=options.watch, depth=40)
        if options.watch
        else {}
    )
    train.run(
        Mined.read(options.build / "data", mining.Weights()),
        recipe,
        options.build / "runs" / name,
        device=options.device,
        bridges=options.build / "data" / "bridges.safetensors",
        evaluate=(lambda model, _: evaluate.quick(model, watched)) if watched else None,
        evaluate_every=options.evaluate_every,
        stop_at=options.stop_at,
    )


def load(folder: Path) -> CrossEncoder:
    """Return the averaged model of a run."""
    recipe = json.loads((folder / "recipe.json").read_text())
    model = CrossEncoder(recipe["head"])
    model.load_state_dict(
        torch.load(folder / "last.pt", map_location="cpu", weights_only=True)["average"]
    )
    return model


def measure(options: argparse.Namespace) -> None:
    """Score every judged set with fp32 and int8 weights and with the encoder; write scores.npz per set."""
    sets = evaluate.sample(options.data / "ir", queries=options.queries, depth=100)
    card.score_sets(
        load(options.build / "runs" / options.name),
        {
            name: queries
            for name, queries in sets.items()
            if not options.sets or name in options.sets
        },
        options.build / "scores" / options.name,
        device=options.device,
    )


def package(options: argparse.Namespace) -> None:
    """Write the shipped folder: model.onnx, tokenizer.json, card.json, manifest.json."""
    model = load(options.build / "runs" / options.name)
    checks = export.package(model, options.out, options.build / "export")
    card.write(
        model,
        scores=options.build / "scores" / options.name,
        sets=evaluate.sample(options.data / "ir", queries=options.queries, depth=100),
        data=options.build / "data",
        run=options.build / "runs" / options.name,
        out=options.out,
        export_checks=checks,
    )
    export.manifest(options.out)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "download": download, "prepare": prepare, "embed": embed, "mine": mine,
    "train": train_model, "blend": blend, "measure": measure, "package": package,
}  # fmt: skip


def main() -> None:
    """Read the command line and run one step, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("step", choices=(*STEPS, "all"))
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder with train/ and ir/"
    )
    parser.add_argument(
        "--build", type=Path, default=Path("build/embedded"), help="everything made on the way"
    )
    parser.add_argument("--out", type=Path, default=Path("rerank_plugins/models/embedded"))
    parser.add_argument("--name", default="final", help="name of the run under BUILD/runs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--head", choices=("rows", "mixed", "cls"), default=None)
    parser.add_argument(
        "--begin-from",
        dest="start",
        default=None,
        help="weights-fp16.safetensors of embedded-v0 to start from",
    )
    parser.add_argument(
        "--share", type=float, default=0.5, help="blend: how far from a run's start to its end"
    )
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument(
        "--decay-from", type=int, default=None, help="the rate falls from this step to the last"
    )
    parser.add_argument(
        "--stop-at", type=int, default=None, help="pause after this step; resumable"
    )
    parser.add_argument(
        "--watch", type=int, default=8, help="queries per judged set measured while training"
    )
    parser.add_argument("--evaluate-every", type=int, default=500)
    parser.add_argument(
        "--queries", type=int, default=1_000, help="queries per judged set when measuring"
    )
    parser.add_argument(
        "--sets", nargs="*", default=(), help="judged sets to measure; all without it"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    for step in STEPS if options.step == "all" else (options.step,):
        COMMANDS[step](options)
        if step == "blend":
            options.name = _blended(options.name)


if __name__ == "__main__":
    main()
