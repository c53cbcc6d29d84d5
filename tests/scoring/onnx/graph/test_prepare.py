"""A graph is rewritten once, kept on disk, and never trusted without proof."""

import shutil

import onnx
import pytest

from rerank_plugins.scoring.onnx.graph import cache
from rerank_plugins.scoring.onnx.graph.prepare import open_rewritten
from rerank_plugins.scoring.onnx.graph.verify import compare
from rerank_plugins.scoring.onnx.session import open_graph
from tests.scoring.onnx.graph.exported import FOLDER, batches


@pytest.fixture
def model(tmp_path):
    """Return a copy of the tiny BERT."""
    return shutil.copy(FOLDER / "bert-sdpa-script.onnx", tmp_path / "model.onnx")


def test_the_second_process_takes_the_graph_from_disk(model, tmp_path):
    """Probes are asked for once; later openings find the proved graph in the cache folder."""
    folder = tmp_path / "cache"
    first = open_rewritten(model, batches, folder=folder)
    (kept,) = folder.glob("*.onnx")
    second = open_rewritten(model, lambda: pytest.fail("verified twice"), folder=folder)
    assert (first.note, second.note) == ("", "")
    assert len(onnx.load(kept).graph.node) < len(onnx.load(model).graph.node) / 2
    assert compare(first.graph, second.graph, batches()) == 0.0


def test_a_changed_model_is_rewritten_anew(model, tmp_path):
    """The cache goes by content, not by path."""
    folder = tmp_path / "cache"
    open_rewritten(model, batches, folder=folder)
    shutil.copy(FOLDER / "bert-eager-script.onnx", model)
    open_rewritten(model, batches, folder=folder)
    assert len(list(folder.glob("*.onnx"))) == 2


def test_a_damaged_cache_file_is_made_again(model, tmp_path):
    """Half a file in the cache costs one rewrite, not the answer."""
    folder = tmp_path / "cache"
    open_rewritten(model, batches, folder=folder)
    (kept,) = folder.glob("*.onnx")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    assert open_rewritten(model, batches, folder=folder).note == ""
    assert len(kept.read_bytes()) == len(whole)


def test_a_cache_that_cannot_be_written_is_no_error(model, tmp_path):
    """A file where the folder should be: the rewritten graph runs all the same."""
    blocked = tmp_path / "blocked"
    blocked.write_text("no folder")
    assert open_rewritten(model, batches, folder=blocked / "cache").note == ""


def test_a_graph_that_is_not_known_runs_as_exported_and_says_so(tmp_path):
    """The reason is kept too, so that the next process does not search again."""
    folder = tmp_path / "cache"
    path = FOLDER / "modernbert-sdpa-dynamo.onnx"
    first = open_rewritten(path, batches, folder=folder)
    second = open_rewritten(path, lambda: pytest.fail("searched twice"), folder=folder)
    assert first.note == second.note == "no encoder layer was recognised"


def test_a_rewrite_that_changes_scores_is_refused(tmp_path):
    """A graph whose scale is not 1/sqrt(head size) is read wrongly, found out and left alone."""
    model = onnx.load(FOLDER / "bert-eager-dynamo.onnx")
    scales = [
        node
        for node in model.graph.node
        if node.op_type == "Mul" and node.input[0].startswith("matmul")
    ]
    other = onnx.numpy_helper.from_array(onnx.numpy_helper.np.float32(0.9), "other")
    model.graph.initializer.append(other)
    for node in scales:
        node.input[1] = "other"
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    prepared = open_rewritten(path, batches, folder=tmp_path / "cache")
    assert "scores differ" in prepared.note
    assert compare(open_graph(path), prepared.graph, batches()) == 0.0


def test_the_least_recently_used_graphs_leave_a_full_cache(tmp_path, monkeypatch):
    """The folder stays within its bound; the file just written stays."""
    monkeypatch.setattr(cache, "_MAX_BYTES", 10)
    for name in ("a", "b", "c"):
        cache.write(tmp_path / f"{name}.onnx", b"12345678")
    assert [path.name for path in tmp_path.iterdir()] == ["c.onnx"]
