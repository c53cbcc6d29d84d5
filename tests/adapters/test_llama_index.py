"""What LlamaIndex demands of a node postprocessor."""

import asyncio
import copy
import json
import logging
import pickle
from typing import Any

import pytest
from llama_index.core import QueryBundle
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step
from llama_index.postprocessor.rerank_plugins import RerankEndEvent, RerankPluginsRerank

from rerank_plugins import RerankError

QUERY = "how do foxes hunt"
TEXTS = ["The market fell.", "Foxes hunt mice at night.", "A fox is small.", "How to bake bread."]


class _Events(BaseEventHandler):
    seen: list[Any] = []  # noqa: RUF012 - a pydantic field, copied per instance

    def handle(self, event, **_):
        if isinstance(event, ReRankStartEvent | ReRankEndEvent):
            self.seen.append(event)


class _Legacy(BaseCallbackHandler):
    def __init__(self):
        super().__init__([], [])
        self.seen = []

    def on_event_start(self, event_type, payload=None, event_id="", parent_id="", **_):
        self.seen.append(("start", event_type, payload))
        return event_id

    def on_event_end(self, event_type, payload=None, event_id="", **_):
        self.seen.append(("end", event_type, payload))

    def start_trace(self, trace_id=None):
        """Do nothing."""

    def end_trace(self, trace_id=None, trace_map=None):
        """Do nothing."""


class _Fixed(BaseRetriever):
    """A retriever whose answer is always the same shared nodes."""

    def __init__(self, nodes):
        super().__init__()
        self._nodes = nodes

    def _retrieve(self, query_bundle):
        return list(self._nodes)


@pytest.fixture
def nodes():
    """Give retrieved nodes with scores and metadata."""
    return [
        NodeWithScore(node=TextNode(text=text, id_=str(i), metadata={"page": i}), score=0.9 - i / 9)
        for i, text in enumerate(TEXTS)
    ]


@pytest.fixture
def rerank():
    """Give the adapter over the scorer that needs no model."""
    return RerankPluginsRerank(model="lexical")


@pytest.fixture
def events():
    """Record rerank events emitted anywhere."""
    root, handler = get_dispatcher(), _Events(seen=[])
    root.add_event_handler(handler)
    yield handler.seen
    root.event_handlers.remove(handler)


@pytest.fixture
def spans():
    """Record spans opened anywhere."""
    root, handler = get_dispatcher(), SimpleSpanHandler()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


def _call(rerank, nodes, *, asynchronous, **query):
    query = query or {"query_str": QUERY}
    if asynchronous:
        return asyncio.run(rerank.apostprocess_nodes(nodes, **query))
    return rerank.postprocess_nodes(nodes, **query)


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@both
def test_no_query_is_a_value_error(rerank, nodes, asynchronous):
    """Nodes without a query, as dataset generation sends them, are refused in clear words."""
    with pytest.raises(ValueError, match="no query"):
        _call(rerank, nodes, asynchronous=asynchronous, query_bundle=None)


@both
def test_no_nodes_need_no_query(rerank, events, asynchronous):
    """An empty retrieval stays empty, with no query needed and no event emitted."""
    assert _call(rerank, [], asynchronous=asynchronous, query_bundle=None) == []
    assert events == []


@both
def test_a_generator_is_a_list_of_nodes(rerank, nodes, asynchronous):
    """What can be read once only is read once: nothing of it is lost."""
    found = _call(rerank, (one for one in nodes), asynchronous=asynchronous, query_str=QUERY)
    assert found == _call(rerank, nodes, asynchronous=False, query_str=QUERY)
    assert _call(rerank, iter(()), asynchronous=asynchronous) == []


def test_two_queries_are_refused(rerank, nodes):
    """The framework's own rule holds: either query_str or query_bundle."""
    with pytest.raises(ValueError, match="both"):
        rerank.postprocess_nodes(nodes, query_bundle=QueryBundle(QUERY), query_str=QUERY)


def test_two_nodes_come_back_by_default(rerank, nodes):
    """The default top_n is the one LlamaIndex users know."""
    assert [one.node_id for one in rerank.postprocess_nodes(nodes, query_str=QUERY)] == ["1", "3"]


def test_unknown_options_are_refused():
    """A misspelled option is an error, not silence."""
    with pytest.raises(ValueError, match="topn"):
        RerankPluginsRerank(topn=3)


def test_options_may_change_between_calls(nodes):
    """Assigning an option is checked and takes effect, the model's included."""
    rerank = RerankPluginsRerank(model="lexical", top_n=1)
    assert len(rerank.postprocess_nodes(nodes, query_str=QUERY)) == 1
    rerank.top_n = 3
    assert len(rerank.postprocess_nodes(nodes, query_str=QUERY)) == 3
    lexical = rerank.postprocess_nodes(nodes, query_str=QUERY)[0].score
    rerank.model = "embedded"
    assert rerank.postprocess_nodes(nodes, query_str=QUERY)[0].score != lexical
    with pytest.raises(ValueError, match="top_n"):
        rerank.top_n = 0


def test_it_survives_json_dict_and_pickle(nodes):
    """A round trip through the framework's formats gives an equal, working postprocessor."""
    rerank = RerankPluginsRerank(
        config={"stages": [{"scorer": "lexical"}]}, metadata_mode=MetadataMode.LLM, facts_key="f"
    )
    expected = [one.score for one in rerank.postprocess_nodes(nodes, query_str=QUERY)]
    again = [
        RerankPluginsRerank.from_json(rerank.to_json()),
        RerankPluginsRerank.from_dict(rerank.to_dict()),
        RerankPluginsRerank.model_validate(rerank.model_dump()),
        pickle.loads(pickle.dumps(rerank)),
        copy.deepcopy(rerank),
    ]
    for one in again:
        assert one.to_dict() == rerank.to_dict()
        assert [n.score for n in one.postprocess_nodes(nodes, query_str=QUERY)] == expected
    assert rerank.to_dict()["class_name"] == "RerankPluginsRerank"


def test_pickling_drops_nothing(rerank, nodes, caplog):
    """The framework finds every attribute picklable, after use as well."""
    rerank.postprocess_nodes(nodes, query_str=QUERY)
    with caplog.at_level(logging.WARNING):
        pickle.dumps(rerank)
    assert "unpickleable" not in caplog.text


def test_answers_serialise(nodes):
    """Returned nodes turn into JSON, scores and facts included."""
    rerank = RerankPluginsRerank(model="lexical", keep_retrieval_score=True, facts_key="rerank")
    for one in rerank.postprocess_nodes(nodes, query_str=QUERY):
        assert json.loads(json.dumps(one.to_dict()))["score"] == one.score
        assert json.loads(one.to_json())["score"] == one.score


@pytest.mark.parametrize(
    ("mode", "excluded", "first"),
    [("embed", [], "3"), ("none", [], "1"), ("embed", ["topic"], "1"), ("all", ["topic"], "3")],
)
def test_the_model_reads_embed_metadata_by_default(nodes, mode, excluded, first):
    """The text is get_content in the chosen mode, which honours each node's exclusions."""
    nodes[3].node.metadata = {"topic": "how foxes do hunt: foxes hunt, do foxes hunt"}
    nodes[3].node.excluded_embed_metadata_keys = excluded
    rerank = RerankPluginsRerank(model="lexical", metadata_mode=mode)
    assert rerank.postprocess_nodes(nodes, query_str=QUERY)[0].node_id == first
    assert RerankPluginsRerank().metadata_mode is MetadataMode.EMBED


def test_a_node_without_text_comes_last(nodes):
    """An image without a caption is neither an error nor lost; its score is None."""
    image = NodeWithScore(node=ImageNode(image_url="x.png", id_="image"), score=1.0)
    found = RerankPluginsRerank(model="lexical", top_n=None).postprocess_nodes(
        [image, *nodes], query_str=QUERY
    )
    assert (found[-1].node_id, found[-1].score) == ("image", None)


def test_retrieval_scores_are_kept_on_copies_only(nodes):
    """keep_retrieval_score touches no shared node, and no model or LLM reads what it adds."""
    before = copy.deepcopy(nodes)
    rerank = RerankPluginsRerank(model="lexical", keep_retrieval_score=True, facts_key="rerank")
    found = rerank.postprocess_nodes(nodes, query_str=QUERY)
    assert nodes == before
    assert found[0].metadata["retrieval_score"] == nodes[1].score
    assert found[0].metadata["rerank"]["degraded"] is False
    for mode in (MetadataMode.EMBED, MetadataMode.LLM):
        assert found[0].node.get_content(mode) == nodes[1].node.get_content(mode)
    again = rerank.postprocess_nodes(found, query_str=QUERY)
    assert again[0].score == pytest.approx(
        RerankPluginsRerank(model="lexical")
        .postprocess_nodes([nodes[1], nodes[3]], query_str=QUERY)[0]
        .score
    )


def test_nodes_are_shared_where_nothing_is_added(rerank, nodes):
    """Without extra metadata the node objects are the retriever's, in new wrappers."""
    found = rerank.postprocess_nodes(nodes, query_str=QUERY)
    assert found[0].node is nodes[1].node
    assert found[0] is not nodes[1]


def test_the_score_of_a_node_is_the_calibrated_probability(nodes):
    """One meaning in all adapters: a threshold of LlamaIndex reads it."""
    found = RerankPluginsRerank(top_n=None, facts_key="rerank").postprocess_nodes(
        nodes, query_str=QUERY
    )
    facts = [one.node.metadata["rerank"] for one in found]
    assert [one.score for one in found] == [one["probability"] for one in facts]
    assert all(0.0 <= one.score <= 1.0 for one in found)
    kept = SimilarityPostprocessor(similarity_cutoff=0.5).postprocess_nodes(found)
    assert [one.score for one in kept] == [one.score for one in found if one.score >= 0.5]


def test_a_threshold_behind_a_fallback_leaves_its_good_nodes(nodes):
    """The number of a fallback is shown with its own meaning, so that context is left."""
    stages = [
        {"scorer": {"provider": "cohere", "model": "m", "base_url": "http://127.0.0.1:9"}},
        {"scorer": "embedded", "when": "fallback"},
    ]
    rerank = RerankPluginsRerank(config={"stages": stages}, top_n=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COHERE_API_KEY", "k")
        found = rerank.postprocess_nodes(nodes, query_str=QUERY)
    assert all(one.score is not None for one in found)


@both
@pytest.mark.parametrize("top_n", [None, 1])
def test_events_are_balanced_and_legal(nodes, events, asynchronous, top_n):
    """One start and one end event a call, with nodes, top_n, model, and what the engine says."""
    _call(RerankPluginsRerank(model="lexical", top_n=top_n), nodes, asynchronous=asynchronous)
    start, end = events
    assert isinstance(start, ReRankStartEvent)
    assert (start.top_n, start.model_name) == (top_n or 4, "lexical")
    assert (start.query.query_str, start.nodes) == (QUERY, nodes)
    assert isinstance(end, RerankEndEvent)
    assert end.class_name() == "ReRankEndEvent"
    assert len(end.nodes) == (top_n or 4)
    assert end.facts["degraded"] is False
    assert {one["step"] for one in end.facts["timings_ms"]} >= {"queue", "total"}


@both
def test_events_show_the_retrievers_scores(rerank, nodes, events, asynchronous):
    """The start event goes on showing what came in, whatever reranking did since."""
    scores = [one.score for one in nodes]
    _call(rerank, nodes, asynchronous=asynchronous)
    assert [one.score for one in events[0].nodes] == scores


@both
def test_a_failure_still_ends_what_it_started(nodes, events, spans, asynchronous):
    """Where reranking raises, the end event comes empty and the span is dropped."""
    legacy = _Legacy()
    rerank = RerankPluginsRerank(
        model="no/such-model",
        local_files_only=True,
        strict=True,
        callback_manager=CallbackManager([legacy]),
    )
    with pytest.raises(RerankError):
        _call(rerank, nodes, asynchronous=asynchronous)
    assert [type(one) for one in events] == [ReRankStartEvent, RerankEndEvent]
    assert (events[1].nodes, events[1].facts) == ([], {})
    assert [one[0] for one in legacy.seen if one[1] is CBEventType.RERANKING] == ["start", "end"]
    assert len(spans.dropped_spans) == 1


@both
def test_degradation_shows_in_the_end_event(nodes, events, asynchronous):
    """A lost model is told to whoever listens: degraded, and the decisions that say why."""
    rerank = RerankPluginsRerank(model="no/such-model", local_files_only=True)
    _call(rerank, nodes, asynchronous=asynchronous)
    assert events[1].facts["degraded"] is True
    assert "pass_through" in {one["code"] for one in events[1].facts["decisions"]}


@both
def test_each_call_is_one_span(rerank, nodes, events, spans, asynchronous):
    """Sync and async calls each open one span, and the events belong to it."""
    _call(rerank, nodes, asynchronous=asynchronous)
    name = "_apostprocess_nodes" if asynchronous else "_postprocess_nodes"
    own = [one for one in spans.completed_spans if "RerankPluginsRerank" in one.id_]
    assert [one.id_.split("-")[0] for one in own] == [f"RerankPluginsRerank.{name}"]
    assert {one.span_id for one in events} == {own[0].id_}


def test_events_can_be_had_by_namespace(rerank, nodes):
    """A handler on the adapter's own dispatcher hears it."""
    dispatcher = get_dispatcher("llama_index.postprocessor.rerank_plugins.base")
    handler = _Events(seen=[])
    dispatcher.add_event_handler(handler)
    try:
        rerank.postprocess_nodes(nodes, query_str=QUERY)
    finally:
        dispatcher.event_handlers.remove(handler)
    assert len(handler.seen) == 2


@both
def test_legacy_callbacks_hear_of_it(nodes, asynchronous):
    """CBEventType.RERANKING starts and ends with the payload every integration sends."""
    legacy = _Legacy()
    rerank = RerankPluginsRerank(model="lexical", callback_manager=CallbackManager([legacy]))
    found = _call(rerank, nodes, asynchronous=asynchronous)
    (_, _, start), (_, _, end) = [one for one in legacy.seen if one[1] is CBEventType.RERANKING]
    assert start == {
        EventPayload.NODES: nodes,
        EventPayload.MODEL_NAME: "lexical",
        EventPayload.QUERY_STR: QUERY,
        EventPayload.TOP_K: 2,
    }
    assert end == {EventPayload.NODES: found}


def _query_engine(nodes, *, streaming=False):
    llm = MockLLM()
    return RetrieverQueryEngine(
        _Fixed(nodes),
        response_synthesizer=get_response_synthesizer(llm=llm, streaming=streaming),
        node_postprocessors=[RerankPluginsRerank(model="lexical", top_n=1)],
    )


def test_it_works_in_a_query_engine(nodes):
    """A query engine answers from the reranked node."""
    response = _query_engine(nodes).query(QUERY)
    assert [one.node_id for one in response.source_nodes] == ["1"]


def test_it_works_in_an_async_query_engine(nodes):
    """The async query engine answers from the reranked node."""
    response = asyncio.run(_query_engine(nodes).aquery(QUERY))
    assert [one.node_id for one in response.source_nodes] == ["1"]


def test_it_works_in_a_streaming_query_engine(nodes):
    """The streaming query engine streams an answer from the reranked node."""
    response = _query_engine(nodes, streaming=True).query(QUERY)
    assert "Foxes hunt mice" in "".join(response.response_gen)
    assert [one.node_id for one in response.source_nodes] == ["1"]


def test_it_works_in_a_workflow(nodes):
    """A workflow step awaits it like any other work."""

    class _Rag(Workflow):
        @step
        async def rank(self, event: StartEvent) -> StopEvent:
            rerank = RerankPluginsRerank(model="lexical", top_n=1)
            return StopEvent(await rerank.apostprocess_nodes(nodes, query_str=event.query))

    async def go():
        return await _Rag(timeout=20).run(query=QUERY)

    assert [one.node_id for one in asyncio.run(go())] == ["1"]
