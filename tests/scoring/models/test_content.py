"""The files that run are those that were verified, and those that keys and promises hash."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_plugins import Reranker, load
from rerank_plugins.config import guard
from rerank_plugins.errors import ModelError
from rerank_plugins.scoring.exits import calibration_file
from rerank_plugins.scoring.models.files import find, find_without_graph
from rerank_plugins.scoring.models.hub import Hub
from rerank_plugins.scoring.onnx.graph.read import load as read_graph
from rerank_plugins.scoring.onnx.options import OnnxOptions, identity
from rerank_plugins.scoring.onnx.scorer import OnnxScorer
from rerank_plugins.scoring.onnx.session import open_graph
from tests import tiny

TEXTS = ["a red fox", "a blue hen", "the river"]
DEEP = "[" * 100_000 + "]" * 100_000


def list_files(folder: Path, *without: str) -> Path:
    """Write a manifest of every file in a model's folder but some."""
    import hashlib

    names = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    ]
    facts = {
        name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
        for name in names
        if name not in without
    }
    (folder / "manifest.json").write_text(json.dumps({"files": facts}))
    return folder


def split(folder: Path, location: str = "weights.bin", graph: str = "model.onnx") -> Path:
    """Move a graph's weights into a file of their own; return that file."""
    path = folder / graph
    onnx.save_model(
        onnx.load(path), path, save_as_external_data=True, location=location, size_threshold=100
    )
    return path.parent / location


def relocate(graph: Path, location: str) -> None:
    """Make a graph say that its weights lie elsewhere."""
    model = onnx.load(graph, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    graph.write_bytes(model.SerializeToString())


def retrain(weights: Path) -> None:
    """Change weights in place, as another training would."""
    values = np.frombuffer(weights.read_bytes(), np.float32) * np.float32(0.5)
    weights.write_bytes(values.tobytes())


def scores(model: Path | str, **options: object) -> list[float]:
    """Score the texts with a model."""
    with load({"stages": [{"scorer": str(model), **options}]}) as reranker:
        return [hit.score for hit in reranker.rerank("red fox", TEXTS)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


class TestManifest:
    """Where there is a manifest, what is opened is what it lists."""

    @pytest.mark.parametrize("precision", ["int8", "fp32"])
    def test_a_graph_that_is_not_listed_does_not_run(self, tmp_path, precision):
        """A quantised graph laid beside a verified model is refused where it would be chosen."""
        folder = list_files(tiny.build(tmp_path / "m"))
        tiny.build(tmp_path / "other", tiny.Shape(seed=5))
        shutil.copy(tmp_path / "other" / "model.onnx", folder / "model_int8.onnx")
        if precision == "fp32":
            find(folder)
        else:
            with pytest.raises(ModelError, match=r"model_int8\.onnx is not in the .*manifest"):
                find(folder, precision="int8")

    @pytest.mark.parametrize(
        "name", ["config.json", "tokenizer_config.json", "card.json", "tokenizer.json"]
    )
    @pytest.mark.parametrize("door", ["folder", "file", "tokenizer"])
    def test_a_side_file_that_is_not_listed_is_refused(self, tmp_path, name, door):
        """An added configuration, card or tokenizer moves scores as well as weights do."""
        folder = tiny.build(tmp_path / "m")
        (folder / "card.json").write_text("{}")
        list_files(folder, name)
        open_by = {
            "folder": lambda: find(folder),
            "file": lambda: find(folder / "model.onnx"),
            "tokenizer": lambda: find_without_graph(folder),
        }
        with pytest.raises(ModelError, match=rf"{name} is not in the .*manifest"):
            open_by[door]()

    def test_weights_that_are_not_listed_are_refused(self, tmp_path):
        """A manifest without the file that holds the weights vouches for nothing."""
        folder = tiny.build(tmp_path / "m")
        split(folder)
        list_files(folder, "weights.bin")
        with pytest.raises(ModelError, match=r"weights\.bin is not in the .*manifest"):
            find(folder)

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(
            ["model.onnx", "weights.bin", "tokenizer.json", "config.json", "card.json"]
        ),
        st.sampled_from(["flip", "cut", "append", "remove", "replace"]),
        st.tuples(st.sampled_from(["folder", "file"]), *[st.booleans()] * 3),
    )
    def test_whatever_is_tampered_with_is_refused(self, tmp_path_factory, name, how, door):
        """Each file x each change x before or after the check: an error, never another score."""
        kind, late, rewrite, exits = door
        folder = tiny.build(tmp_path_factory.mktemp("tampered") / "m")
        (folder / "card.json").write_text('{"max_tokens": 100}')
        split(folder)
        list_files(folder)
        model = folder if kind == "folder" else folder / "model.onnx"
        options = OnnxOptions(rewrite=rewrite, graph_cache=False)
        found = find(model) if late else None
        if late:
            before = run(found, options, exits=exits)
        tamper(folder / name, how)
        if late and name in {"config.json", "card.json"}:
            # Their content was read when the model was found.
            assert run(found, options, exits=exits) == before
            return
        with pytest.raises(ModelError):
            run(found or find(model), options, exits=exits)

    def test_the_embedded_model_takes_no_file_that_is_not_its_own(self, tmp_path):
        """A configuration laid into the packaged folder is refused."""
        code = (
            "import sys, pathlib, shutil\n"
            "from rerank_plugins.scoring.models import files\n"
            "folder = pathlib.Path(sys.argv[1])\n"
            "shutil.copytree(files._EMBEDDED_FOLDER, folder)\n"
            "(folder / 'config.json').write_text('{\"max_position_embeddings\": 32}')\n"
            "files._EMBEDDED_FOLDER = folder\n"
            "try:\n"
            "    files.find('embedded')\n"
            "except files.ModelError as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "m")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "config.json is not in the model's manifest" in done.stdout

    @pytest.mark.parametrize("name", ["../tokenizer.json", "/etc/passwd", "", "C:/x"])
    def test_a_manifest_lists_files_of_its_folder_only(self, tmp_path, name):
        """Names that lead elsewhere are refused unread."""
        folder = tiny.build(tmp_path / "m")
        (folder / "manifest.json").write_text(json.dumps({"files": {name: {"sha256": "0"}}}))
        with pytest.raises(ModelError, match="manifest"):
            find(folder)


def run(found, options, *, exits):
    """Open a model that was found and score texts, whole or as segments."""
    if exits:
        from rerank_plugins.scoring.exits.heads import Head
        from rerank_plugins.scoring.exits.segmented_model import SegmentedModel, layers

        cuts = layers(found)
        layer = max(cuts)
        model = SegmentedModel(found, [Head(layer, cuts[layer], "similarity")], options)
        ids, _ = model.tokenizer.passages(TEXTS)
        query = model.tokenizer.query("red fox")
        return model.scores(model.tokenizer.assemble(query, ids, 16)).tolist()
    scorer = OnnxScorer(found, options)
    ids, _ = scorer.tokenizer.passages(TEXTS)
    query = scorer.tokenizer.query("red fox")
    return scorer.graph.run(scorer.tokenizer.assemble(query, ids, 16)).tolist()


def tamper(path: Path, how: str) -> None:
    """Change a file in one of the ways that files are changed."""
    data = path.read_bytes()
    if how == "remove":
        path.unlink()
    elif how == "flip":
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "append":
        path.write_bytes(data + b" ")
    else:
        path.unlink()
        path.write_bytes(bytes(len(data)))


class TestWeights:
    """Weights in files of their own are part of the model, and stay in its folder."""

    def test_a_retrained_model_does_not_answer_with_old_scores(self, tmp_path):
        """New weights under an old name are a new model for the graph cache."""
        folder = shutil.copytree(tiny.build(tmp_path / "m"), tmp_path / "n")
        shutil.copy("tests/data/graphs/bert-sdpa-script.onnx", folder / "model.onnx")
        weights = split(folder)
        before = scores(folder)
        retrain(weights)
        after = scores(folder)
        assert after != before
        assert after == pytest.approx(scores(folder, rewrite=False), rel=1e-3)

    def test_new_weights_are_another_model_for_whatever_is_kept_of_it(self, tmp_path):
        """Score cache, exits, guard and hidden states tell retrained weights apart."""
        folder = tiny.build(tmp_path / "m")
        weights = split(folder)

        def facts():
            files = find(folder)
            with load({"stages": [{"scorer": str(folder)}]}) as reranker:
                watched = guard.subject(reranker.setup.stages)
            return (
                identity(OnnxOptions(), files),
                calibration_file.subject(files, 64).graph_sha256,
                watched,
            )

        before = facts()
        retrain(weights)
        assert all(one != other for one, other in zip(before, facts(), strict=True))

    def test_what_was_calibrated_without_such_weights_stays_valid(self):
        """The hash of a model of one graph file is that file's."""
        files = find("embedded")
        listed = json.loads((files.graph.parent / "manifest.json").read_text())["files"]
        found = calibration_file.subject(files, 512)
        assert found.graph_sha256 == listed["model.onnx"]["sha256"]
        assert found.tokenizer_sha256 == listed["tokenizer.json"]["sha256"]

    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from(["{}", "../{}", "/{}", "a/../../{}", "..\\{}", "C:/{}", "./{}", "link/{}"]),
        st.sampled_from(["weights.bin", "model.onnx.data", "x"]),
        st.sampled_from(["load", "open", "read", "find"]),
    )
    def test_weights_outside_the_folder_are_not_read(self, tmp_path_factory, form, name, door):
        """No location leads out of the folder: upwards, absolute, or through a link."""
        home = tmp_path_factory.mktemp("outside")
        folder = tiny.build(home / "m")
        split(folder, "own.bin")
        location = form.format(name)
        if form == "/{}":
            location = str(home / name)
        shutil.copy(folder / "own.bin", home / name)
        (folder / "link").symlink_to(home)
        relocate(folder / "model.onnx", location)
        if form in {"{}", "./{}"}:
            (folder / name).symlink_to(home / name)
        doors = {
            "load": lambda: scores(folder),
            "open": lambda: open_graph(folder / "model.onnx"),
            "read": lambda: read_graph(folder / "model.onnx"),
            "find": lambda: find(folder / "model.onnx"),
        }
        with pytest.raises(ModelError, match="keeps weights in"):
            doors[door]()

    @pytest.mark.parametrize("location", ["*/_ORT_MEM_ADDR_/*", ".", "", "gone.bin"])
    def test_weights_that_are_no_file_are_refused(self, tmp_path, location):
        """Memory of the process, a folder, and nothing at all hold no weights."""
        folder = tiny.build(tmp_path / "m")
        split(folder)
        relocate(folder / "model.onnx", location)
        with pytest.raises(ModelError, match="keeps weights in"):
            find(folder)

    def test_weights_of_constants_and_subgraphs_count(self, tmp_path):
        """A location in an attribute is checked like one of the main graph."""
        folder = tiny.build(tmp_path / "m")
        path = folder / "model.onnx"
        model = onnx.load(path)
        tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=1)
        tensor.external_data.add(key="location", value="../elsewhere.bin")
        inner = onnx.helper.make_graph(
            [onnx.helper.make_node("Constant", [], ["w"], value=tensor)], "inner", [], []
        )
        outer = onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)
        model.graph.node.append(outer)
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="keeps weights in"):
            find(folder)

    def test_verified_weights_load_through_the_hubs_links(self, tmp_path):
        """A snapshot of links with a manifest and weights of their own gives the same scores."""
        folder = tiny.build(tmp_path / "m")
        whole = scores(folder)
        split(folder)
        list_files(folder)
        tiny.cache(tmp_path / "hub", "org/tiny", folder)
        hub = Hub(None, local_files_only=True, cache_dir=tmp_path / "hub")
        found = find("org/tiny", hub=hub)
        options = {"cache_dir": tmp_path / "hub", "local_files_only": True}
        assert scores("org/tiny", **options) == whole
        assert scores("org/tiny", rewrite=False, **options) == pytest.approx(whole, rel=1e-4)
        shutil.copytree(tmp_path / "hub", tmp_path / "copy", symlinks=True)
        (found.graph.parent / "weights.bin").resolve().write_bytes(b"damaged")
        with pytest.raises(ModelError, match="does not match its manifest"):
            find("org/tiny", hub=hub)


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer_config.json", "card.json", "manifest.json", "tokenizer.json"],
)
def test_json_of_any_depth_is_an_error_that_names_its_file(tmp_path, name):
    """100,000 brackets are no reason for a RecursionError."""
    folder = tiny.build(tmp_path / "m")
    (folder / name).write_text(DEEP)
    with pytest.raises(ModelError, match=name):
        Reranker(folder)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["exits.json", "exits.npz"]), st.integers(0, 10**6), st.binary(max_size=8))
def test_damaged_exits_are_an_error(tmp_path_factory, name, place, junk):
    """Exits that were damaged anywhere load or are a `ModelError`, nothing else."""
    folder = tmp_path_factory.mktemp("exits")
    from rerank_plugins.scoring.exits.calibration_file import Exits, LimitScale, Subject

    made = Exits(
        subject=Subject("a", "b", 64),
        heads=(),
        scale=LimitScale((1.0,)),
        levels=np.zeros(2),
        losses=np.zeros((3, 2)),
        top_k=3,
        loss="regret",
    )
    calibration_file.save(made, folder)
    data = (folder / name).read_bytes()
    place %= len(data)
    (folder / name).write_bytes(data[:place] + junk)
    with contextlib.suppress(ModelError):
        calibration_file.load(folder)


def test_exits_of_any_depth_are_an_error(tmp_path):
    """The file of exits is JSON too."""
    (tmp_path / "exits.json").write_text(DEEP)
    with pytest.raises(ModelError, match="no calibrated exits"):
        calibration_file.load(tmp_path)
