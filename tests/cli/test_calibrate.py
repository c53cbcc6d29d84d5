"""`rerank-plugins calibrate`, from files to an artefact that a reranker takes."""

import json

import pytest

from rerank_plugins import cli, load
from rerank_plugins.scoring.exits import calibration_file
from tests import layered, tiny

WORDS = tiny.WORDS[7:20]


def run(*command):
    """Run the command line; return the exit code however it ends."""
    try:
        return cli.main(command)
    except SystemExit as end:
        return end.code


@pytest.fixture
def dataset(tmp_path):
    """Fifty queries with twenty candidates each, in lines of the rerank layout."""
    folder = tmp_path / "data" / "rerank"
    folder.mkdir(parents=True)
    lines = []
    for i in range(50):
        candidates = [
            {"docid": f"d{i}x{j}", "text": text, "rank": j + 1, "score": 20.0 - j, "rel": None}
            for j, text in enumerate(tiny.passages(20, seed=i))
        ]
        query = f"what {WORDS[i % len(WORDS)]} {WORDS[(i * 7) % len(WORDS)]}"
        lines.append(json.dumps({"qid": f"q{i}", "query": query, "candidates": candidates}))
    (folder / "bm25.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


@pytest.mark.parametrize("layers", [None, "0,2"])
def test_calibrate_writes_exits_that_a_reranker_takes(dataset, tmp_path, capsys, layers):
    """Unlabelled candidates in, a folder out: probes, or the similarity of embeddings."""
    folder, out = layered.build(tmp_path / "model", 3), tmp_path / "exits"
    command = ["calibrate", "--dataset", str(dataset), "--model", str(folder), "--out", str(out)]
    command += ["--alpha", "0.5", "--top-k", "5", *(["--layers", layers] if layers else [])]
    assert run(*command) == 0
    shown = capsys.readouterr().out
    assert "fixed layer" in shown
    assert "certified by ucb on 25 queries" in " ".join(shown.split())
    assert (out / "gain.svg").read_text().startswith("<?xml")
    stage = {"scorer": str(folder), "exits": str(out), "keep": {"risk": 0.5}}
    with load({"stages": [stage]}) as reranker:
        result = reranker.rerank("what fox", tiny.passages(20))
    assert sorted(result.order) == list(range(20))
    assert len(reranker.setup.stages) == 3


def test_calibrate_prints_json_for_machines(dataset, tmp_path, capsys):
    """With --json the curve, the baselines and the certificate are data; exit 1 without one."""
    folder = layered.build(tmp_path / "model", 4, (2,))
    command = ["calibrate", "--dataset", str(dataset), "--model", str(folder), "--json"]
    assert run(*command, "--out", str(tmp_path / "exits"), "--alpha", "0.001") == 1
    captured = capsys.readouterr()
    assert "failed: nothing keeps regret within --alpha 0.001" in captured.err
    found = json.loads(captured.out)
    assert found["gain"]["chosen"] is None
    assert "least that can be promised" in found["note"]
    kinds = {point["kind"] for point in found["gain"]["baselines"]}
    assert kinds == {"fixed depth", "fixed layer"}
    assert len(found["gain"]["curve"]) > 10


def test_exits_that_nothing_vouches_for_are_not_recommended(dataset, tmp_path, capsys):
    """Where no limits hold, the command fails and does not tell how to use what it wrote."""
    folder = layered.build(tmp_path / "model", 3)
    command = ["calibrate", "--dataset", str(dataset), "--model", str(folder)]
    assert run(*command, "--out", str(tmp_path / "exits"), "--alpha", "0.0001") == 1
    shown = capsys.readouterr().out
    assert "least that can be promised" in " ".join(shown.split())
    assert "use them with" not in shown


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_queries_and_a_corpus_are_enough(suffix, tmp_path, capsys):
    """Without a run, BM25 finds the candidates: those that share a word with the query."""
    folder = layered.build(tmp_path / "model", 3)
    asked = [f"{WORDS[i % 13]} {WORDS[(i // 13 + i + 1) % 13]}" for i in range(80)]
    for name, texts in (("queries", asked), ("corpus", tiny.passages(60))):
        lines = [json.dumps({"text": one}) if suffix == "jsonl" else one for one in texts]
        (tmp_path / f"{name}.{suffix}").write_text("\n".join(lines) + "\n")
    command = [
        "calibrate",
        "--queries",
        str(tmp_path / f"queries.{suffix}"),
        "--model",
        str(folder),
    ]
    command += ["--corpus", str(tmp_path / f"corpus.{suffix}"), "--depth", "20", "--top-k", "5"]
    assert run(*command, "--out", str(tmp_path / "exits"), "--alpha", "0.5", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"]["queries"] == 80
    assert found["facts"]["candidates"][1] == 20
    assert found["gain"]["chosen"] is not None


def test_plans_that_cut_passages_are_measured_when_asked_for(dataset, tmp_path):
    """--short-tokens adds plans; reading less of each passage keeps less of the order."""
    folder, out = layered.build(tmp_path / "model", 3), tmp_path / "exits"
    command = ["calibrate", "--dataset", str(dataset), "--model", str(folder), "--out", str(out)]
    assert run(*command, "--alpha", "0.5", "--top-k", "5", "--short-tokens", "16,40") == 0
    found = calibration_file.load(out)
    assert set(found.short_plans) == {16, 40}
    everything = max(found.plans)
    kept = [found.short_plans[16], found.short_plans[40], found.plans]
    assert kept[0][everything] < kept[1][everything] <= kept[2][everything]
    stage = {"scorer": str(folder), "exits": str(out), "keep": {"risk": 0.5}}
    with load({"stages": [stage]}) as reranker:
        result = reranker.rerank("what fox", tiny.passages(20), budget_ms=5000)
    assert result.usage.truncated_tokens == 0


def test_lengths_to_cut_to_are_shorter_than_a_pair(dataset, tmp_path, capsys):
    """A length that cuts nothing, or nearly everything, is refused."""
    folder = layered.build(tmp_path / "model", 3)
    command = ["calibrate", "--dataset", str(dataset), "--model", str(folder)]
    assert run(*command, "--out", str(tmp_path / "exits"), "--short-tokens", "8,500") == 2
    assert "fewer than the 128 of a pair" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("given", [(), ("--queries", "queries.txt")])
def test_calibrate_says_what_it_needs(given, tmp_path, capsys):
    """Neither a dataset nor queries with a corpus is bad usage."""
    assert run("calibrate", "--out", str(tmp_path / "exits"), *given) == 2
    assert "--queries FILE and --corpus FILE" in " ".join(capsys.readouterr().err.split())


def test_calibrate_refuses_layers_that_cannot_be_cut(dataset, tmp_path, capsys):
    """A layer the model does not have is named, with those it can be cut after."""
    folder = layered.build(tmp_path / "model", 3)
    command = ["calibrate", "--dataset", str(dataset), "--model", str(folder), "--layers", "9"]
    assert run(*command, "--out", str(tmp_path / "exits")) == 2
    assert "no exit after layers [9]" in capsys.readouterr().err
