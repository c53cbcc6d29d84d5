"""`rerank-plugins doctor` finds what `run` and `serve` would fail at, and claims nothing else."""

import json
import sys
import tomllib
from pathlib import Path

import pytest

from rerank_plugins.cli import checks
from rerank_plugins.scoring.models.content import sha256
from tests import tiny
from tests.cli.test_cli import run

ROOT = Path(__file__).parents[2]


def examined(capsys, *arguments, codes=(0, 1)):
    """Run the doctor; return its checks by name. A model of random weights fails its trial."""
    assert run("doctor", *arguments, "--json") in codes
    return {one["name"]: one for one in json.loads(capsys.readouterr().out)}


def settings(folder, stage, **more):
    """Write a settings file with one stage."""
    path = folder / "rerank.json"
    path.write_text(json.dumps({"stages": [stage], **more}), encoding="utf-8")
    return path


@pytest.fixture
def bare(monkeypatch):
    """Import no extra, which takes seconds and is tried in a test of its own."""
    monkeypatch.setattr(checks, "EXTRAS", {})


def test_the_version_is_told(capsys):
    """`--version` needs no command."""
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("rerank-plugins ")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    "more", [{"guard": {"snapshot": "nowhere.json"}}, {"exit_audit": {"share": 0.1}}]
)
def test_a_file_that_run_refuses_is_not_fine(more, tmp_path, capsys):
    """Stages that work one by one can still make no reranker: the whole is loaded, too."""
    config = settings(tmp_path, {"scorer": "lexical"}, **more)
    passages = tmp_path / "passages.txt"
    passages.write_text("cats\n", encoding="utf-8")
    assert run("run", "-q", "cats", "--docs", passages, "-c", config) == 2
    refused = capsys.readouterr().err.removeprefix("error: ").strip()
    found = examined(capsys, "--config", config, codes=(1,))["configuration"]
    assert (found["verdict"], found["found"]) == ("fail", refused)


@pytest.mark.usefixtures("bare")
def test_a_manifest_of_another_program_is_none_of_ours(tmp_path, capsys):
    """A model loads beside it, and the doctor says that nothing vouches for the files."""
    folder = tiny.build(tmp_path / "model")
    (folder / "manifest.json").write_text('{"name": "an app", "version": 3}', encoding="utf-8")
    found = examined(capsys, "-c", settings(tmp_path, {"scorer": str(folder)}))
    assert found["stage 1: manifest"]["verdict"] == "warn"
    assert found["stage 1: graph"]["verdict"] == found["configuration"]["verdict"] == "ok"


@pytest.mark.usefixtures("bare")
def test_a_model_that_is_cached_in_part_is_examined(tmp_path, capsys):
    """The hub's cache holds the files that were needed: the others are counted, not missed."""
    folder = tiny.build(tmp_path / "model")
    listed = {path.name: {"sha256": sha256(path)} for path in folder.iterdir()}
    absent = {"model_fp16.onnx": {"sha256": "0" * 64}}
    (folder / "manifest.json").write_text(json.dumps({"files": listed | absent}), encoding="utf-8")
    tiny.cache(tmp_path / "hub", "org/tiny", folder)
    stage = {"scorer": "org/tiny", "local_files_only": True, "cache_dir": str(tmp_path / "hub")}
    found = examined(capsys, "-c", settings(tmp_path, stage))
    assert found["stage 1: manifest"]["found"] == (
        "4 files match their sha256; not in the hub's cache: 1"
    )


@pytest.mark.usefixtures("bare")
def test_nothing_is_claimed_that_was_not_tried(tmp_path, capsys, monkeypatch):
    """No word that the hub can be reached; a cache that takes no files is named."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(settings(tmp_path, {})))
    found = examined(capsys, "-c", settings(tmp_path, {"scorer": "lexical"}))
    assert "online" not in found["hub cache"]["found"]
    assert found["graph cache"]["verdict"] == "warn"
    assert "takes no files" in found["graph cache"]["found"]
    assert found["telemetry of onnxruntime"]["found"] == "off"
    assert "langchain: adapter" in found["adapters"]["found"]


@pytest.mark.parametrize("module", ["opentelemetry.exporter.prometheus", "prometheus_client"])
def test_an_extra_is_there_only_whole(module, capsys, monkeypatch, tmp_path):
    """What the server imports is imported: without its exporter it would not start."""
    monkeypatch.setattr(checks, "EXTRAS", {"server": checks.EXTRAS["server"]})
    monkeypatch.setitem(sys.modules, module, None)
    found = examined(capsys, "-c", settings(tmp_path, {"scorer": "lexical"}))["extra server"]
    assert found["verdict"] == "warn"
    assert f"{module} is missing" in found["found"]
    assert "pip install 'rerank-plugins[server]'" in found["found"]


def test_every_extra_is_examined():
    """Those of the project's file, but for the adapters, which are packages of their own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"all"}
    assert extras == {*checks.EXTRAS, *checks.ADAPTERS}
