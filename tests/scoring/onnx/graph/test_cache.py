"""The folder of rewritten graphs: only this user's own files count, and only whole ones."""

import json
import logging
import os
import shutil
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerank_plugins import load
from rerank_plugins.scoring.onnx import throughput
from rerank_plugins.scoring.onnx.graph import cache
from rerank_plugins.scoring.onnx.graph.prepare import open_rewritten
from tests.scoring.onnx.graph.exported import FOLDER, batches
from tests.scoring.tiny import folder as model_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="files of Windows have no such permissions")


@pytest.fixture
def graphs(tmp_path, monkeypatch) -> Path:
    """Return a cache folder of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "rerank-plugins" / "graphs"


def scores(path: Path, **options: object) -> list[float]:
    """Score texts with the tiny model."""
    with load({"stages": [{"scorer": str(model_folder(path)), **options}]}) as reranker:
        reranker.warm_up()
        hits = reranker.rerank("marble hedge", ["a noble facade", "badge", "ridge parade"])
    return [hit.score for hit in hits]


def poison(path: Path) -> None:
    """Put a graph with other scores in the place of a kept one."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
            values = onnx.numpy_helper.to_array(tensor) * 1.5
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), tensor.name))
    path.write_bytes(model.SerializeToString())


def test_the_folder_is_its_users_alone(tmp_path, graphs):
    """Whatever the umask, nobody else may read or write the folder."""
    before = os.umask(0)
    try:
        scores(tmp_path / "m")
    finally:
        os.umask(before)
    assert graphs.stat().st_mode & 0o777 == 0o700
    assert len(list(graphs.glob("*.onnx"))) == 1


def test_a_replaced_graph_changes_no_score(tmp_path, graphs):
    """The file's content counts, not its name: another graph in its place is made again."""
    before = scores(tmp_path / "m")
    (kept,) = graphs.glob("*.onnx")
    whole = kept.read_bytes()
    poison(kept)
    assert scores(tmp_path / "m") == before
    assert kept.read_bytes() == whole


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(["flip", "cut", "append", "empty", "link", "folder"]), st.integers(0, 10**7))
def test_a_damaged_graph_changes_no_score(tmp_path_factory, how, place):
    """Each kind of damage costs one rewrite."""
    home = tmp_path_factory.mktemp("damaged")
    model = shutil.copy(FOLDER / "bert-sdpa-script.onnx", home / "model.onnx")
    first = open_rewritten(model, batches, folder=home / "cache")
    (kept,) = (home / "cache").glob("*.onnx")
    data = kept.read_bytes()
    place %= len(data)
    damaged = {
        "flip": data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
        "cut": data[:place],
        "append": data + b"\0",
        "empty": b"",
    }
    kept.unlink()
    if how == "link":
        (home / "elsewhere").write_bytes(data)
        kept.symlink_to(home / "elsewhere")
    elif how == "folder":
        kept.mkdir()
    else:
        kept.write_bytes(damaged[how])
    asked = []

    def probes():
        asked.append(True)
        return batches()

    second = open_rewritten(model, probes, folder=home / "cache")
    assert asked, "what was damaged was taken"
    expected = [first.graph.run(batch).tolist() for batch in batches()]
    assert [second.graph.run(batch).tolist() for batch in batches()] == expected


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o720])
def test_a_folder_that_others_may_write_is_not_used(tmp_path, graphs, mode, caplog):
    """Neither read nor written, with one warning that says what to do; scores stay right."""
    before = scores(tmp_path / "m")
    (kept,) = graphs.glob("*.onnx")
    graphs.chmod(mode)
    names = {path.name: path.read_bytes() for path in graphs.iterdir()}
    cache.warn.cache_clear()
    with caplog.at_level(logging.WARNING, "rerank_plugins"):
        assert scores(tmp_path / "m") == before
        assert scores(tmp_path / "m") == before
    assert {path.name: path.read_bytes() for path in graphs.iterdir()} == names
    (record,) = caplog.records
    assert str(graphs) in record.getMessage()
    assert "remove" in record.getMessage()
    assert kept.exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root gives files away")
class TestOwners:
    """Files of other users."""

    def test_a_folder_of_somebody_else_is_not_used(self, tmp_path, graphs, caplog):
        """What another user made is neither read nor written."""
        before = scores(tmp_path / "m")
        (kept,) = graphs.glob("*.onnx")
        poison(kept)
        os.chown(graphs, 12345, -1)
        cache.warn.cache_clear()
        with caplog.at_level(logging.WARNING, "rerank_plugins"):
            assert scores(tmp_path / "m") == before
        assert "belongs to" in caplog.text

    @pytest.mark.parametrize("end", ["*.onnx", "*.json"])
    def test_an_entry_of_somebody_else_is_proved_again(self, tmp_path, graphs, end):
        """A file that another user put into the folder is made again, and is then this user's."""
        before = scores(tmp_path / "m")
        (kept,) = graphs.glob(end)
        os.chown(kept, 12345, -1)
        assert scores(tmp_path / "m") == before
        assert kept.stat().st_uid == os.geteuid()


def test_a_link_in_the_place_of_the_folder_is_not_used(tmp_path, graphs, caplog):
    """A link would have files read, written and trimmed elsewhere."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    graphs.parent.mkdir(parents=True)
    graphs.symlink_to(tmp_path / "elsewhere")
    cache.warn.cache_clear()
    scores(tmp_path / "m")
    assert not list((tmp_path / "elsewhere").iterdir())
    assert "link" in caplog.text


@pytest.mark.parametrize("end", [".json", ".txt"])
def test_facts_behind_a_link_are_not_read(tmp_path, end):
    """Reasons and costs count only as files of the folder itself."""
    (tmp_path / "elsewhere").write_text("1.5")
    (tmp_path / f"a{end}").symlink_to(tmp_path / "elsewhere")
    assert cache.number(tmp_path / f"a{end}") is None
    assert end != ".txt" or cache.note(tmp_path, "a") is None


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"batch_tokens": 1e999, "sizes": [[1, 64]], "seconds": [0.1]}',
        json.dumps({"batch_tokens": 512, "sizes": [[1]], "seconds": [0.1]}),
        "[]",
        "null",
    ],
)
def test_costs_that_make_no_sense_are_measured_again(tmp_path, text):
    """A damaged file of costs is no error."""
    (tmp_path / "a.json").write_text(text)
    assert throughput.load(tmp_path / "a.json") is None


def test_without_a_home_there_is_no_cache_and_no_error(tmp_path, monkeypatch):
    """A user without a home, as in some containers, gets right scores."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    expected = scores(tmp_path / "m", graph_cache=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", staticmethod(homeless))
    assert cache.directory() is None
    assert scores(tmp_path / "m") == pytest.approx(expected, rel=1e-3)
