"""Finding a model's files, and saying what is wrong with them."""

import json
import os
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import Reranker
from rerank_plugins.errors import ModelError
from rerank_plugins.scoring.models.content import sha256, verify
from rerank_plugins.scoring.models.files import choose_graph, find, padding
from rerank_plugins.scoring.models.hub import Hub
from tests import tiny

TEXTS = ["a red fox", "a blue hen", "the river"]
VARIANTS = (
    "onnx/model.onnx",
    "onnx/model_O3.onnx",
    "onnx/model_qint8_avx512_vnni.onnx",
    "onnx/model_qint8_avx512.onnx",
    "onnx/model_quint8_avx2.onnx",
    "onnx/model_qint8_arm64.onnx",
)
AVX512 = frozenset({"avx2", "avx512f", "avx512_vnni"})


@pytest.mark.parametrize(
    ("precision", "features", "chosen"),
    [
        ("fp32", AVX512, "onnx/model.onnx"),
        ("int8", AVX512, "onnx/model_qint8_avx512_vnni.onnx"),
        ("int8", {"avx2", "avx512f"}, "onnx/model_qint8_avx512.onnx"),
        ("int8", {"avx2"}, "onnx/model_quint8_avx2.onnx"),
        ("int8", {"arm64"}, "onnx/model_qint8_arm64.onnx"),
        ("int8", set(), "onnx/model.onnx"),
    ],
)
def test_the_graph_fits_the_precision_and_the_cpu(precision, features, chosen):
    """A quantised graph is chosen for the vector extensions of the machine, best first."""
    assert choose_graph(VARIANTS, precision, frozenset(features)) == chosen


@given(st.permutations(VARIANTS), st.sampled_from(["fp32", "int8"]))
def test_the_choice_does_not_depend_on_the_listing(names, precision):
    """Whatever order a folder or the hub lists files in, the same one is chosen."""
    assert choose_graph(names, precision, AVX512) == choose_graph(VARIANTS, precision, AVX512)


def test_a_graph_alone_is_chosen_and_one_among_strangers_is_not():
    """A single graph of any name serves; several unknown ones are no choice."""
    assert choose_graph(["mine.onnx", "a.json"], "fp32", frozenset()) == "mine.onnx"
    assert choose_graph(["mine.onnx", "yours.onnx"], "fp32", frozenset()) is None
    assert choose_graph([], "int8", frozenset()) is None


@pytest.mark.parametrize("graph", ["model.onnx", "onnx/model.onnx", "any/name.onnx"])
def test_a_folder_loads_in_each_layout(tmp_path, graph):
    """The graph may lie beside its tokenizer or a folder below it."""
    folder = tiny.build(tmp_path / "m", graph=graph)
    with Reranker(folder) as of_folder, Reranker(folder / graph) as of_file:
        one, two = (each.rerank("red fox", TEXTS) for each in (of_folder, of_file))
    assert [hit.score for hit in one] == [hit.score for hit in two]


@pytest.mark.parametrize("end", [".data", "_data"])
def test_a_sidecar_is_found_beside_its_graph(tmp_path, end):
    """Weights may lie in a file of their own, by either naming."""
    import onnx

    folder = tiny.build(tmp_path / "m")
    with Reranker(folder) as reranker:
        whole = reranker.rerank("red fox", TEXTS)
    graph = folder / "model.onnx"
    onnx.save_model(
        onnx.load(graph),
        graph,
        save_as_external_data=True,
        location=f"model.onnx{end}",
        size_threshold=1024,
    )
    assert (folder / f"model.onnx{end}").stat().st_size > 5_000
    with Reranker(folder) as reranker:
        split = reranker.rerank("red fox", TEXTS)
    assert [hit.score for hit in whole] == [hit.score for hit in split]
    (folder / f"model.onnx{end}").unlink()
    with pytest.raises(ModelError, match="sidecar"):
        Reranker(folder)


def empty(folder: Path) -> Path:
    """Make a folder with nothing in it."""
    folder.mkdir()
    return folder


def torch_only(folder: Path) -> Path:
    """Make a folder as training leaves it: weights, and no graph."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"x")
    (folder / "config.json").write_text("{}")
    return folder


def no_tokenizer(folder: Path) -> Path:
    """Make a folder whose tokenizer was forgotten."""
    (tiny.build(folder) / "tokenizer.json").unlink()
    return folder


def lone_graph(folder: Path) -> Path:
    """Name a graph without a tokenizer anywhere near."""
    return no_tokenizer(folder) / "model.onnx"


def weights_file(folder: Path) -> Path:
    """Name a file that is no graph."""
    return torch_only(folder) / "model.safetensors"


@pytest.mark.parametrize(
    ("make", "found", "remedy"),
    [
        (empty, "found nothing", "rerank-plugins export"),
        (torch_only, "found config.json, model.safetensors", "rerank-plugins export"),
        (no_tokenizer, "found config.json, model.onnx", "expected model.onnx"),
        (lone_graph, "has no tokenizer.json beside it", "copy"),
        (weights_file, "is a .safetensors file", "rerank-plugins export"),
        (lambda folder: folder / "nowhere", "no model at", "Give a folder"),
        (lambda folder: folder / "gone.onnx", "no model at", "Give a folder"),
    ],
)
def test_a_wrong_model_says_what_was_found_and_what_to_do(tmp_path, make, found, remedy):
    """An error about a model's place names what is there, what was expected, and a remedy."""
    with pytest.raises(ModelError) as caught:
        find(make(tmp_path / "model"))
    assert found in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "a b", "../x", "a/b/c", "x\0y", "z" * 5000, "-x/y", "~nobody-here/x"]
)
def test_a_name_that_is_none_is_refused_without_asking_anyone(name):
    """What can be neither a path nor a hub id never reaches the network."""
    with pytest.raises(ModelError):
        find(name)


def test_a_manifest_is_verified(tmp_path):
    """A damaged, replaced or missing file under a manifest is refused, and named."""
    folder = tiny.build(tmp_path / "m")
    names = ("model.onnx", "tokenizer.json", "config.json", "tokenizer_config.json")
    facts = {name: {"sha256": sha256(folder / name)} for name in names}
    (folder / "manifest.json").write_text(json.dumps({"files": facts}))
    assert verify(folder) == 4
    find(folder)
    graph = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(graph[:-1] + b"\0")
    with pytest.raises(ModelError, match=r"model\.onnx does not match its manifest"):
        find(folder)
    (folder / "model.onnx").write_bytes(graph)
    (folder / "manifest.json").write_text(
        json.dumps({"files": {**facts, "gone.onnx": facts["model.onnx"]}})
    )
    with pytest.raises(ModelError, match=r"gone\.onnx.*no such file"):
        find(folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"files": {}}', '{"files": []}', '{"files": {"model.onnx": "x"}}', "\0"]
)
def test_a_damaged_manifest_is_refused(tmp_path, text):
    """A manifest that lists nothing, or that cannot be read, vouches for nothing."""
    folder = tiny.build(tmp_path / "m")
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match=r"manifest"):
        find(folder)


def test_another_programs_manifest_is_not_ours(tmp_path):
    """A manifest.json that lists no files does not stop a model from loading."""
    folder = tiny.build(tmp_path / "m")
    (folder / "manifest.json").write_text('{"name": "an app"}')
    find(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "card.json"])
@pytest.mark.parametrize("text", ["{", "7", "\ud800".encode("utf-16", "surrogatepass")])
def test_unreadable_json_is_named(tmp_path, name, text):
    """A side file that is not a JSON object is an error that names it."""
    folder = tiny.build(tmp_path / "m")
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match=name):
        find(folder)


@pytest.mark.parametrize(
    ("config", "tokenizer_config", "expected"),
    [
        ({"pad_token_id": 1}, {"pad_token": "<pad>"}, 1),
        ({}, {"pad_token": "<pad>"}, "<pad>"),
        ({"pad_token_id": None}, {"pad_token": {"content": "[PAD]"}}, "[PAD]"),
        ({}, {}, None),
    ],
)
def test_padding_is_read_from_the_model_first(tmp_path, config, tokenizer_config, expected):
    """The model's own padding id wins over its tokenizer's word for it."""
    folder = tiny.build(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    assert padding(find(folder)) == expected


def test_the_embedded_model_must_match_its_manifest():
    """The packaged model is verified at every load."""
    files = find("embedded")
    assert verify(files.graph.parent) >= 3


class TestCache:
    """The layout in which huggingface-hub keeps what it fetched."""

    def test_a_cached_model_loads_offline(self, tmp_path):
        """A snapshot of links into blobs serves without a word to the network."""
        tiny.cache(
            tmp_path / "hub", "org/tiny", tiny.build(tmp_path / "m", graph="onnx/model.onnx")
        )
        with Reranker("org/tiny", cache_dir=tmp_path / "hub", local_files_only=True) as reranker:
            assert reranker.model == "org/tiny"
            assert len(reranker.rerank("red fox", TEXTS)) == 3
            assert reranker.setup.stages[0].scorer.files.revision == "c" * 40

    def test_a_cached_sidecar_is_found_through_its_link(self, tmp_path):
        """Graph and weights are links to blobs in the cache, and still belong together."""
        import onnx

        folder = tiny.build(tmp_path / "m")
        graph = folder / "model.onnx"
        with Reranker(folder) as reranker:
            whole = reranker.rerank("red fox", TEXTS)
        onnx.save_model(
            onnx.load(graph),
            graph,
            save_as_external_data=True,
            location="model.onnx.data",
            size_threshold=1024,
        )
        tiny.cache(tmp_path / "hub", "org/tiny", folder)
        with Reranker("org/tiny", cache_dir=tmp_path / "hub", local_files_only=True) as reranker:
            split = reranker.rerank("red fox", TEXTS)
        assert [hit.score for hit in whole] == [hit.score for hit in split]

    def test_a_part_of_a_model_says_so(self, tmp_path):
        """A snapshot without its graph asks to be fetched, not to be exported."""
        folder = tiny.build(tmp_path / "m")
        (folder / "model.onnx").unlink()
        tiny.cache(tmp_path / "hub", "org/tiny", folder)
        with pytest.raises(ModelError, match="Only a part of it is in the local cache"):
            find("org/tiny", hub=Hub(None, local_files_only=True, cache_dir=tmp_path / "hub"))

    def test_a_manifest_counts_for_what_was_fetched(self, tmp_path):
        """Files that were not needed may be missing from the cache, damaged ones may not."""
        folder = tiny.build(tmp_path / "m")
        facts = {
            **{path.name: {"sha256": sha256(path)} for path in folder.iterdir()},
            "model_int8.onnx": {"sha256": "0" * 64},
        }
        (folder / "manifest.json").write_text(json.dumps({"files": facts}))
        snapshot = tiny.cache(tmp_path / "hub", "org/tiny", folder)
        hub = Hub(None, local_files_only=True, cache_dir=tmp_path / "hub")
        find("org/tiny", hub=hub)
        (snapshot / "model.onnx").resolve().write_bytes(b"damaged")
        with pytest.raises(ModelError, match="does not match its manifest"):
            find("org/tiny", hub=hub)

    def test_what_is_not_cached_is_an_error_without_a_connection(self, tmp_path):
        """Offline, an unknown model is refused with the remedy."""
        with pytest.raises(ModelError, match="fetch it once while online"):
            find("org/none", hub=Hub(None, local_files_only=True, cache_dir=tmp_path))


class Site(BaseHTTPRequestHandler):
    """As much of the hub as fetching a model needs."""

    folder: Path
    fetched: list[str]
    commit = "d" * 40

    def log_message(self, *_):
        """Say nothing."""

    def do_HEAD(self):
        """Describe a file."""
        self._answer(body=False)

    def do_GET(self):
        """Give a file, or facts about the repository."""
        self._answer(body=True)

    def _answer(self, *, body):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/org/tiny/tree/"):
            self._send([self._facts(name) for name in self._names()])
        elif path.startswith("/api/models/org/tiny"):
            siblings = [{"rfilename": name} for name in self._names()]
            self._send({"id": "org/tiny", "sha": self.commit, "siblings": siblings})
        elif path.startswith("/org/tiny/resolve/"):
            name = path.split("/", 5)[5]
            data = (self.folder / name).read_bytes()
            if body:
                self.fetched.append(name)
            self.send_response(200)
            self.send_header("X-Repo-Commit", self.commit)
            self.send_header("ETag", f'"{self._facts(name)["oid"]}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _names(self):
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in paths)

    def _facts(self, name):
        path = self.folder / name
        return {
            "type": "file",
            "path": name,
            "size": path.stat().st_size,
            "oid": sha256(path)[:40],
        }

    def _send(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def site(tmp_path):
    """Serve a hub on loopback with one model, org/tiny, in many variants."""
    folder = tiny.build(tmp_path / "site", graph="onnx/model.onnx")
    (folder / "onnx" / "model.onnx.data").write_bytes(b"sidecar")
    for name in ("pytorch_model.bin", "model.safetensors", "modeling.py", "onnx/model_O4.onnx"):
        (folder / name).write_bytes(b"not wanted")
    handler = type("Handler", (Site,), {"folder": folder, "fetched": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler.fetched
        finally:
            server.shutdown()
            thread.join()


def ask(home: Path, endpoint: str, model: str = "org/tiny", **environment: str) -> str:
    """Load a model in a process of its own, which reads the hub's address at import."""
    code = (
        "from rerank_plugins import Reranker\n"
        "from rerank_plugins.errors import ModelError\n"
        "try:\n"
        f"    reranker = Reranker({model!r})\n"
        "    print('order', reranker.rerank('red fox', ['a hen', 'a red fox']).order)\n"
        "except ModelError as error:\n"
        "    print('error', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def test_only_what_is_needed_is_fetched_and_then_serves_offline(site, tmp_path):
    """From the hub come graph, sidecar, tokenizer and settings; no torch weights, no code.

    The same model then loads with the hub switched off, and with the hub out of reach.
    """
    endpoint, fetched = site
    home = tmp_path / "home"
    first = ask(home, endpoint)
    assert first.startswith("order"), first
    wanted = {"onnx/model.onnx", "onnx/model.onnx.data", "tokenizer.json"}
    assert set(fetched) == {*wanted, "config.json", "tokenizer_config.json"}
    assert ask(home, endpoint, HF_HUB_OFFLINE="1") == first
    assert ask(home, "http://127.0.0.1:9") == first
    assert len(fetched) == 5


def test_a_model_the_hub_does_not_have_is_an_error(site, tmp_path):
    """An unknown id says that it could not be fetched and what to do."""
    answer = ask(tmp_path / "home", site[0], "org/unknown")
    assert answer.startswith("error")
    assert "could not be fetched" in answer


def test_a_model_without_a_graph_names_the_command(site, tmp_path):
    """A hub model of torch weights only tells how to export it."""
    folder = tmp_path / "site"
    for path in (folder / "onnx").iterdir():
        path.unlink()
    answer = ask(tmp_path / "home", site[0])
    assert "has no ONNX file on the hub" in answer
    assert "rerank-plugins export org/tiny ./tiny-onnx" in answer


def test_the_hub_switched_off_is_honoured(site, tmp_path):
    """HF_HUB_OFFLINE=1 asks nobody."""
    answer = ask(tmp_path / "home", site[0], HF_HUB_OFFLINE="1")
    assert "the hub is off" in answer
    assert site[1] == []


@pytest.fixture
def silent():
    """Accept connections on loopback and never answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_hub_that_never_answers_is_left_for_the_cache(silent, tmp_path):
    """After a few seconds the cache serves, and what it has not is an error."""
    tiny.cache(tmp_path / "hub", "org/tiny", tiny.build(tmp_path / "m", graph="onnx/model.onnx"))
    started = time.monotonic()
    assert ask(tmp_path, silent).startswith("order")
    answer = ask(tmp_path, silent, "org/other")
    assert "could not be fetched" in answer
    assert time.monotonic() - started < 40.0
