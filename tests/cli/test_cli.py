"""The commands as a person or a script runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rerank_plugins import cli
from tests.small_collections import beir_folder, rerank_folder


def run(*arguments: object) -> int:
    """Run the command line in this process and give its exit code."""
    try:
        return cli.main([str(one) for one in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    """Return a file of two passages and a blank line."""
    path = tmp_path / "passages.txt"
    path.write_text("Dogs bark at the moon.\n\nCats sleep for hours.\n", encoding="utf-8")
    return path


def test_run_prints_a_table_for_people(passages, capsys):
    """`run` shows the best passage first, with its old place."""
    assert run("run", "--query", "cats sleep", "--docs", passages, "-m", "lexical") == 0
    shown = capsys.readouterr().out
    assert shown.index("Cats sleep") < shown.index("Dogs bark")


def test_run_prints_json_for_machines(passages, capsys):
    """`run --json` prints the result record, whole and parseable, and nothing else."""
    arguments = ("--query", "cats sleep", "--docs", passages, "--top-k", 1, "--json")
    assert run("run", *arguments, "-m", "lexical") == 0
    found = json.loads(capsys.readouterr().out)
    assert [hit["index"] for hit in found["hits"]] == [1]
    assert found["order"] == [1, 0]
    assert found["decisions"][-1]["code"] == "cut"


def test_run_reads_priors_from_json_lines(tmp_path, capsys):
    """A .jsonl file gives text and prior; a null text is kept at the bottom."""
    path = tmp_path / "passages.jsonl"
    path.write_text('{"text": null}\n{"text": "cats sleep", "prior": 2.5}\n', encoding="utf-8")
    assert run("run", "-q", "cats", "--docs", path, "-m", "lexical", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["order"] == [1, 0]
    assert found["hits"][0]["prior"] == 2.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "-q", " ", "--docs", "FILE", "-m", "lexical"), "expected text that is not blank"),
        (("run", "-q", "a", "--docs", "nowhere.txt"), "nowhere.txt cannot be read"),
        (("run", "-q", "a", "--docs", "FILE", "-m", "a", "-c", "b"), "give one"),
        (("run", "-q", "a", "--docs", "FILE", "-m", "no such model"), "no model at"),
        (("run", "-q", "a", "--docs", "FILE", "-m", "lexical", "--top-k", "0"), "top_k is 0"),
        (("eval", "--dataset", "nowhere"), "no folder at nowhere"),
        (("run", "-q", "a"), "Missing option"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(arguments, message, passages, capsys):
    """Bad usage says what was found and expected, without a traceback, and exits 2."""
    assert run(*(passages if one == "FILE" else one for one in arguments)) == 2
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("command", ["run", "eval", "bench", "capacity", "doctor"])
def test_help_shows_examples(command, capsys):
    """`--help` explains itself by examples and exits 0."""
    assert run(command, "--help") == 0
    assert f"rerank-plugins {command}" in capsys.readouterr().out


def test_eval_prints_before_and_after(tmp_path, capsys):
    """`eval` shows the first stage and each model, differences with intervals and counts."""
    folder = beir_folder(tmp_path / "pets")
    assert run("eval", "--dataset", folder, "-m", "lexical") == 0
    shown = capsys.readouterr().out
    assert "pets: 2 queries, 6 candidates" in shown
    assert "first stage" in shown
    assert "+0.500 [+0.500, +0.500]" in shown
    assert "2/0/0, p" in shown


def test_eval_prints_json(tmp_path, capsys):
    """`eval --json` gives every value of every query, of every dataset."""
    beir, lines = beir_folder(tmp_path / "beir"), rerank_folder(tmp_path / "lines")
    arguments = ("--dataset", beir, "--dataset", lines, "-m", "lexical")
    assert run("eval", *arguments, "--measures", "RR@10,P(rel=1)@1", "--json") == 0
    found = json.loads(capsys.readouterr().out)["comparisons"]
    assert [one["dataset"] for one in found] == ["beir", "lines/bm25"]
    for one in found:
        first, lexical = one["systems"]
        assert (first["name"], lexical["name"]) == ("first stage", "lexical")
        assert first["values"]["RR@10"] == {"q1": 0.5, "q2": 0.5}
        assert lexical["values"]["P@1"] == {"q1": 1.0, "q2": 1.0}


@pytest.mark.parametrize("suffix", [".html", ".md", ".json"])
def test_eval_writes_a_report(suffix, tmp_path):
    """`--report FILE` writes what its suffix says."""
    folder, file = beir_folder(tmp_path / "pets"), tmp_path / f"report{suffix}"
    assert run("eval", "--dataset", folder, "-m", "lexical", "--report", file) == 0
    assert "lexical" in file.read_text(encoding="utf-8")


def test_one_evaluation_writes_several_reports(tmp_path):
    """`--report` may be repeated: the same numbers, for people and for programs."""
    folder = beir_folder(tmp_path / "pets")
    files = [tmp_path / f"report{suffix}" for suffix in (".html", ".md", ".json")]
    wanted = [part for file in files for part in ("--report", file)]
    assert run("eval", "--dataset", folder, "-m", "lexical", *wanted) == 0
    assert all("lexical" in file.read_text(encoding="utf-8") for file in files)


def test_a_report_can_leave_every_text_out(tmp_path):
    """`--no-texts` keeps queries and passages out of what is written."""
    folder = beir_folder(tmp_path / "pets")
    table = tmp_path / "pool.csv"
    table.write_text("query,passage,label\nfox,hens,1\nfox,secret fox,0\n", encoding="utf-8")
    for flag, held in (("--texts", True), ("--no-texts", False)):
        for suffix in (".html", ".md", ".json"):
            file = tmp_path / f"report{suffix}"
            arguments = ("--dataset", folder, "--dataset", table, "-m", "lexical", flag)
            assert run("eval", *arguments, "--report", file) == 0
            assert ("secret fox" in file.read_text(encoding="utf-8")) is held


@pytest.mark.parametrize(
    ("gate", "code", "message"),
    [
        (("--fail-below", "RR@10=0.9"), 0, ""),
        (("--fail-below", "RR@10=1.1,nDCG@10=0.1"), 1, "lexical has RR@10 1.0000, below 1.1"),
        (("--no-worse-than", "0.01"), 0, ""),
        (("--fail-below", "RR@10"), 2, "expected MEASURE=VALUE"),
        (("--fail-below", "RR@10=high"), 2, "expected MEASURE=VALUE"),
    ],
)
def test_gates_decide_the_exit_code(gate, code, message, tmp_path, capsys):
    """A gate that holds exits 0, one that fails 1 and says where, one that is no gate 2."""
    folder = beir_folder(tmp_path / "pets")
    assert run("eval", "--dataset", folder, "-m", "lexical", *gate) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--report", "report.pdf"), "expected one of .html, .md, .json"),
        (("--report", "nowhere/report.md"), "nowhere is no folder"),
        (("--run", "a", "--run", "b"), "1 --dataset but 2 --run"),
        (("--measures", "nDGC@10"), "no measure is called 'nDGC@10'"),
    ],
)
def test_eval_checks_its_options_before_it_works(arguments, message, tmp_path, capsys):
    """A report that cannot be written, or runs that do not pair up, are refused at once."""
    assert run("eval", "--dataset", beir_folder(tmp_path / "pets"), *arguments) == 2
    assert message in capsys.readouterr().err


def test_eval_without_labels_says_what_it_can(tmp_path, capsys):
    """`--label-free` needs no judgements, and says so."""
    folder = beir_folder(tmp_path / "pets")
    arguments = ("--dataset", folder, "-m", "lexical", "--label-free")
    assert run("eval", *arguments) == 0
    assert "pets: 3 queries, no labels used" in capsys.readouterr().out
    assert run("eval", *arguments, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["label_free"]
    assert [one["regret"] for one in found["systems"]][1] == 0.0


def test_eval_writes_a_table_to_label_and_reads_it_back(tmp_path, capsys):
    """`--label-sample` writes the pool; labelled, it works as --qrels and as --dataset."""
    folder, table = beir_folder(tmp_path / "pets"), tmp_path / "pool.csv"
    arguments = ("--dataset", folder, "-m", "lexical")
    assert run("eval", *arguments, "--label-sample", table) == 0
    assert "7 passages of 3 queries" in capsys.readouterr().err
    assert run("eval", "--dataset", table, "-m", "lexical") == 2
    assert "--label-free says what can be said" in capsys.readouterr().err
    rows = table.read_text(encoding="utf-8").splitlines()
    labelled = [row + ("1" if "Cats" in row and "q1" in row else "") for row in rows]
    table.write_text("\n".join(labelled), encoding="utf-8")
    for source in ((*arguments, "--qrels", table), ("--dataset", table, "-m", "lexical")):
        assert run("eval", *source, "--measures", "RR@10", "--json") == 0
        (found,) = json.loads(capsys.readouterr().out)["comparisons"]
        assert found["systems"][1]["values"] == {"RR@10": {"q1": 1.0}}


def test_eval_refuses_the_same_model_twice(tmp_path, capsys):
    """Two columns of one name could not be told apart."""
    folder = beir_folder(tmp_path / "pets")
    assert run("eval", "--dataset", folder, "-m", "lexical", "-m", "lexical") == 2
    assert "given twice" in capsys.readouterr().err


def test_bench_reports_latency_and_throughput(tmp_path, capsys):
    """`bench --json` counts the requests it was asked for, from concurrent callers."""
    folder = beir_folder(tmp_path / "pets")
    arguments = ("--dataset", folder, "-m", "lexical", "--requests", 8, "--concurrency", 4)
    assert run("bench", *arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["requests"], found["latency"]["n"], found["degraded"]) == (8, 8, 0)
    assert found["latency"]["p50_s"] <= found["latency"]["p99_s"]
    assert run("bench", *arguments) == 0
    assert "requests/s" in capsys.readouterr().out


def test_capacity_tells_what_load_keeps_the_wanted_percentile(tmp_path, capsys):
    """`capacity` tells the rate that keeps p95, what it costs, and draws the loads."""
    folder, drawn = beir_folder(tmp_path / "pets"), tmp_path / "loads.svg"
    arguments = ("--dataset", folder, "-m", "lexical", "--requests", 8, "--p95-ms", 60_000)
    assert run("capacity", *arguments, "--price", 0.1, "--plot", drawn) == 0
    assert "a million requests cost" in capsys.readouterr().out
    assert "<svg" in drawn.read_text(encoding="utf-8")
    assert run("capacity", *arguments, "--servers", 2, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["servers"], found["service"]["n"], found["chosen"]["load"]) == (2, 8, 0.95)
    assert run("capacity", "--dataset", folder, "-m", "lexical", "--p95-ms", 0.001) == 0
    assert "No load keeps that" in capsys.readouterr().out


def test_run_explains_where_the_time_went(passages, capsys):
    """`run --explain` draws the steps of the request below its hits."""
    arguments = ("--query", "cats sleep", "--docs", passages, "-m", "lexical")
    assert run("run", *arguments, "--explain") == 0
    assert "2 of 2 candidates scored" in capsys.readouterr().out
    assert run("run", *arguments) == 0
    assert "candidates scored" not in capsys.readouterr().out


def test_bench_writes_its_traces(tmp_path, capsys):
    """`bench --trace` leaves one OTLP/JSON file with a span per request."""
    folder, path = beir_folder(tmp_path / "pets"), tmp_path / "out.json"
    arguments = ("--dataset", folder, "-m", "lexical", "--requests", 3)
    assert run("bench", *arguments, "--trace", path) == 0
    assert path.read_text(encoding="utf-8").count('"rerank lexical"') == 3
    assert "requests/s" in capsys.readouterr().out


def test_doctor_passes_on_the_embedded_model(capsys):
    """`doctor` finds the package's own model whole and working."""
    assert run("doctor", "--json") == 0
    checks = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert checks["stage 1: manifest"]["found"].endswith("files match their sha256")
    assert checks["stage 1: trial"]["verdict"] == "ok"
    assert {one["verdict"] for one in checks.values()} <= {"ok", "warn"}


@pytest.mark.parametrize(("workers", "found"), [(None, "one per core"), (3, "3, set by")])
def test_doctor_says_how_many_workers_there_are(workers, found, tmp_path, capsys):
    """How many threads score, who said so, and how many compute inside an operator."""
    config = tmp_path / "rerank.json"
    stages = [{"scorer": "lexical", "intra_threads": 2}]
    config.write_text(json.dumps({"stages": stages, "service": {"workers": workers}}))
    assert run("doctor", "--config", config, "--json") == 0
    checks = {one["name"]: one["found"] for one in json.loads(capsys.readouterr().out)}
    assert found in checks["workers"]
    assert checks["workers"].endswith("inside an operator: 2")


def test_doctor_fails_on_a_model_that_does_not_load(tmp_path, capsys):
    """A folder without a model is one failed line, and exit code 1."""
    config = tmp_path / "rerank.toml"
    config.write_text(f'[[stages]]\nscorer = "{tmp_path}"\n', encoding="utf-8")
    assert run("doctor", "--config", config) == 1
    assert "fail" in capsys.readouterr().out


REMOTE = """
[[stages]]
scorer = { provider = "cohere", model = "rerank-v3.5" }
[policy]
regions = ["REGION"]
"""


@pytest.mark.parametrize(("region", "code"), [("eu", 1), ("world", 0)])
def test_doctor_sends_nothing_and_says_where_text_may_go(
    region, code, tmp_path, capsys, monkeypatch
):
    """A remote stage is judged by the policy, never called."""
    monkeypatch.setenv("COHERE_API_KEY", "none")
    config = tmp_path / "rerank.toml"
    text = REMOTE.replace('regions = ["REGION"]', "") if region == "world" else REMOTE
    config.write_text(text.replace("REGION", region), encoding="utf-8")
    assert run("doctor", "--config", config, "--json") == code
    checks = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert "stage 1: cohere rerank-v3.5" in checks
    assert checks["stage 1: policy"]["verdict"] == ("fail" if code else "ok")
    assert checks["stage 1: trial"]["found"].startswith("not tried")


def test_the_command_runs_as_a_process(passages):
    """The installed entry point answers on standard output from standard input."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "rerank_plugins.cli",
            "run",
            "-q",
            "cats sleep",
            "--docs",
            "-",
            *("-m", "lexical", "--json"),
        ],
        input=passages.read_text(encoding="utf-8"),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["order"] == [1, 0]
    assert done.stderr == ""
