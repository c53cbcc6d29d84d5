"""Requests through every mode of the package, for behaviour to be compared across a refactoring.

`python -m tests.frozen.requests OUT.json` asks them all and writes what came of each;
`--calibrate` makes the calibrated exits beside this file anew.
"""

import asyncio
import contextlib
import io
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank_plugins import Budget, Candidate, Policy, Request, Reranker, RerankError, Stage, load
from rerank_plugins.cli import main as command_line
from rerank_plugins.testing import FakeRerankServer, Fault
from tests import layered

from . import frameworks, served
from .material import (
    EXITS,
    QUERIES,
    Clock,
    Paced,
    Row,
    Wrong,
    bare,
    clocked,
    failed,
    found,
    labelled,
    long_passages,
    odd,
    recorded,
    said,
    scorer_of,
    settle,
)

# Batches of one size, whatever was measured at warm-up: padding moves the last digits of scores.
_FIXED = {"scorer": "embedded", "max_batch_tokens": 512}
_WORKERS = {"workers": 2}
_KEY = "FROZEN_KEY"
_CLOSE = 1e-4
# Providers the fake server speaks as, with what each needs besides.
PROVIDERS: Mapping[str, Mapping[str, object]] = {
    "cohere": {},
    "cohere-v1": {},
    "azure": {},
    "azure-v1": {},
    "jina": {},
    "voyage": {},
    "mixedbread": {},
    "zeroentropy": {},
    "pinecone": {},
    "bedrock": {"location": "eu-central-1", "model": "cohere.rerank-v3-5:0"},
    "bedrock-invoke": {"location": "eu-central-1", "model": "cohere.rerank-v3-5:0"},
    "google": {"project": "p", "location": "eu"},
    "nvidia": {},
    "tei": {"model": ""},
    "vllm": {},
    "vllm-score": {},
    "infinity": {},
    "llama.cpp": {},
    "compatible": {},
}
# Faults whose outcome is a matter of time, or that take long.
_LEFT_OUT = frozenset({Fault.RETRY_AFTER_LONG, Fault.HUGE, Fault.DRIP, Fault.RESET, Fault.REDIRECT})


class Asked:
    """Collects what requests gave, by name."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def put(self, name: str, row: Row) -> None:
        """Keep what a request gave."""
        if name in self.rows:
            raise ValueError(f"two requests are called {name!r}; expected one")
        self.rows[name] = row

    def ask(
        self,
        name: str,
        reranker: Reranker,
        query: str,
        passages: Sequence[Any],
        *,
        timed: bool = False,
        **how: Any,
    ) -> None:
        """Ask a reranker and keep its result, or its error; `timed` where its clock is fake."""
        try:
            self.put(name, recorded(reranker.rerank(query, passages, **how), clocked=timed))
        except RerankError as error:
            self.put(name, failed(error))

    def with_settings(
        self,
        name: str,
        settings: Mapping[str, object],
        passages: Sequence[Any],
        query: str = QUERIES[0],
        **how: Any,
    ) -> None:
        """Ask a reranker of its own."""
        try:
            reranker = load({"service": _WORKERS, **settings})
        except RerankError as error:
            self.put(name, failed(error))
            return
        with reranker:
            self.ask(name, reranker, query, passages, **how)


def stages(*given: Mapping[str, object], **tables: object) -> dict[str, object]:
    """Lay out settings; a stage without a scorer is the embedded model."""
    laid = [dict(one) if "scorer" in one else {**_FIXED, **one} for one in given or ({},)]
    return {"stages": laid, **tables}


LEXICAL: Mapping[str, object] = {"scorer": "lexical"}


# Plain requests.


def plain(asked: Asked) -> None:
    """Ask the embedded model: with priors, without, and with what is no proper passage."""
    with load(stages(service=_WORKERS)) as reranker:
        for place, query in enumerate(QUERIES):
            asked.ask(f"plain/card/{place}", reranker, query, found(query))
            asked.ask(f"plain/bare/{place}", reranker, query, bare(found(query)))
        some = found(QUERIES[1])
        gaps = [
            Candidate(one.text, None if i in {2, 7} else one.prior) for i, one in enumerate(some)
        ]
        asked.ask("plain/odd", reranker, QUERIES[1], odd())
        asked.ask("plain/odd bare", reranker, QUERIES[1], bare(odd()))
        asked.ask("plain/gaps in priors", reranker, QUERIES[1], gaps)
        asked.ask("plain/nothing", reranker, QUERIES[1], [])
        asked.ask("plain/all blank", reranker, QUERIES[1], ["", None, " "])
        asked.ask("plain/one", reranker, QUERIES[1], some[:1])
        asked.ask("plain/top_k", reranker, QUERIES[1], some, top_k=3)
        asked.ask("plain/top_k over all", reranker, QUERIES[1], some, top_k=99)
        asked.ask("plain/much time", reranker, QUERIES[1], some, budget_ms=120_000)
        asked.ask("plain/strict", reranker, QUERIES[1], some, strict=True)
        asked.ask("plain/reversed", reranker, QUERIES[1], some[::-1])
        _ways(asked, reranker, some)
        _mistakes(asked, reranker)


def _ways(asked: Asked, reranker: Reranker, some: Sequence[Candidate]) -> None:
    request = Request(QUERIES[1], tuple(some), top_k=4, budget=Budget(120.0), strict=False)
    asked.put("plain/submit", recorded(reranker.submit(request).result()))
    awaited = asyncio.run(reranker.arerank(QUERIES[1], some, top_k=4))
    asked.put("plain/awaited", recorded(awaited))
    asked.put("plain/model", {"model": reranker.model, "ready": reranker.ready})


def _mistakes(asked: Asked, reranker: Reranker) -> None:
    wrong: Mapping[str, tuple[Any, Any, Mapping[str, Any]]] = {
        "blank query": (" ", ["a"], {}),
        "no text for a query": (3, ["a"], {}),
        "prior": ("a", [Candidate("a", float("nan"))], {}),
        "one text": ("a", "a passage", {}),
        "top_k": ("a", ["a"], {"top_k": 0}),
        "budget": ("a", ["a"], {"budget_ms": -1.0}),
    }
    for name, (query, passages, how) in wrong.items():
        asked.ask(f"mistakes/{name}", reranker, query, passages, **how)


def fusions(asked: Asked) -> None:
    """Give the first stage a say, or none."""
    ways: Mapping[str, Mapping[str, object]] = {
        "weight 0": {"prior_weight": 0.0},
        "weight 0.3": {"prior_weight": 0.3},
        "weight 1": {"prior_weight": 1.0},
        "ranks": {"method": "reciprocal_ranks"},
        "ranks and weight": {"method": "reciprocal_ranks", "prior_weight": 0.4},
    }
    for name, fusion in ways.items():
        with load(stages(fusion=fusion, service=_WORKERS)) as reranker:
            query = QUERIES[2]
            asked.ask(f"fusion/{name}", reranker, query, found(query))
            asked.ask(f"fusion/{name}/bare", reranker, query, bare(found(query)))
            asked.ask(f"fusion/{name}/odd", reranker, query, odd())


def selections(asked: Asked) -> None:
    """Bound what is scored and what is returned."""
    rules: Mapping[str, Mapping[str, object]] = {
        "depth": {"depth": 5},
        "depth count": {"depth": {"count": 5}, "top_k": 3},
        "depth mass": {"depth": {"mass": 0.8}},
        "depth default mass": {"depth": {"min": 3, "max": 9}},
        "depth mass cold": {"depth": {"mass": 0.7, "temperature": 0.3, "min": 2, "max": 8}},
        "skip": {"skip": {"mass": 0.2, "temperature": 0.3}},
        "skip unlikely": {"skip": {"mass": 0.99}},
        "cut": {"cut": 4},
        "cut probability": {"cut": {"probability": 0.3}},
        "cut probability min": {"cut": {"probability": 0.9, "min": 2, "max": 5}},
        "cut gap": {"cut": {"gap": True}},
        "cut gap buffer": {"cut": {"gap": True, "buffer": 1, "min": 2, "max": 7}},
        "cut and top_k": {"cut": {"gap": True, "buffer": 2}, "top_k": 2},
        "depth and cut": {"depth": 6, "cut": {"gap": True}},
    }
    for name, selection in rules.items():
        with load(stages(selection=selection, service=_WORKERS)) as reranker:
            asked.ask(f"selection/{name}", reranker, QUERIES[3], found(QUERIES[3], 10))
            asked.ask(f"selection/{name}/bare", reranker, QUERIES[3], bare(found(QUERIES[3], 6)))


def options(asked: Asked) -> None:
    """Run the model in other ways."""
    ways: Mapping[str, Mapping[str, object]] = {
        "fp32": {"precision": "fp32"},
        "unwritten": {"rewrite": False, "graph_cache": False},
        "threads": {"intra_threads": 2},
        "no token cache": {"token_cache_bytes": 0},
        "small batches": {"max_batch_tokens": 64},
        "calibration": {"calibration": [2.0, -1.0]},
        "local files": {"local_files_only": True, "provider": "cpu"},
    }
    for name, way in ways.items():
        asked.with_settings(f"options/{name}", stages(way), found(QUERIES[4], 8), QUERIES[4])
    with load(stages({"score_cache_bytes": 2**20}, service=_WORKERS)) as reranker:
        for turn in range(2):
            some = found(QUERIES[4], 6 + 4 * turn)
            asked.ask(f"options/score cache/{turn}", reranker, QUERIES[4], some)
    quiet = {"enabled": False, "content": False, "max_documents": 1, "max_chars": 9, "slow_ms": 1e9}
    asked.with_settings("options/telemetry", stages(telemetry=quiet), found(QUERIES[4], 4))
    with Reranker(prior_weight=0.5, depth=6, top_k=4, workers=1, max_tokens=96) as reranker:
        asked.ask("options/arguments", reranker, QUERIES[4], found(QUERIES[4]))
    with Reranker("lexical", budget_ms=120_000, strict=True) as reranker:
        for place, query in enumerate(QUERIES[:3]):
            asked.ask(f"options/lexical/{place}", reranker, query, found(query))
        asked.ask("options/lexical/odd", reranker, QUERIES[1], odd())


def windows(asked: Asked) -> None:
    """Read long passages in windows, in part, or not at all."""
    ways: Mapping[str, Mapping[str, object]] = {
        "default": {},
        "max": {"max_tokens": 96, "fold": "max"},
        "first": {"max_tokens": 96, "fold": "first"},
        "log_mean_exp": {"max_tokens": 96, "fold": "log_mean_exp"},
        "truncate": {"max_tokens": 96, "long": "truncate"},
        "error": {"max_tokens": 96, "long": "error"},
        "overlap 0": {"max_tokens": 64, "window_overlap": 0.0},
        "overlap 0.8": {"max_tokens": 64, "window_overlap": 0.8, "max_windows": 20},
        "two windows": {"max_tokens": 96, "max_windows": 2},
        "small windows": {"max_tokens": 96, "window_tokens": 40},
        "small windows, mean": {"window_tokens": 64, "fold": "log_mean_exp", "max_windows": 6},
    }
    for name, way in ways.items():
        with load(stages(way, service=_WORKERS)) as reranker:
            asked.ask(f"windows/{name}", reranker, QUERIES[0], long_passages())
            if name in {"error", "truncate"}:
                strictly: dict[str, Any] = {"strict": True}
                asked.ask(
                    f"windows/{name}/strict", reranker, QUERIES[0], long_passages(), **strictly
                )


# Stages.


def exits(asked: Asked) -> None:
    """Stop at the model's own layers, uncalibrated."""
    ways: Mapping[str, Mapping[str, object]] = {
        "2": {"exits": [2]},
        "4": {"exits": [4], "exit_keep": 5},
        "2 4": {"exits": [2, 4]},
        "2 4 share bounded": {"exits": [2, 4], "exit_keep": {"share": 0.1, "min": 4, "max": 6}},
        "2 4 margin": {"exits": [2, 4], "exit_keep": {"margin": 0.5, "top_k": 3}},
        "2 4 probability": {"exits": [2, 4], "exit_keep": {"probability": 0.3, "min": 2}},
        "2 4 windows": {"exits": [2, 4], "exit_keep": 4, "max_tokens": 96},
    }
    for name, way in ways.items():
        with load(stages(way, service=_WORKERS)) as reranker:
            some = long_passages() if "max_tokens" in way else found(QUERIES[5])
            asked.ask(f"exits/{name}", reranker, QUERIES[5], some)
            asked.ask(f"exits/{name}/bare", reranker, QUERIES[5], bare(some), top_k=5)
    asked.with_settings(
        "exits/fused by ranks",
        stages({"exits": [2, 4], "exit_keep": 5}, fusion={"method": "reciprocal_ranks"}),
        found(QUERIES[5]),
    )


def calibrated(asked: Asked) -> None:
    """Stop at exits that were calibrated."""
    ways: Mapping[str, Mapping[str, object]] = {
        "0.1": {"keep": {"risk": 0.1}},
        "0.2": {"keep": {"risk": 0.2}},
        "0.2 crc": {"keep": {"risk": 0.2}, "exit_method": "crc"},
        "0.2 ltt": {"keep": {"risk": 0.2}, "exit_method": "ltt", "exit_delta": 0.2},
        "impossible": {"keep": {"risk": 0.0001}},
        "default": {},
        "other tokens": {"keep": {"risk": 0.2}, "max_tokens": 96},
    }
    for name, way in ways.items():
        _calibrated(asked, f"calibrated/{name}", stages({"exits": str(EXITS), **way}))
    stage = {"exits": str(EXITS), "keep": {"risk": 0.2}}
    tables: Mapping[str, Mapping[str, object]] = {
        "depth": {"selection": {"depth": {"risk": 0.2, "min": 3}}},
        "audit off": {"exit_audit": {"share": 1.0, "adjust": "off"}},
        "audit": {"exit_audit": {"share": 1.0, "adjust": "tighten"}},
        "weight": {"fusion": {"prior_weight": 0.9}},
    }
    for name, given in tables.items():
        laid = stages(stage, **given)
        asked.with_settings(f"calibrated/{name}", laid, found(QUERIES[2], 20), QUERIES[2])


def _calibrated(asked: Asked, name: str, settings: Mapping[str, object]) -> None:
    try:
        reranker = load({"service": _WORKERS, **settings})
    except RerankError as error:
        asked.put(name, failed(error))
        return
    with reranker:
        for place, query in enumerate(QUERIES[:3]):
            asked.ask(f"{name}/{place}", reranker, query, found(query, 20))
        asked.ask(f"{name}/bare", reranker, QUERIES[2], bare(found(QUERIES[2], 20)))
        asked.ask(f"{name}/time", reranker, QUERIES[2], found(QUERIES[2], 20), budget_ms=120_000)


def calibrating(asked: Asked) -> None:
    """Calibrate anew; what depends on speed is left out."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "exits"
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            model = str(layered.build(Path(folder) / "model", 4, (2,)))
            code = calibrate(out, Path(folder) / "data", count=50, candidates=6, model=model)
        facts = json.loads(shown.getvalue())["facts"]
        kept = {name: facts[name] for name in ("queries", "candidates") if name in facts}
        asked.put("calibrating/facts", {"code": code, "facts": kept, "keys": sorted(facts)})
        written = sorted(one.name for one in out.iterdir())
        asked.put("calibrating/files", {"files": written})


def calibrate(
    out: Path, data: Path, *, count: int, candidates: int, model: str = "embedded"
) -> int:
    """Calibrate exits of a model on short passages of the demo's."""
    (data / "rerank").mkdir(parents=True)
    (data / "rerank/bm25.jsonl").write_text("\n".join(_questions(count, candidates)) + "\n")
    command = ["calibrate", "--dataset", str(data), "--out", str(out), "--alpha", "0.2"]
    return _run(*command, "--model", model, "--top-k", "3", "--json")


def _questions(count: int, candidates: int) -> Iterator[str]:
    for place in range(count):
        query = f"{QUERIES[place % len(QUERIES)]} {place}"
        some = found(query, candidates, skip=place % 40, chars=90)
        rows = [
            {"docid": f"d{place}x{i}", "text": one.text, "rank": i + 1, "score": one.prior}
            for i, one in enumerate(some)
        ]
        yield json.dumps({"qid": f"q{place}", "query": query, "candidates": rows})


def _run(*command: str) -> int:
    try:
        return int(command_line(list(command)) or 0)
    except SystemExit as end:
        return int(end.code or 0)


def cascades(asked: Asked) -> None:
    """Run stages one behind the other, with every rule between them."""
    keeps: Mapping[str, object] = {
        "4": 4,
        "count": {"count": 4},
        "share": {"share": 0.4},
        "share bounded": {"share": 0.9, "min": 2, "max": 5},
        "margin": {"margin": 0.8, "top_k": 3},
        "margin bounded": {"margin": 9.0, "top_k": 2, "max": 6},
    }
    for name, keep in keeps.items():
        first = {"scorer": "lexical", "keep": keep}
        asked.with_settings(f"cascade/lexical {name}", stages(first, {}), found(QUERIES[1]))
        asked.with_settings(f"cascade/lexical {name}/bare", stages(first, {}), bare(odd()))
    probable = {"keep": {"probability": 0.4}}
    at_least = {"scorer": "lexical", "calibration": [1.0, -2.0], "keep": {"probability": 0.6}}
    more: Mapping[str, dict[str, object]] = {
        "probability": stages(probable, LEXICAL),
        "probability of words": stages(at_least, {}),
        "three": stages({"scorer": "lexical", "keep": 8}, {"exits": [2], "exit_keep": 4}, LEXICAL),
        "exits behind words": stages({"scorer": "lexical", "keep": 8}, {"exits": [2, 4]}),
        "keep behind the last": stages({"keep": 2}),
        "weight": stages({"scorer": "lexical", "keep": 5}, {}, fusion={"prior_weight": 0.6}),
        "ranks": stages(
            {"scorer": "lexical", "keep": 5}, {}, fusion={"method": "reciprocal_ranks"}
        ),
        "depth": stages({"scorer": "lexical", "keep": 5}, {}, selection={"depth": 7, "top_k": 6}),
        "cut": stages({"scorer": "lexical", "keep": 5}, {}, selection={"cut": {"gap": True}}),
        "calibrated behind words": stages(
            {"scorer": "lexical", "keep": 9}, {"exits": str(EXITS), "keep": {"risk": 0.2}}
        ),
    }
    for name, settings in more.items():
        asked.with_settings(f"cascade/{name}", settings, found(QUERIES[1], 14), QUERIES[1])


# Time.


def budgets(asked: Asked) -> None:
    """Plan requests for a fake clock, over scorers with fixed prices."""
    pairs: Mapping[str, tuple[Sequence[tuple[float, int | None, float]], float]] = {
        "one": ([(0.0103, None, 1.0)], 101.3),
        "one, ample": ([(0.0103, None, 1.0)], 1013.0),
        "one, hardly": ([(0.0103, None, 1.0)], 9.7),
        "one, slower": ([(0.0103, None, 2.3)], 101.3),
        "one, much slower": ([(0.0103, None, 40.0)], 101.3),
        "one, quicker": ([(0.0103, None, 0.5)], 101.3),
        "free": ([(0.0, None, 1.0)], 10.0),
        "two": ([(0.0011, None, 1.0), (0.0107, None, 1.0)], 151.7),
        "two keep": ([(0.0011, 6, 1.0), (0.0107, None, 1.0)], 101.7),
        "two, tight": ([(0.0011, 20, 1.0), (0.0107, None, 1.0)], 31.7),
        "two, slower": ([(0.0011, 20, 1.0), (0.0107, None, 3.0)], 151.7),
        "three": ([(0.0003, 20, 1.0), (0.0021, 9, 1.0), (0.0107, None, 1.0)], 91.3),
    }
    for name, (laid, budget_ms) in pairs.items():
        for workers in (1, 2):
            clock = Clock()
            made = [
                Stage(Paced(clock, price_s, f"paced{place}", slower=slower), keep=keep)
                for place, (price_s, keep, slower) in enumerate(laid)
            ]
            with Reranker(stages=made, clock=clock, workers=workers) as reranker:
                for turn in range(2):
                    asked.ask(
                        f"budgets/{name}/{workers} workers/{turn}",
                        reranker,
                        QUERIES[turn],
                        found(QUERIES[turn], 24),
                        budget_ms=budget_ms,
                        timed=True,
                    )
    _strict_budgets(asked)
    _more_budgets(asked)


def _strict_budgets(asked: Asked) -> None:
    for name, slower in (("in time", 1.0), ("late", 9.0)):
        clock = Clock()
        made = [Stage(Paced(clock, 0.0103, slower=slower))]
        with Reranker(stages=made, clock=clock, workers=1, strict=True) as reranker:
            asked.ask(
                f"budgets/strict/{name}",
                reranker,
                QUERIES[0],
                found(QUERIES[0], 9),
                budget_ms=101.3,
                timed=True,
            )
            asked.ask(
                f"budgets/strict/{name}/not strict",
                reranker,
                QUERIES[0],
                found(QUERIES[0], 9),
                budget_ms=101.3,
                strict=False,
                timed=True,
            )


def _more_budgets(asked: Asked) -> None:
    """Give budgets by the constructor, with fusion, and beside blanks."""
    clock = Clock()
    how: dict[str, Any] = {"clock": clock, "workers": 1, "budget_ms": 63.1, "prior_weight": 0.4}
    with Reranker(stages=[Stage(Paced(clock, 0.0103))], depth=7, top_k=5, **how) as reranker:
        asked.ask("budgets/arguments", reranker, QUERIES[2], found(QUERIES[2], 20), timed=True)
        asked.ask("budgets/arguments/odd", reranker, QUERIES[2], odd(), timed=True)
        for turn in range(4):
            name = f"budgets/learning/{turn}"
            asked.ask(name, reranker, QUERIES[turn], found(QUERIES[turn], 20), timed=True)
    for profile in ("search-as-you-type", "interactive-chat", "agent-step", "report"):
        settings = stages(LEXICAL, budget={"profile": profile})
        with clocked(settings, Clock()) as reranker:
            asked.ask(f"budgets/profile/{profile}", reranker, QUERIES[0], found(QUERIES[0]))
    with clocked(stages(LEXICAL, budget={"time_ms": 500}), Clock()) as reranker:
        asked.ask("budgets/settings", reranker, QUERIES[0], found(QUERIES[0]))


def unready(asked: Asked) -> None:
    """Ask models that are cold, cannot be had, or answer nonsense."""
    service = {"when_cold": "pass_through", **_WORKERS}
    with load(stages(service=service, selection={"cut": {"gap": True}})) as reranker:
        asked.ask("cold/pass_through", reranker, QUERIES[0], found(QUERIES[0]))
        reranker.warm_up()
        asked.ask("cold/warm", reranker, QUERIES[0], found(QUERIES[0]))
    with load(stages(service=service)) as reranker:
        asked.ask("cold/strict waits", reranker, QUERIES[0], found(QUERIES[0], 4), strict=True)
    nowhere = {"scorer": "/nowhere", "local_files_only": True}
    asked.with_settings("missing/alone", stages(nowhere), found(QUERIES[0]))
    words = {"scorer": "lexical", "when": "fallback"}
    asked.with_settings("missing/helped", stages(nowhere, words), found(QUERIES[0]))
    asked.with_settings("missing/strict", stages(nowhere, words), found(QUERIES[0]), strict=True)
    for name in ("nan", "short"):
        wrong = Wrong(Clock(), 0.0, name)
        with Reranker(stages=[Stage(wrong)]) as reranker:
            asked.ask(f"wrong/{name}", reranker, QUERIES[0], found(QUERIES[0]))
            asked.ask(f"wrong/{name}/strict", reranker, QUERIES[0], found(QUERIES[0]), strict=True)
        behind = [Stage(wrong, keep=3), Stage(Paced(Clock(), 0.0), when="fallback")]
        with Reranker(stages=behind) as reranker:
            asked.ask(f"wrong/{name}/helped", reranker, QUERIES[0], found(QUERIES[0]))


# Remote.


def remote(server: FakeRerankServer, provider: str = "tei", **more: object) -> dict[str, object]:
    """Lay out a scorer that leads to the fake server."""
    key = {} if provider.startswith("bedrock") else {"api_key_env": _KEY}
    return {
        "provider": provider,
        "model": "some-model",
        "base_url": server.url,
        "retries": 0,
        **key,
        **PROVIDERS.get(provider, {}),
        **more,
    }


def providers(asked: Asked) -> None:
    """Ask as each provider wants to be asked."""
    for provider in PROVIDERS:
        with FakeRerankServer(provider) as server:
            laid = stages({"scorer": remote(server, provider), "calibration": [3.0, -1.0]})
            asked.with_settings(f"providers/{provider}", laid, found(QUERIES[0], 6), top_k=4)
            bodies = [one.json() for one in server.requests]
            shown = [{"path": one.path, "keys": sorted(one.json())} for one in server.requests]
            asked.put(f"providers/{provider}/sent", {"requests": shown, "bodies": bodies[:1]})
    options: Mapping[str, Mapping[str, object]] = {
        "in parts": {"max_documents": 3, "concurrency": 2},
        "one try more": {"retries": 1},
        "extra": {"extra": {"priority": 3}},
        "another name": {"accept_models": ["another-model"], "per_minute": 600.0},
        "hedged": {"hedge_ms": 30_000.0, "timeout_s": 20.0},
        "path": {"path": "/v1/rerank"},
        "breaker": {"breaker": {"failures": 1, "rest_s": 50.0, "longest_rest_s": 60.0}},
    }
    for name, more in options.items():
        with FakeRerankServer("cohere") as server:
            laid = stages({"scorer": remote(server, "cohere", **more)})
            asked.with_settings(f"remote/{name}", laid, odd(), QUERIES[1])
    with FakeRerankServer("vllm") as server:
        laid = stages({"scorer": remote(server, "vllm"), "instruction": "find code"})
        asked.with_settings("remote/instruction", laid, found(QUERIES[0], 4))
        asked.put("remote/instruction/sent", server.requests[0].json())


def faults(asked: Asked) -> None:
    """Have a remote stage fail in every way, with nothing behind it and with words."""
    for fault in Fault:
        if fault in _LEFT_OUT:
            continue
        with FakeRerankServer("cohere", faults=lambda _, f=fault: f, slow_s=3.0) as server:
            scorer = remote(server, "cohere", timeout_s=0.5 if fault is Fault.SLOW_HEADERS else 10)
            behind = {"scorer": "lexical", "when": "fallback"}
            name, some = f"faults/{fault.name}", found(QUERIES[2], 5)
            asked.with_settings(name, stages({"scorer": scorer}, behind), some, QUERIES[2])
    for fault in (Fault.SERVER_ERROR, Fault.UNAUTHORIZED, Fault.RETRY_AFTER_FLOAT, Fault.NAN_SCORE):
        with FakeRerankServer("cohere", faults=[fault]) as server:
            laid = stages({"scorer": remote(server, "cohere", retries=1)})
            asked.with_settings(f"faults/{fault.name}/again", laid, found(QUERIES[2], 5))
        with FakeRerankServer("cohere", faults=[fault]) as server:
            laid = stages({"scorer": remote(server, "cohere")})
            some = found(QUERIES[2], 5)
            asked.with_settings(f"faults/{fault.name}/strict", laid, some, strict=True)
    with FakeRerankServer("tei", faults=[Fault.SERVER_ERROR] * 2) as server:
        breaker = {"failures": 2, "rest_s": 50.0}
        laid = stages({"scorer": remote(server, breaker=breaker)})
        with load(laid) as reranker:
            for turn in range(4):
                asked.ask(f"faults/breaker/{turn}", reranker, QUERIES[2], found(QUERIES[2], 5))


def fallbacks(asked: Asked) -> None:
    """Have a remote stage serve where a local one cannot."""
    with FakeRerankServer("tei") as server:
        behind = {"scorer": remote(server), "when": "fallback"}
        sure = {**behind, "calibration": [4.0, -2.0]}
        nowhere = {"scorer": "/nowhere", "local_files_only": True}
        laid: Mapping[str, dict[str, object]] = {
            "not needed": stages({}, behind),
            "missing": stages(nowhere, behind),
            "missing, calibrated": stages(nowhere, sure),
            "missing, fused": stages(nowhere, behind, fusion={"prior_weight": 0.5}),
            "missing, cut": stages(nowhere, sure, selection={"cut": {"probability": 0.2}}),
            "regular behind words": stages(
                {"scorer": "lexical", "keep": 5}, {"scorer": remote(server)}
            ),
            "regular": stages(
                {"scorer": remote(server)}, {"scorer": "lexical", "when": "fallback"}
            ),
        }
        for name, settings in laid.items():
            asked.with_settings(f"fallback/{name}", settings, found(QUERIES[4], 8), QUERIES[4])
            told = bool(server.bytes_received)
            asked.put(f"fallback/{name}/sent", {"requests": len(server.requests), "any": told})
        cold = stages({}, behind, service={"when_cold": "pass_through", **_WORKERS})
        with load(cold) as reranker:
            asked.ask("fallback/cold", reranker, QUERIES[4], found(QUERIES[4], 8))
            reranker.warm_up()
        _late(asked, server)


def _late(asked: Asked, server: FakeRerankServer) -> None:
    """Ask the fallback first where the local stage would be late."""
    for name, broken in (("late", ()), ("late, broken", (Fault.SERVER_ERROR,))):
        clock = Clock()
        server.break_with(broken)
        behind = stages({"scorer": remote(server), "when": "fallback"})
        with load(behind) as holder:
            far = scorer_of(holder)
            made = [Stage(Paced(clock, 0.0103)), Stage(far, when="fallback")]
            with Reranker(stages=made, clock=clock, workers=1) as reranker:
                asked.ask(
                    f"fallback/{name}",
                    reranker,
                    QUERIES[4],
                    found(QUERIES[4], 24),
                    budget_ms=81.3,
                    timed=True,
                )


def residency(asked: Asked) -> None:
    """Keep text where its labels and the policy say."""
    some = found(QUERIES[3], 8)
    passages: Mapping[str, Sequence[Candidate]] = {
        "unlabelled": some,
        "on-prem": labelled(some, "on-prem"),
        "some stay": labelled(some, None, "us", "on-prem"),
        "lists": labelled(some, ["eu", "on-prem"], ["us", "de"], []),
        "unreadable": labelled(some, 3, None),
        "all stay": labelled(some, "jp"),
    }
    policies: Mapping[str, Mapping[str, object]] = {
        "anywhere": {},
        "on-prem": {"regions": ["on-prem"]},
        "deny": {"regions": ["on-prem"], "unlabelled": "deny"},
        "candidate": {"regions": ["on-prem"], "per": "candidate"},
        "candidate, deny": {"per": "candidate", "unlabelled": "deny"},
        "de": {"regions": ["eu"], "inside": {"our-hall": "de"}},
    }
    with FakeRerankServer("cohere") as server, tempfile.TemporaryDirectory() as folder:
        for name, policy in policies.items():
            place = {"region": "our-hall"} if name == "de" else {}
            audit = Path(folder) / f"{name}.jsonl"
            far = {"scorer": remote(server, "cohere", **place), "calibration": [6.0, -3.0]}
            near = {"scorer": "lexical", "when": "fallback", "calibration": [2.0, -1.5]}
            settings = stages(far, near, policy={**policy, "audit": str(audit)})
            for what, given in passages.items():
                asked.with_settings(f"residency/{name}/{what}", settings, given, QUERIES[3])
            asked.put(f"residency/{name}/audit", {"lines": list(_audited(audit))})
        _refused(asked, server)


def _audited(path: Path) -> Iterator[Row]:
    names = ("allowed", "texts", "text_bytes", "regions", "proof", "policy")
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        told = json.loads(line)
        yield {name: told[name] for name in names} | {"reason": said(told["reason"])}


def _refused(asked: Asked, server: FakeRerankServer) -> None:
    """Give stages and policies that can never hold together."""
    some = found(QUERIES[3], 4)
    far = {"scorer": remote(server, "cohere")}
    wrong: Mapping[str, dict[str, object]] = {
        "region": stages(far, policy={"regions": ["us"]}),
        "unknown": stages(far, policy={"regions": ["unknown"]}),
        "moved": stages(far, policy={"inside": {"de": "us"}}),
        "circle": stages(far, policy={"inside": {"hall": "yard", "yard": "hall"}}),
        "bare candidate": stages(far, LEXICAL, policy={"per": "candidate"}),
        "another key": stages(
            far, {**LEXICAL, "when": "fallback"}, policy={"residency_key": "place"}
        ),
    }
    for name, settings in wrong.items():
        asked.with_settings(f"residency/wrong/{name}", settings, some)
    stays = labelled(some, "jp")
    asked.with_settings("residency/strict", stages(far), stays, strict=True)
    asked.with_settings("residency/nothing else", stages(far), stays)
    with Reranker("lexical", policy=Policy(("eu",), unlabelled="deny")) as reranker:
        asked.ask("residency/local", reranker, QUERIES[3], labelled(some, "us"))


# The guard.


def guards(asked: Asked) -> None:
    """Watch requests that drift from a snapshot, and serve them otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        saved = _snapshot(Path(folder))
        behind_words = {"when": "fallback"}
        ways: Mapping[str, tuple[Mapping[str, object], tuple[Mapping[str, object], ...]]] = {
            "first_stage": ({"action": "first_stage", "probe_every": 2}, ()),
            "watched": ({"do_no_harm": False}, ()),
            "raise_prior": ({"action": "raise_prior", "prior_weight": 0.8}, ()),
            "control": ({"control_share": 0.25, "do_no_harm": False}, ()),
            "fallback": ({"action": "fallback"}, (behind_words,)),
        }
        for name, (given, behind) in ways.items():
            log = Path(folder) / f"{name}.jsonl"
            guard = {"window": 20, "patience": 1, "relief": 1, "log": str(log), **given}
            if not behind:
                guard["snapshot"] = str(saved)
            else:
                guard["learn"] = 50
            _guarded(asked, name, stages(LEXICAL, *behind, guard=guard), learn=bool(behind))
            kinds = [json.loads(line) for line in log.read_text().splitlines()]
            counts = {kind: sum(one["kind"] == kind for one in kinds) for kind in _kinds(kinds)}
            asked.put(f"guard/{name}/log", counts)
        guard = {"action": "disable_exits", "window": 20, "patience": 1, "learn": 50}
        _guarded(
            asked,
            "disable_exits",
            stages({"exits": [2], "exit_keep": 2}, guard={**guard, "null_every": 0}),
            learn=True,
        )
        asked.with_settings(
            "guard/wrong model",
            stages(guard={"snapshot": str(saved)}),
            found(QUERIES[0], 2),
        )
    for action in ("fallback", "disable_exits"):
        laid = stages(LEXICAL, guard={"action": action})
        asked.with_settings(f"guard/no {action}", laid, found(QUERIES[0], 2))


def _kinds(lines: Sequence[Mapping[str, str]]) -> list[str]:
    return sorted({one["kind"] for one in lines})


def _healthy(place: int) -> tuple[str, list[Candidate]]:
    """Make a request in whose passages the words of the query grow fewer, as the priors say."""
    query = QUERIES[place % len(QUERIES)]
    asked = query.split()
    rest = bare(found(QUERIES[(place + 3) % 6], 6, skip=60 + 5 * (place % 40), chars=70))
    texts = [" ".join([*asked[: max(0, 5 - i)], rest[i] or ""]) for i in range(6)]
    swap = place % 4
    texts[swap], texts[swap + 1] = texts[swap + 1], texts[swap]
    return query, [Candidate(text, 6.0 - 0.9 * i) for i, text in enumerate(texts)]


def _drifted(place: int) -> tuple[str, list[Candidate]]:
    """Turn the first stage of a request upside down."""
    query, some = _healthy(place)
    priors = [one.prior for one in some]
    texts = bare(some)[::-1]
    return query, [Candidate(text, prior) for text, prior in zip(texts, priors, strict=True)]


def _snapshot(folder: Path) -> Path:
    data = folder / "data/rerank"
    data.mkdir(parents=True)
    lines = []
    for place in range(120):
        query, some = _healthy(place)
        rows = [
            {"docid": f"d{place}x{i}", "text": one.text, "rank": i + 1, "score": one.prior}
            for i, one in enumerate(some)
        ]
        lines.append(json.dumps({"qid": f"q{place}", "query": query, "candidates": rows}))
    (data / "bm25.jsonl").write_text("\n".join(lines) + "\n")
    saved = folder / "drift.json"
    with contextlib.redirect_stdout(io.StringIO()):
        _run(
            "drift",
            "snapshot",
            "--dataset",
            str(data.parent),
            "-m",
            "lexical",
            "--save",
            str(saved),
        )
    return saved


def _guarded(
    asked: Asked, name: str, settings: Mapping[str, object], *, learn: bool = False
) -> None:
    with load({"service": {"workers": 1}, **settings}) as reranker:
        for place in range(50 if learn else 0):
            reranker.rerank(*_healthy(place))
            settle(reranker)
        for place in range(20):
            result = reranker.rerank(*_healthy(place))
            settle(reranker)
            if place in {0, 3}:
                asked.put(f"guard/{name}/healthy {place}", recorded(result))
        for place in range(24 if name == "disable_exits" else 46):
            result = reranker.rerank(*_drifted(place))
            settle(reranker)
            if place in {19, 20, 21, 22, 23, 45}:
                asked.put(f"guard/{name}/drifted {place}", recorded(result))
        for place in range(0 if name == "disable_exits" else 60):
            result = reranker.rerank(*_healthy(place))
            settle(reranker)
        asked.put(f"guard/{name}/healed", recorded(result))
        reranker.feedback(result.request_id, 0.5)
        asked.ask(f"guard/{name}/bare", reranker, QUERIES[0], bare(found(QUERIES[0], 5)), top_k=3)


# Settings that are refused, and the command line.


def refusals(asked: Asked) -> None:
    """Give settings that cannot be meant."""
    wrong: Mapping[str, dict[str, object]] = {
        "table": {"stage": []},
        "key": stages({"max_token": 5}),
        "depth": stages(selection={"depth": {"mas": 0.5}}),
        "two keeps": stages({"keep": {"count": 3, "share": 0.5}}),
        "uncalibrated": stages({"scorer": "lexical", "keep": {"probability": 0.5}}),
        "min over max": stages(selection={"depth": {"min": 9, "max": 3}}),
        "risk and max": stages(selection={"depth": {"risk": 0.1, "max": 3}}),
        "risk without exits": stages({"keep": {"risk": 0.1}}),
        "exits of words": stages({"scorer": "lexical", "exits": [2]}),
        "exits of other layers": stages({"exits": [3]}),
        "no exits": stages({"exits": "/nowhere"}),
        "tokens": stages({"max_tokens": 2}),
        "many tokens": stages({"max_tokens": 5000}),
        "instruction of words": stages({"scorer": "lexical", "instruction": "a"}),
        "instruction of the model": stages({"instruction": "a"}),
        "no stages": {"stages": []},
        "provider": stages({"scorer": {"provider": "nobody"}}),
        "address": stages({"scorer": {"provider": "tei"}}),
        "url": stages({"scorer": {"provider": "tei", "base_url": "ftp://a"}}),
        "two keys": stages(
            {"scorer": {"provider": "tei", "api_key_env": "A", "api_key_file": "b"}}
        ),
        "audit": stages(LEXICAL, {}, exit_audit={"share": 0.5}),
        "profile": stages(budget={"profile": "soon"}),
        "weight": stages(fusion={"prior_weight": 2.0}),
        "guard window": stages(guard={"window": 3}),
    }
    for name, settings in wrong.items():
        asked.with_settings(f"refused/{name}", settings, ["a"])


def commands(asked: Asked) -> None:
    """Use the command line: a file of settings, `run` and `eval`."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "rerank.toml").write_text(
            '[[stages]]\nscorer = "lexical"\nkeep = 4\n[[stages]]\nscorer = "embedded"\n'
            "[selection]\ntop_k = 3\n"
        )
        with load(here / "rerank.toml") as reranker:
            asked.ask("commands/toml", reranker, QUERIES[0], found(QUERIES[0]))
        (here / "rerank.json").write_text(json.dumps(stages(LEXICAL, selection={"top_k": 2})))
        with load(str(here / "rerank.json")) as reranker:
            asked.ask("commands/json", reranker, QUERIES[0], found(QUERIES[0]))
        _evaluated(asked, here / "data")


def _evaluated(asked: Asked, data: Path) -> None:
    """Evaluate words on a small judged set."""
    (data / "rerank").mkdir(parents=True)
    lines = []
    for line in _questions(12, 8):
        row = json.loads(line)
        for place, one in enumerate(row["candidates"]):
            one["rel"] = int((place * 5 + len(row["query"])) % 4 == 0)
        lines.append(json.dumps(row))
    (data / "rerank/bm25.jsonl").write_text("\n".join(lines) + "\n")
    for name, more in (("measures", ()), ("depth", ("--depth", "4"))):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            code = _run(
                *("eval", "--dataset", str(data), "-m", "lexical", "--json"),
                *("--measures", "nDCG@10,RR@10", *more),
            )
        asked.put(
            f"commands/eval {name}", {"code": code, "found": _plain(json.loads(shown.getvalue()))}
        )


def _plain(value: Any) -> Any:
    """Leave out of an evaluation what took time and where it was read."""
    if isinstance(value, dict):
        return {
            key: _plain(one)
            for key, one in value.items()
            if not any(part in key for part in ("latency", "second", "_s", "ms", "path", "time"))
        }
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6)
    return said(value) if isinstance(value, str) else value


# All of them.

MODES: Sequence[Callable[[Asked], None]] = (
    plain,
    fusions,
    selections,
    options,
    windows,
    exits,
    calibrated,
    calibrating,
    cascades,
    budgets,
    unready,
    providers,
    faults,
    fallbacks,
    residency,
    guards,
    refusals,
    commands,
    frameworks.llama_index,
    frameworks.langchain,
    frameworks.haystack,
    served.lexical,
    served.embedded,
)

_ENVIRONMENT = {
    _KEY: "sk-frozen",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "frozen",
    "HAYSTACK_TELEMETRY_ENABLED": "false",
}


def collect(modes: Sequence[Callable[[Any], None]] = MODES) -> dict[str, Row]:
    """Ask everything and give what came of it, by name."""
    before = dict(os.environ)
    os.environ.update(_ENVIRONMENT)
    asked = Asked()
    try:
        for mode in modes:
            mode(asked)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return asked.rows


def written(rows: Mapping[str, Row]) -> str:
    """Lay rows out so that differences can be read."""
    return json.dumps(rows, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the results, or the exits, where the arguments say."""
    if list(arguments) == ["--calibrate"]:
        with tempfile.TemporaryDirectory() as folder:
            return calibrate(EXITS, Path(folder) / "data", count=120, candidates=20)
    if not arguments:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    path, *names = arguments
    modes = [one for one in MODES if not names or one.__name__ in names]
    rows = collect(modes)
    Path(path).write_text(written(rows), encoding="utf-8")
    for name in near_ties(rows):
        sys.stderr.write(f"{name}: neighbours so close that another CPU may turn them round\n")
    return 0


def near_ties(rows: Mapping[str, Row]) -> Iterator[str]:
    """Name the requests whose order hangs on the last digits of a score."""
    for name, row in rows.items():
        hits = [one for one in row.get("hits", ()) if isinstance(one, dict)]
        keys = [(one["depth"], one.get("fused", one.get("score"))) for one in hits]
        # A fusion of ranks has few values, all close to each other.
        for (depth, before), (other, after) in itertools.pairwise(() if "ranks" in name else keys):
            if depth == other and None not in {before, after} and 0.0 < before - after < _CLOSE:
                yield name
                break


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
