"""A model repository for Triton: its parts fit together, and our stage reads the same scores."""

import json

import numpy as np
import onnx
import pytest

from rerank_plugins import Reranker, load
from rerank_plugins.errors import ConfigError, InvalidRequest, ModelError
from rerank_plugins.records import Code
from rerank_plugins.scoring.export.triton import MOST_PAIRS, repository
from rerank_plugins.testing import FakeRerankServer, Fault
from tests import tiny
from tests.scoring.export.triton_schema import parse

QUERY = "what is a monoid"
# Beyond what the tiny model reads at once.
LONG = "the quick brown fox jumps over the lazy dog and the red hen " * 20
TYPES = {1: 11, 7: 9}


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny_model):
    """Write the tiny model's repository."""
    return repository(str(tiny_model), tmp_path_factory.mktemp("triton") / "models")


@pytest.fixture
def serving(written):
    """Give a function that serves the repository's own graph and opens a stage on it."""

    def open_stage(server, **changes):
        stage = {**written.stage, "base_url": server.url, "retries": 0}
        own = {name: changes.pop(name) for name in ("max_tokens", "long") if name in changes}
        return load({"stages": [{"scorer": {**stage, **changes}, **own}]})

    return open_stage


def served(written, **options):
    """Serve the repository's own graph."""
    graph = written.folder / written.model / "1" / "model.onnx"
    return FakeRerankServer("triton", graph=graph, **options)


def check_structure(repository):
    """Compare config.pbtxt with the graph it describes."""
    home = repository.folder / repository.model
    config = parse((home / "config.pbtxt").read_text())
    graph = onnx.load(home / "1" / "model.onnx").graph
    assert config.name == repository.model
    assert (config.backend, config.max_batch_size) == ("onnxruntime", MOST_PAIRS)
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert config.dynamic_batching.default_queue_policy.allow_timeout_override
    for described, real in ((config.input, graph.input), (config.output, graph.output)):
        assert [one.name for one in described] == [one.name for one in real]
        for one, info in zip(described, real, strict=True):
            kind = info.type.tensor_type
            assert one.data_type == TYPES[kind.elem_type]
            assert kind.shape.dim[0].dim_param, "the batch is no axis of the configuration"
            rest = [axis.dim_value or -1 for axis in kind.shape.dim[1:]]
            assert list(one.dims) == (rest or [1])
            assert one.HasField("reshape") == (not rest)
    for warm_up in config.model_warmup:
        assert {one.key for one in warm_up.inputs} == {one.name for one in graph.input}
        assert warm_up.batch_size <= config.max_batch_size
        assert all(one.value.zero_data and one.value.data_type == 9 for one in warm_up.inputs)
    assert {warm_up.batch_size for warm_up in config.model_warmup} == {1, MOST_PAIRS}


def test_the_configuration_describes_the_graph(written):
    """Names, types and axes of config.pbtxt are those of model.onnx, and warm-up fits them."""
    check_structure(written)
    assert {"tiny/config.pbtxt", "tiny/1/model.onnx", "tiny/tokenizer/tokenizer.json"} <= set(
        written.files
    )


@pytest.mark.parametrize("rank", [1, 2])
def test_a_graph_without_a_column_axis_is_reshaped(tmp_path, rank):
    """Triton wants an axis behind the batch, also for graphs that give [batch]."""
    model = tiny.build(tmp_path / "model", tiny.Shape(rank=rank))
    check_structure(repository(str(model), tmp_path / "models"))


def test_the_embedded_model_becomes_a_repository_with_equal_scores(tmp_path):
    """int8 weights and other outputs stay behind; what Triton runs gives the model's scores."""
    made = repository("embedded", tmp_path)
    check_structure(made)
    passages = [*tiny.passages(8), "A monoid is a set with an associative operation. " * 4]
    with served(made) as server, Reranker() as here:
        stage = {"scorer": {**made.stage, "base_url": server.url, "timeout_s": 120}}
        with load({"stages": [stage]}) as there:
            expected, found = (one.rerank(QUERY, passages, strict=True) for one in (here, there))
    assert_equal(expected, found)


def assert_equal(expected, found):
    """The same order, and scores equal up to the rounding of fp32 sums."""
    assert found.order == expected.order
    scores = [[hit.score for hit in result] for result in (expected, found)]
    spread = np.std(scores[0])
    assert np.abs(np.subtract(*scores)).max() <= 1e-4 * spread


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("long", ["window", "truncate"])
def test_scores_are_those_of_the_model_in_process(written, serving, tiny_model, binary, long):
    """Tokenised here, computed there: windows, truncation and folding included."""
    passages = [*tiny.passages(100), LONG]
    with served(written) as server, Reranker(tiny_model, long=long) as here:
        with serving(server, binary_tensors=binary, long=long) as there:
            expected, found = (one.rerank(QUERY, passages, strict=True) for one in (here, there))
        sent = server.requests
    assert_equal(expected, found)
    assert len(sent) == found.usage.remote_calls == 2
    assert all(("inference-header-content-length" in one.headers) == binary for one in sent)
    assert found.usage.pairs == expected.usage.pairs
    assert found.usage.truncated_tokens == expected.usage.truncated_tokens
    said = Code.WINDOWED if long == "window" else Code.TRUNCATED
    assert [one.count for one in found.decisions if one.code is said] == [1]
    assert sum(one.count for one in found.decisions if one.code is Code.SENT) == len(passages)


def test_no_text_travels(written, serving):
    """Only token ids leave; the audit still counts the texts behind them."""
    with served(written) as server, serving(server, binary_tensors=False) as reranker:
        reranker.rerank("what is a monoid", ["a red fox", "the quick hen"], strict=True)
        bodies = b"".join(one.body for one in server.requests)
    assert b"monoid" not in bodies
    assert b"fox" not in bodies


def test_calls_have_few_lengths_so_that_the_server_can_merge_them(written, serving):
    """Pairs are padded to one of few lengths."""
    with served(written) as server, serving(server, binary_tensors=False) as reranker:
        for words in range(1, 90, 7):
            reranker.rerank(QUERY, ["fox " * words], strict=True)
        shapes = {one.json()["inputs"][0]["shape"][1] for one in server.requests}
    assert shapes <= {32, 64, 96, 128}


@pytest.mark.parametrize("binary", [True, False])
def test_the_time_that_is_left_goes_along(written, serving, binary):
    """In microseconds, less with each attempt; nothing where there is no deadline."""
    faults = [None, Fault.SERVER_ERROR, Fault.SERVER_ERROR]
    with served(written, faults=faults) as server:
        with serving(server, binary_tensors=binary, retries=2, timeout_s=120) as reranker:
            reranker.warm_up()
            reranker.rerank(QUERY, ["a red fox"], strict=True)
            reranker.rerank(QUERY, ["a red fox"], budget_ms=60_000, strict=True)
        asked = [parameters(one) for one in server.requests]
    without, *within = [one.get("timeout") for one in asked]
    assert without is None
    assert len(within) == 3
    assert all(isinstance(one, int) for one in within)
    assert 60_000_000 > within[0] > within[1] > within[2] > 0


def parameters(received):
    """Read the parameters of a request, whose tensors may lie behind its JSON."""
    size = int(received.headers.get("inference-header-content-length", len(received.body)))
    return json.loads(received.body[:size])["parameters"]


def test_a_smaller_batch_size_is_learned_from_the_server(written, serving):
    """Triton names its max_batch_size when it refuses a batch; that is kept to from then on."""
    with served(written) as server, serving(server) as reranker:
        slots = server.dialect.__slots__
        own = {name: getattr(server.dialect, name) for name in slots} | {"cap": 16}
        server.dialect = type(server.dialect)(**own)
        passages = tiny.passages(40)
        assert not reranker.rerank(QUERY, passages).degraded
        before = len(server.requests)
        assert not reranker.rerank(QUERY, passages).degraded
        assert len(server.requests) - before == 3


def test_a_graph_that_takes_other_inputs_fails_the_stage(written, serving):
    """Without the token types that the graph wants, Triton refuses, and the stage says so."""
    with served(written) as server, serving(server, token_types=False) as reranker:
        result = reranker.rerank(QUERY, ["a red fox"])
    assert any("expected inputs" in one.detail for one in result.decisions)
    assert result.degraded


def test_broken_tensors_are_refused(written, serving):
    """Sizes that do not fit their shapes, types nobody asked for: failures, never scores."""
    broken = served(written, faults=lambda _: Fault.MISSING_INDEX)
    with broken as server, serving(server) as reranker:
        result = reranker.rerank(QUERY, ["a red fox", "a blue hen"])
    assert result.degraded
    assert result.order == (0, 1)


def test_a_query_beyond_the_model_is_the_callers_mistake(written, serving):
    """As with a model that runs here, it is said before anything is sent."""
    with served(written) as server, serving(server) as reranker:
        with pytest.raises(InvalidRequest, match="no room"):
            reranker.rerank("fox " * 500, ["a red fox"], strict=True)
        assert server.bytes_received == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer": None}, "tokenizer"),
        ({"tokenizer": "/nowhere"}, "no tokenizer"),
        ({"provider": "tei"}, "takes text"),
        ({"max_tokens": 4096}, "max_tokens"),
    ],
)
def test_stages_that_cannot_read_are_refused_at_start_up(serving, changes, said):
    """Each says what is missing or too much."""
    with FakeRerankServer("triton") as server, pytest.raises((ConfigError, ModelError), match=said):
        serving(server, **changes)


def test_nothing_is_overwritten(written, tiny_model):
    """A model of that name may be in service."""
    with pytest.raises(ModelError, match="there already"):
        repository(str(tiny_model), written.folder)


def test_a_graph_of_one_batch_size_is_refused(tmp_path):
    """Triton could not batch it."""
    model = tiny.build(tmp_path / "model", tiny.Shape(static_batch=True))
    with pytest.raises(ModelError, match="batches of 1"):
        repository(str(model), tmp_path / "models")
    assert not list((tmp_path / "models").iterdir())


def test_the_command_writes_a_repository_and_prints_its_stage(tmp_path, tiny_model, capsys):
    """`export MODEL --triton DIR` needs no torch, and says what to put into the settings."""
    from rerank_plugins.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["export", str(tiny_model), "--triton", str(tmp_path), "--json"])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["stage"]["provider"] == "triton"
    assert (tmp_path / said["model"] / "config.pbtxt").is_file()
