"""`export --exits`: a folder whose model can be left early, with the scores of the whole one."""

import json

import numpy as np
import onnx
import pytest

from rerank_plugins import Reranker, cli, load
from rerank_plugins.errors import ConfigError, ModelError
from rerank_plugins.records import Code
from rerank_plugins.scoring.exits.segmented_model import heads_at
from rerank_plugins.scoring.export.export import export
from rerank_plugins.scoring.models.content import verify
from rerank_plugins.scoring.models.files import find
from tests import layered, tiny
from tests.scoring import families

QUERY, PASSAGES = "what is a red fox", tiny.passages(30)


def run(*command):
    """Run the command line; give the exit code however it ends."""
    try:
        return cli.main([str(one) for one in command])
    except SystemExit as end:
        return end.code


def scores(reranker):
    """Give the scores in the order of the passages, and how deep each went."""
    with reranker:
        result = reranker.rerank(QUERY, PASSAGES)
    hits = sorted(result, key=lambda hit: hit.index)
    return np.array([hit.score for hit in hits]), {hit.depth for hit in hits}


def family(name):
    """Find a family of encoders by its name."""
    return next(one for one in families.FAMILIES if one.name == name)


@pytest.mark.parametrize("name", ["bert", "xlm-roberta-two-columns"])
def test_an_onnx_model_is_copied_and_given_exits(name, tmp_path):
    """Cut after a layer, everyone kept, its folder gives the scores of the graph it came from."""
    made = families.build(family(name), tmp_path / "model", graph="model.onnx")
    done = export(str(made.folder / "model.onnx"), tmp_path / "out", exits=[1])
    assert done.exporter is None
    assert done.exits_parity.difference <= 1e-4
    assert done.exits_parity.same_order
    assert verify(tmp_path / "out") == len(done.files)
    stage = {"scorer": str(tmp_path / "out"), "exits": [1]}
    found, depths = scores(load({"stages": [stage]}))
    wanted, _ = scores(Reranker(made.folder / "model.onnx"))
    np.testing.assert_allclose(found, wanted, atol=1e-4 * wanted.std())
    assert depths == {2}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
def test_a_checkpoint_is_exported_with_exits(name, tmp_path):
    """From torch's weights to a folder that stops some passages after the first layer."""
    made = families.build(family(name), tmp_path / "model")
    done = export(str(made.folder), tmp_path / "out", exits=[1])
    assert done.exporter == "transformers"
    assert done.parity.same_order
    assert done.exits_parity.difference <= 1e-4
    assert done.exits_parity.same_order
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(written["parity"]) == {"fp32", "exits"}
    stage = {"scorer": str(tmp_path / "out"), "exits": [1], "exit_keep": 10}
    with load({"stages": [stage]}) as reranker:
        result = reranker.rerank(QUERY, PASSAGES)
    assert sorted(result.order) == list(range(30))
    assert sum(hit.depth == 2 for hit in result) == 10
    assert Code.KEPT in {one.code for one in result.decisions}


def test_heads_of_the_models_own_stay_its_heads(tmp_path):
    """A card that names outputs keeps them for the layers asked for; the others have none."""
    folder = layered.build(tmp_path / "model", 4, (2,))
    export(str(folder), tmp_path / "out", exits=[1, 2])
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert [one.get("output") for one in card["exits"]] == [None, "exit_2"]
    assert card["calibration"] == {"a": 1.0, "b": 0.0}
    kinds = [head.kind for head in heads_at(find(tmp_path / "out"))]
    assert kinds == ["probe", "output"]


def test_weights_in_a_file_beside_the_graph_come_along(tmp_path):
    """A graph whose weights lie in a sidecar is copied with it."""
    folder = layered.build(tmp_path / "model", 3)
    model = onnx.load(folder / "model.onnx")
    onnx.save(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=256,
    )
    done = export(str(folder), tmp_path / "out", exits=[1])
    assert "w.bin" in done.files
    assert scores(Reranker(tmp_path / "out"))[0] == pytest.approx(scores(Reranker(folder))[0])


def test_weights_elsewhere_are_not_followed(tmp_path):
    """A graph that names a path outside its folder is refused, and nothing is written."""
    folder = layered.build(tmp_path / "model", 2)
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="w.bin")
    text = (folder / "model.onnx").read_bytes().replace(b"w.bin", b"../wb")
    (folder / "model.onnx").write_bytes(text)
    with pytest.raises(ModelError, match="beside it"):
        export(str(folder), tmp_path / "out", exits=[1])
    assert not (tmp_path / "out").exists()


def test_layers_that_cannot_be_cut_are_named(tmp_path):
    """An exit after a layer the model does not have is refused, with those it has."""
    folder = layered.build(tmp_path / "model", 3)
    with pytest.raises(ConfigError, match=r"after layers \[9\].*\[0, 1, 2"):
        export(str(folder), tmp_path / "out", exits=[9])
    assert not (tmp_path / "out").exists()


def test_the_command_reports_what_was_compared(tmp_path, capsys):
    """`export MODEL OUT --exits 1,2` needs no torch, and prints the parity of the segments."""
    folder = layered.build(tmp_path / "model", 3)
    assert run("export", folder, tmp_path / "out", "--exits", "2,1") == 0
    shown = capsys.readouterr().out
    assert "cut at the exits with whole" in shown
    assert "yes" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--exits", "two", "OUT"), "is no list"), (("--exits", "1"), "OUT_DIR")],
)
def test_bad_usage_is_explained(arguments, message, tmp_path, capsys):
    """Layers are numbers, and what is written needs a place."""
    folder = layered.build(tmp_path / "model", 2)
    given = [str(tmp_path / "out") if one == "OUT" else one for one in arguments]
    assert run("export", folder, *given) == 2
    assert message in capsys.readouterr().err
