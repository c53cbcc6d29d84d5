"""What Haystack demands of a ranker."""

import asyncio
import copy
import inspect
import json
import warnings

import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.core.serialization import component_to_dict
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret
from haystack_integrations.components.rankers.rerank_plugins import RerankPluginsRanker

from rerank_plugins import RerankError
from rerank_plugins.testing import FakeRerankServer

QUERY = "how do foxes hunt"
TEXTS = ["The market fell.", "Foxes hunt mice at night.", "A fox is small.", "How to bake bread."]


@pytest.fixture
def documents():
    """Give retrieved documents with ids, scores and metadata."""
    return [
        Document(id=str(i), content=text, score=0.9 - i / 9, meta={"page": i})
        for i, text in enumerate(TEXTS)
    ]


@pytest.fixture
def ranker():
    """Give the adapter over the scorer that needs no model."""
    return RerankPluginsRanker("lexical")


def _call(ranker, documents, *, asynchronous=False, **options):
    if asynchronous:
        return asyncio.run(ranker.run_async(query=QUERY, documents=documents, **options))
    return ranker.run(query=QUERY, documents=documents, **options)


def _ids(output):
    return [one.id for one in output["documents"]]


def _pipeline(ranker):
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=str(i), content=text) for i, text in enumerate(TEXTS)])
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store))
    pipeline.add_component("ranker", ranker)
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def test_run_and_run_async_look_alike():
    """Both take the same parameters and declare the same outputs, as the framework demands."""
    run, run_async = RerankPluginsRanker.run, RerankPluginsRanker.run_async
    assert inspect.signature(run) == inspect.signature(run_async)
    assert inspect.iscoroutinefunction(run_async)
    outputs = RerankPluginsRanker("lexical").__haystack_output__._sockets_dict
    assert set(outputs) == {"documents", "meta"}


@both
def test_ten_documents_come_back_by_default(ranker, asynchronous):
    """The default top_k is the one Haystack users know."""
    many = [Document(content=f"fox {i}") for i in range(12)]
    assert len(_call(ranker, many, asynchronous=asynchronous)["documents"]) == 10


@both
@pytest.mark.parametrize("top_k", [0, -3])
def test_a_top_k_that_is_not_positive_is_refused(ranker, documents, asynchronous, top_k):
    """A wrong top_k is a ValueError at construction and at run time."""
    with pytest.raises(ValueError, match="top_k"):
        RerankPluginsRanker(top_k=top_k)
    with pytest.raises(ValueError, match="top_k"):
        _call(ranker, documents, asynchronous=asynchronous, top_k=top_k)


@both
def test_no_documents_give_no_documents(ranker, asynchronous):
    """An empty retrieval passes through, and its meta has the usual keys."""
    output = _call(ranker, [], asynchronous=asynchronous)
    assert output["documents"] == []
    assert output["meta"]["degraded"] is False


@both
def test_a_generator_is_a_list_of_documents(ranker, documents, asynchronous):
    """What can be read once only is read once: its documents keep their scores and labels."""
    found = _call(ranker, (one for one in documents), asynchronous=asynchronous)
    assert found["documents"] == _call(ranker, documents)["documents"]
    labelled = [Document(content=text, meta={"residency": "eu"}) for text in TEXTS]
    with FakeRerankServer("tei") as server:
        stage = {"scorer": {"provider": "tei", "base_url": server.url}}
        sending = RerankPluginsRanker(config={"stages": [stage]})
        meta = _call(sending, iter(labelled), asynchronous=asynchronous)["meta"]
    assert "policy" in {one["code"] for one in meta["decisions"]}


@both
def test_documents_are_replaced_not_changed(ranker, documents, asynchronous):
    """Answers are copies with a new score; the framework's mutation warning stays silent."""
    before = copy.deepcopy(documents)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _call(ranker, documents, asynchronous=asynchronous)["documents"]
    assert documents == before
    assert found[0] is not documents[1]
    assert (found[0].id, found[0].content, found[0].meta) == ("1", TEXTS[1], {"page": 1})


@both
def test_duplicates_keep_the_best_score(ranker, documents, asynchronous):
    """Of documents with one id, the one with the best score is ranked."""
    twice = [*documents, Document(id="1", content="Foxes hunt voles.", score=9.0)]
    found = _call(ranker, twice, asynchronous=asynchronous)["documents"]
    assert sorted(one.id for one in found) == ["0", "1", "2", "3"]
    assert found[0].content == "Foxes hunt voles."


@both
def test_metadata_is_read_before_the_content(asynchronous):
    """Chosen meta fields join the text, in order, before the content; missing ones are skipped."""
    documents = [
        Document(id="a", content="nothing of note", meta={"title": "foxes hunt", "none": None}),
        Document(id="b", content="foxes sleep"),
        Document(id="c", content=None, meta={"title": "how foxes do hunt, hunt"}),
    ]
    plain = RerankPluginsRanker("lexical")
    assert _ids(_call(plain, documents, asynchronous=asynchronous)) == ["b", "a", "c"]
    joined = RerankPluginsRanker("lexical", meta_fields_to_embed=["title", "none", "absent"])
    assert _ids(_call(joined, documents, asynchronous=asynchronous)) == ["c", "a", "b"]


def test_a_document_without_content_comes_last(ranker, documents):
    """Neither an error nor lost: no content, no score."""
    last = ranker.run(query=QUERY, documents=[Document(id="x"), *documents])["documents"][-1]
    assert (last.id, last.score) == ("x", None)


@both
def test_run_time_options_win(documents, asynchronous):
    """What a run says beats what the component says, false and zero included."""
    ranker = RerankPluginsRanker("lexical", top_k=4, score_threshold=0.5)
    assert _ids(_call(ranker, documents, asynchronous=asynchronous)) == ["1", "3"]
    run = _call(ranker, documents, asynchronous=asynchronous, top_k=1)
    assert len(run["documents"]) == 1
    run = _call(ranker, documents, asynchronous=asynchronous, score_threshold=0.0)
    assert len(run["documents"]) == 4


def test_a_threshold_is_inclusive_and_comes_before_the_cut(ranker, documents):
    """Documents at the threshold stay; what is below is left out before top_k counts."""
    scores = [one.score for one in ranker.run(query=QUERY, documents=documents)["documents"]]
    kept = ranker.run(query=QUERY, documents=documents, score_threshold=scores[1])["documents"]
    assert [one.score for one in kept] == scores[:2]
    one = ranker.run(query=QUERY, documents=documents, score_threshold=scores[1], top_k=1)
    assert _ids(one) == ["1"]


def test_a_threshold_cannot_empty_a_degraded_answer(documents):
    """Where nothing could be scored, the retriever's order survives any threshold."""
    ranker = RerankPluginsRanker("no/such-model", local_files_only=True, score_threshold=0.5)
    output = ranker.run(query=QUERY, documents=documents)
    assert _ids(output) == ["0", "1", "2", "3"]
    assert output["meta"]["degraded"] is True


def test_meta_tells_what_happened(ranker, documents):
    """The meta output carries timings, decisions and usage as plain data."""
    meta = ranker.run(query=QUERY, documents=documents, top_k=1)["meta"]
    assert json.loads(json.dumps(meta)) == meta
    assert {one["step"] for one in meta["timings_ms"]} >= {"queue", "total"}
    assert "cut" in {one["code"] for one in meta["decisions"]}
    assert meta["usage"]["pairs"] == 4


def test_construction_is_cheap_and_warm_up_is_idempotent():
    """A ranker loads at warm_up, once; later calls find the engine warm."""
    ranker = RerankPluginsRanker(max_tokens=96)
    assert ranker._shared is None
    ranker.warm_up()
    engine = ranker._engine().engine()
    assert engine.ready
    ranker.warm_up()
    assert ranker._engine().engine() is engine
    ranker.close()
    assert ranker._shared is None
    asyncio.run(ranker.close_async())


def test_async_warm_up_leaves_the_loop_free():
    """Loading in an async pipeline happens beside the event loop, not on it."""
    ranker = RerankPluginsRanker(max_tokens=80)
    ticks = []

    async def go():
        async def tick():
            while True:
                ticks.append(1)
                await asyncio.sleep(0.005)

        ticker = asyncio.create_task(tick())
        await ranker.warm_up_async()
        ticker.cancel()

    asyncio.run(go())
    assert ranker._engine().engine().ready
    assert len(ticks) >= 3


def test_a_run_warms_itself_up_and_revives_a_closed_ranker(documents, ranker):
    """Run alone loads what it needs, before warm_up and after close."""
    first = _ids(ranker.run(query=QUERY, documents=documents))
    ranker.close()
    assert _ids(ranker.run(query=QUERY, documents=documents)) == first


def test_warm_up_tells_of_a_missing_model():
    """A model that cannot be loaded raises where strict, and is left to `run` where not."""
    RerankPluginsRanker("no/such-model", local_files_only=True).warm_up()
    with pytest.raises(RerankError):
        RerankPluginsRanker("no/such-model", local_files_only=True, strict=True).warm_up()
    with pytest.raises(ValueError, match="unknown key"):
        RerankPluginsRanker(config={"stage": 1}).warm_up()


def test_rankers_share_one_engine_until_the_last_lets_go():
    """Same settings, same model in memory, across components; it goes with its last holder."""
    one, two = RerankPluginsRanker(max_tokens=72), RerankPluginsRanker(max_tokens=72, top_k=3)
    assert one._engine().engine() is two._engine().engine()
    other = RerankPluginsRanker(max_tokens=73)
    assert other._engine().engine() is not one._engine().engine()
    before = id(one._engine().engine())
    one.close()
    assert id(two._engine().engine()) == before


def test_its_type_is_its_home():
    """The YAML type is the path that the default allow-list trusts."""
    home = "haystack_integrations.components.rankers.rerank_plugins.ranker.RerankPluginsRanker"
    assert RerankPluginsRanker().to_dict()["type"] == home


def test_a_pipeline_survives_yaml(documents):
    """Pipeline.loads(p.dumps()) == p with the framework's default allow-list, and it runs."""
    ranker = RerankPluginsRanker(
        config={"stages": [{"scorer": "lexical"}], "budget": {"time_ms": 500}},
        top_k=2,
        meta_fields_to_embed=["page"],
        score_threshold=0.0,
        strict=True,
    )
    pipeline = Pipeline()
    pipeline.add_component("ranker", ranker)
    again = Pipeline.loads(pipeline.dumps())
    assert again == pipeline
    assert _ids(again.run({"query": QUERY, "documents": documents})["ranker"]) == ["1", "3"]


def test_every_option_is_saved():
    """What the constructor takes, to_dict gives, and from_dict takes back unchanged."""
    options = set(inspect.signature(RerankPluginsRanker.__init__).parameters) - {"self"}
    data = component_to_dict(RerankPluginsRanker(budget_ms=20.0, token=None), "ranker")
    assert set(data["init_parameters"]) == options
    kept = copy.deepcopy(data)
    assert RerankPluginsRanker.from_dict(data).to_dict() == kept == data


def test_a_secret_is_saved_by_name_only(monkeypatch):
    """YAML names the environment variable, the engine's settings too, and neither its value."""
    monkeypatch.setenv("MY_HUB_TOKEN", "hf_very_secret")
    secret = Secret.from_env_var(["NOT_SET", "MY_HUB_TOKEN"])
    ranker = RerankPluginsRanker("lexical", token=secret)
    pipeline = Pipeline()
    pipeline.add_component("ranker", ranker)
    ranker.warm_up()
    assert "hf_very_secret" not in pipeline.dumps() + repr(ranker._engine().source)
    assert ranker._engine().source["stages"][0]["token_env"] == "MY_HUB_TOKEN"
    assert Pipeline.loads(pipeline.dumps()).get_component("ranker").token == secret


def test_a_secret_is_needed_at_warm_up_only(monkeypatch):
    """A strict secret that is not set fails at warm_up, not when the pipeline is built."""
    monkeypatch.delenv("NOT_SET", raising=False)
    ranker = RerankPluginsRanker("lexical", token=Secret.from_env_var("NOT_SET"))
    with pytest.raises(ValueError, match="NOT_SET"):
        ranker.warm_up()


def test_a_secret_that_holds_its_value_is_refused():
    """Secret.from_token could not be saved; the message says what to give."""
    with pytest.raises(ValueError, match="from_env_var"):
        RerankPluginsRanker("lexical", token=Secret.from_token("hf_x")).warm_up()


@both
def test_it_works_in_a_pipeline(asynchronous):
    """Behind a BM25 retriever it reranks, synchronously and asynchronously."""
    pipeline = _pipeline(RerankPluginsRanker("lexical", top_k=1))
    data = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY}}
    output = asyncio.run(pipeline.run_async(data)) if asynchronous else pipeline.run(data)
    assert _ids(output["ranker"]) == ["1"]
    assert output["ranker"]["meta"]["degraded"] is False


def test_run_time_options_pass_through_a_pipeline():
    """Every override is an input socket."""
    pipeline = _pipeline(RerankPluginsRanker("lexical"))
    options = {"top_k": 1, "score_threshold": 0.1, "budget_ms": 5000.0}
    output = pipeline.run({"retriever": {"query": QUERY}, "ranker": {"query": QUERY, **options}})
    assert len(output["ranker"]["documents"]) == 1
