"""One contract for everything that reranks: the core, and every framework's adapter."""

import asyncio
import copy
import math
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from rerank_plugins import Candidate, Reranker, RerankError
from rerank_plugins.serving.adapter_support import prior
from rerank_plugins.serving.shared_engine import ComponentOptions, SharedReranker
from tests import tiny

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"

Scores = list[tuple[int, float | None]]


@dataclass(frozen=True)
class _Item:
    text: str
    prior: float | None = None
    metadata: Any = None


class _Core:
    """The bare engine."""

    def make(self, *, top_k=None, **options):
        strict = options.pop("strict", None)
        shared = SharedReranker(ComponentOptions(**options).source())
        shared.check()
        return shared, top_k, strict

    def inputs(self, items):
        return [Candidate(one.text, prior(one.prior), one.metadata) for one in items]

    def run(self, made, query, inputs) -> Scores:
        shared, top_k, strict = made
        return self._read(shared.rerank(query, inputs, top_k=top_k, strict=strict))

    async def arun(self, made, query, inputs) -> Scores:
        shared, top_k, strict = made
        return self._read(await shared.arerank(query, inputs, top_k=top_k, strict=strict))

    def degraded(self, made, query, inputs) -> bool:
        return made[0].rerank(query, inputs, top_k=made[1]).degraded

    def _read(self, result) -> Scores:
        return [(hit.index, hit.relevance) for hit in result]


class _LlamaIndex:
    """RerankPluginsRerank over nodes."""

    extra = "llama-index"
    module = "llama_index.postprocessor.rerank_plugins"
    framework = "llama_index.core"

    def make(self, *, top_k=None, **options):
        from llama_index.postprocessor.rerank_plugins import RerankPluginsRerank

        return RerankPluginsRerank(top_n=top_k, metadata_mode="none", facts_key="facts", **options)

    def inputs(self, items):
        from llama_index.core.schema import NodeWithScore, TextNode

        return [
            NodeWithScore(
                node=TextNode(text=one.text, id_=str(i), metadata=dict(one.metadata or {})),
                score=one.prior,
            )
            for i, one in enumerate(items)
        ]

    def run(self, made, query, inputs) -> Scores:
        return self._read(made.postprocess_nodes(inputs, query_str=query))

    async def arun(self, made, query, inputs) -> Scores:
        return self._read(await made.apostprocess_nodes(inputs, query_str=query))

    def degraded(self, made, query, inputs) -> bool:
        return made.postprocess_nodes(inputs, query_str=query)[0].metadata["facts"]["degraded"]

    def _read(self, nodes) -> Scores:
        return [(int(one.node_id), one.score) for one in nodes]


class _LangChain:
    """RerankPluginsCompressor over documents."""

    extra = "langchain"
    module = "langchain_rerank_plugins"
    framework = "langchain_core"

    def make(self, *, top_k=None, **options):
        from langchain_rerank_plugins import RerankPluginsCompressor

        return RerankPluginsCompressor(top_n=top_k, facts_key="facts", prior_key="score", **options)

    def inputs(self, items):
        from langchain_core.documents import Document

        return [
            Document(one.text, id=str(i), metadata={"score": one.prior, **(one.metadata or {})})
            for i, one in enumerate(items)
        ]

    def run(self, made, query, inputs) -> Scores:
        return self._read(made.compress_documents(inputs, query))

    async def arun(self, made, query, inputs) -> Scores:
        return self._read(await made.acompress_documents(inputs, query))

    def degraded(self, made, query, inputs) -> bool:
        return made.compress_documents(inputs, query)[0].metadata["facts"]["degraded"]

    def _read(self, documents) -> Scores:
        return [(int(one.id), one.metadata["relevance_score"]) for one in documents]


class _Haystack:
    """RerankPluginsRanker over documents."""

    extra = "haystack"
    module = "haystack_integrations.components.rankers.rerank_plugins"
    framework = "haystack"

    def make(self, *, top_k=None, **options):
        from haystack_integrations.components.rankers.rerank_plugins import RerankPluginsRanker

        return RerankPluginsRanker(top_k=top_k, **options)

    def inputs(self, items):
        from haystack import Document

        return [
            Document(id=str(i), content=one.text, score=one.prior, meta=dict(one.metadata or {}))
            for i, one in enumerate(items)
        ]

    def run(self, made, query, inputs) -> Scores:
        return self._read(made.run(query=query, documents=inputs))

    async def arun(self, made, query, inputs) -> Scores:
        return self._read(await made.run_async(query=query, documents=inputs))

    def degraded(self, made, query, inputs) -> bool:
        return made.run(query=query, documents=inputs)["meta"]["degraded"]

    def _read(self, output) -> Scores:
        return [(int(one.id), one.score) for one in output["documents"]]


QUERY = "where is the red fox"
UNSCORABLE = "where is nan"  # by the broken model
ITEMS = [
    _Item("The house in the field.", 0.9, {"source": "news"}),
    _Item("The quick red fox jumps over the lazy dog.", 0.5, {"source": "wiki"}),
    _Item("A fox is a brown cat and a river.", 0.7, {"source": "wiki"}),
    _Item("Apple, pear and plum.", 0.1, {"source": "blog"}),
]


@pytest.fixture(
    params=[_Core, _LlamaIndex, _LangChain, _Haystack], ids=lambda one: one.__name__[1:]
)
def seat(request):
    """Give each thing under contract in turn."""
    return request.param()


@pytest.fixture(params=[_LlamaIndex, _LangChain, _Haystack], ids=lambda one: one.__name__[1:])
def framework(request):
    """Give each adapter in turn."""
    return request.param()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """Give a model of a few kB."""
    return str(tiny.build(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> str:
    """Give a model that loads and scores the word "nan" with NaN."""
    return str(tiny.build(tmp_path_factory.mktemp("broken"), tiny.Shape(poison=True)))


@pytest.fixture(scope="module")
def engine(model):
    """Give the bare engine that every answer is compared with."""
    with Reranker(model) as reranker:
        yield reranker


def _of_core(engine, items: Sequence[_Item], *, top_k: int | None = None) -> Scores:
    candidates = [Candidate(one.text, prior(one.prior), one.metadata) for one in items]
    return [(hit.index, hit.relevance) for hit in engine.rerank(QUERY, candidates, top_k=top_k)]


def _run(seat, made, *, asynchronous: bool, query: str = QUERY) -> Scores:
    inputs = seat.inputs(ITEMS)
    if asynchronous:
        return asyncio.run(seat.arun(made, query, inputs))
    return seat.run(made, query, inputs)


def _same(found: Scores, expected: Scores) -> None:
    assert [index for index, _ in found] == [index for index, _ in expected]
    assert [score for _, score in found] == pytest.approx(
        [score for _, score in expected], abs=1e-4
    )


def test_order_and_scores_are_the_cores(seat, engine, model):
    """Every adapter gives the order and the scores of the bare engine."""
    made = seat.make(model=model)
    expected = _of_core(engine, ITEMS)
    _same(seat.run(made, QUERY, seat.inputs(ITEMS)), expected)
    _same(asyncio.run(seat.arun(made, QUERY, seat.inputs(ITEMS))), expected)


def test_scores_are_plain_floats(seat, model):
    """A score is a float, which every serialiser takes, and never a numpy scalar."""
    for _, score in seat.run(seat.make(model=model), QUERY, seat.inputs(ITEMS)):
        assert type(score) is float


def test_inputs_stay_as_they_were(seat, model):
    """Reranking changes neither the list it is given nor anything reachable from it."""
    inputs = seat.inputs(ITEMS)
    before, members = copy.deepcopy(inputs), list(inputs)
    seat.run(seat.make(model=model, top_k=2), QUERY, inputs)
    asyncio.run(seat.arun(seat.make(model=model, top_k=2), QUERY, inputs))
    assert inputs == before
    assert all(one is other for one, other in zip(inputs, members, strict=True))


def test_empty_input_gives_empty_output(seat):
    """Nothing in, nothing out, and no model is needed for it."""
    made = seat.make(model="no/such-model", local_files_only=True)
    assert seat.run(made, QUERY, []) == []
    assert asyncio.run(seat.arun(made, QUERY, [])) == []


@pytest.mark.parametrize("top_k", [1, 3, 4, 99, None])
def test_top_k_is_an_upper_bound(seat, engine, top_k, model):
    """The best k come back, or all where there are fewer."""
    found = seat.run(seat.make(model=model, top_k=top_k), QUERY, seat.inputs(ITEMS))
    _same(found, _of_core(engine, ITEMS, top_k=top_k))


@pytest.mark.parametrize("top_k", [0, -1])
def test_a_top_k_that_is_not_positive_is_refused(seat, top_k, model):
    """Asking for nothing is a mistake, said as a ValueError."""
    with pytest.raises(ValueError, match="top_"):
        seat.run(seat.make(model=model, top_k=top_k), QUERY, seat.inputs(ITEMS))


def test_a_blank_query_is_refused(seat, model):
    """A query without words is the caller's mistake, whatever the options."""
    with pytest.raises(ValueError, match="query"):
        seat.run(seat.make(model=model), "  ", seat.inputs(ITEMS))


def test_duplicate_texts_share_a_score_and_keep_their_order(seat, model):
    """The same text twice scores the same, and ties keep the retriever's order."""
    items = [_Item("bread"), _Item("foxes hunt mice"), _Item("bread"), _Item("foxes hunt mice")]
    found = seat.run(seat.make(model=model), QUERY, seat.inputs(items))
    assert [index for index, _ in found] == [1, 3, 0, 2]
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("odd", [None, math.nan, math.inf])
def test_priors_may_be_missing_or_not_finite(seat, odd, model):
    """A retriever's score of None, NaN or infinity is no prior and no error."""
    items = [_Item(one.text, odd) for one in ITEMS]
    assert seat.run(seat.make(model=model), QUERY, seat.inputs(items))[0][0] == 1


def test_priors_reach_the_engine(seat, model):
    """With all the weight on the prior, the retriever's scores order."""
    found = seat.run(seat.make(model=model, prior_weight=1.0), QUERY, seat.inputs(ITEMS))
    assert [index for index, _ in found] == [0, 2, 1, 3]


def test_blank_texts_come_last_without_a_score(seat, model):
    """What has no text is neither scored nor lost."""
    found = seat.run(seat.make(model=model), QUERY, seat.inputs([_Item(""), *ITEMS, _Item(" \n")]))
    assert found[-2:] == [(0, None), (5, None)]


def test_two_hundred_candidates(seat, engine, model):
    """A long list comes back whole and in the core's order."""
    items = [_Item(f"{one.text} Passage {i}.") for i in range(50) for one in ITEMS]
    found = seat.run(seat.make(model=model), QUERY, seat.inputs(items))
    _same(found, _of_core(engine, items))
    assert sorted(index for index, _ in found) == list(range(200))


def test_any_unicode_is_taken(seat, model):
    """Emoji, right-to-left script, combining marks, NUL and lone surrogates lose no candidate."""
    texts = ["🦊🌙", "الثعالب تصطاد", "狐狸夜间捕猎", "é́́", "a\x00b", "\ud800 lone", "ﬁne"]
    found = seat.run(
        seat.make(model=model), "fuchs 🦊 狐狸", seat.inputs([_Item(text) for text in texts])
    )
    assert sorted(index for index, _ in found) == list(range(len(texts)))


def test_twenty_threads_share_one_instance(seat, engine, model):
    """Concurrent calls from threads give each caller its own, right answer."""
    made, expected = seat.make(model=model), _of_core(engine, ITEMS)
    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(seat.run, made, QUERY, seat.inputs(ITEMS)) for _ in range(20)]
        for call in calls:
            _same(call.result(), expected)


def test_twenty_tasks_share_one_instance(seat, engine, model):
    """Concurrent calls from one event loop give each caller its own, right answer."""
    made, expected = seat.make(model=model), _of_core(engine, ITEMS)

    async def all_at_once():
        calls = (seat.arun(made, QUERY, seat.inputs(ITEMS)) for _ in range(20))
        return await asyncio.gather(*calls)

    for found in asyncio.run(all_at_once()):
        _same(found, expected)


def test_event_loops_may_come_and_go(seat, engine, model):
    """An instance outlives the event loops that it is awaited on."""
    made, expected = seat.make(model=model), _of_core(engine, ITEMS)
    for _ in range(3):
        _same(asyncio.run(seat.arun(made, QUERY, seat.inputs(ITEMS))), expected)
        _same(seat.run(made, QUERY, seat.inputs(ITEMS)), expected)


def test_the_event_loop_is_free_while_a_model_loads_and_runs(seat):
    """Awaiting never blocks the loop: a ticker beside it keeps ticking."""
    made = seat.make(max_tokens=64)
    items = [_Item(f"{one.text} {i}") for i in range(10) for one in ITEMS]
    gaps = []

    async def tick():
        last = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(0.005)
            now = asyncio.get_running_loop().time()
            gaps.append(now - last)
            last = now

    async def both():
        ticker = asyncio.create_task(tick())
        await seat.arun(made, QUERY, seat.inputs(items))
        ticker.cancel()

    asyncio.run(both())
    assert len(gaps) >= 3


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_model_that_cannot_be_loaded_keeps_the_order(seat, asynchronous):
    """Without a model, the retriever's order comes back, without scores and marked degraded."""
    made = seat.make(model="no/such-model", local_files_only=True, top_k=3)
    inputs = seat.inputs(ITEMS)
    found = _run(seat, made, asynchronous=asynchronous, query=UNSCORABLE)
    assert found == [(0, None), (1, None), (2, None)]
    assert seat.degraded(made, QUERY, inputs) is True


def test_a_model_that_fails_keeps_the_order(seat, broken):
    """Where every score is NaN, the retriever's order comes back, marked degraded."""
    made = seat.make(model=broken)
    assert seat.run(made, UNSCORABLE, seat.inputs(ITEMS)) == [(i, None) for i in range(4)]
    assert seat.degraded(made, UNSCORABLE, seat.inputs(ITEMS)) is True


@pytest.mark.parametrize("fault", ["load", "score"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_strict_raises_what_went_wrong(seat, broken, fault, asynchronous):
    """With strict on, a model that cannot be loaded or that fails is an exception."""
    model = broken if fault == "score" else "no/such-model"
    made = seat.make(model=model, local_files_only=True, strict=True)
    with pytest.raises(RerankError):
        _run(seat, made, asynchronous=asynchronous, query=UNSCORABLE)


def test_a_sound_request_is_not_degraded(seat, model):
    """The mark of degradation is off where everything went as planned."""
    assert seat.degraded(seat.make(model=model), QUERY, seat.inputs(ITEMS)) is False


def test_a_config_reaches_everything(seat, tmp_path):
    """Whatever a settings file can say holds behind an adapter, from a dict or from a path."""
    config = {"stages": [{"scorer": "lexical"}], "selection": {"top_k": 2}}
    path = tmp_path / "rerank.toml"
    path.write_text('stages = [{ scorer = "lexical" }]\nselection = { top_k = 2 }\n')
    found = seat.run(seat.make(config=config), QUERY, seat.inputs(ITEMS))
    assert [index for index, _ in found] == [1, 2]
    assert seat.run(seat.make(config=str(path)), QUERY, seat.inputs(ITEMS)) == found


def test_a_config_beside_a_model_is_refused(seat):
    """Two answers to one question are a ValueError that names them."""
    with pytest.raises(ValueError, match="model"):
        seat.run(seat.make(model="lexical", config={}), QUERY, seat.inputs(ITEMS))


def test_a_wrong_config_raises_even_if_not_strict(seat):
    """A misspelled setting is the caller's mistake and never degrades."""
    with pytest.raises(ValueError, match="stage"):
        seat.run(seat.make(config={"stage": []}), QUERY, seat.inputs(ITEMS))


@pytest.mark.parametrize("without", ["onnxruntime", "torch"])
def test_importing_an_adapter_imports_no_model_runtime(framework, without):
    """An import costs no more than the framework's own: models come with the first use."""
    code = (
        f"import sys, {framework.framework}\n"
        f"before = {without!r} in sys.modules\n"
        f"import {framework.module}\n"
        f"sys.exit(not before and {without!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_framework_is_named_with_its_extra(framework):
    """Without its framework, an adapter's import says what to install."""
    code = (
        "import sys\n"
        f"sys.modules[{framework.framework!r}] = None\n"
        f"try:\n    import {framework.module}\n"
        "except ImportError as error:\n"
        f"    sys.exit('rerank-plugins[{framework.extra}]' not in str(error))\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "/no/such/folder"},
        {"model": "a name that is none"},
        {"model": "models/tiny.onnx"},
        {"config": "/no/such/rerank.toml"},
        {"config": {"stage": []}},
        {"config": {"stages": [{"scorer": "./no/such"}]}},
        {"model": "lexical", "config": {}},
    ],
)
def test_what_no_request_could_be_answered_with_is_refused_at_once(seat, wrong):
    """A mistyped path is never answered in the retriever's order: the component is not made."""
    with pytest.raises((RerankError, ValueError)):
        seat.make(**wrong)


def test_a_model_and_a_config_may_be_paths(seat, engine, tiny_model, tmp_path):
    """`Path` objects are taken wherever their text is."""
    found = seat.run(seat.make(model=tiny_model), QUERY, seat.inputs(ITEMS))
    assert len(found) == len(ITEMS)
    path = tmp_path / "rerank.toml"
    path.write_text('stages = [{ scorer = "lexical" }]\n')
    found = seat.run(seat.make(config=path), QUERY, seat.inputs(ITEMS))
    assert found[0][0] == 1


def test_metadata_that_cannot_be_copied_is_shared(seat, model):
    """A lock in a document's metadata costs nobody their answer."""
    if isinstance(seat, _Haystack):
        pytest.skip("Haystack itself copies the metadata of a document that it is given")
    items = [_Item(one.text, one.prior, {"lock": threading.Lock()}) for one in ITEMS]
    assert len(seat.run(seat.make(model=model), QUERY, seat.inputs(items))) == len(ITEMS)
