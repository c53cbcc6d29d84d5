"""The frozen requests of the three adapters."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rerank_plugins import Candidate
from rerank_plugins.testing import FakeRerankServer

from .material import QUERIES, Row, facts_row, failed, found, labelled, number, odd

_CASCADE: dict[str, Any] = {
    "stages": [{"scorer": "lexical", "keep": 4}, {"scorer": "embedded"}],
    "selection": {"top_k": 5},
}
_ODD = [one for one in odd() if one.text is not None]
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "words": {"model": "lexical"},
    "weight": {"prior_weight": 0.5, "depth": 6},
    "model only": {"prior_weight": 0.0, "max_tokens": 96},
    "config": {"config": _CASCADE},
    "nowhere": {"model": "/nowhere", "local_files_only": True},
    "nowhere, strict": {"model": "/nowhere", "local_files_only": True, "strict": True},
    "wrong config": {"config": {"stage": []}},
    "two answers": {"model": "lexical", "config": _CASCADE},
    "time": {"budget_ms": 120_000.0},
}


_held: list[Any] = []
"""Adapters that have been asked: they hold the engines that others with their settings share."""


class Asking(Protocol):
    """Collects what requests gave, by name."""

    def put(self, name: str, row: Row) -> None:
        """Keep what a request gave."""


def _tried(asked: Asking, name: str, make: Any) -> None:
    try:
        asked.put(name, make())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is to be the same
        asked.put(name, failed(error))


def _found(name: str) -> Sequence[Candidate]:
    return _ODD if name == "words" else found(QUERIES[0], 8)


def llama_index(asked: Asking) -> None:
    """Ask the LlamaIndex postprocessor."""
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.rerank_plugins import RerankPluginsRerank

    def nodes(some: Sequence[Candidate]) -> list[Any]:
        return [
            NodeWithScore(
                node=TextNode(text=one.text, id_=str(place), metadata=dict(one.metadata or {})),
                score=one.prior,
            )
            for place, one in enumerate(some)
        ]

    def read(answer: Sequence[Any]) -> Row:
        return {
            "hits": [
                [one.node_id, number(one.score), number(one.metadata.get("retrieval_score"))]
                for one in answer
            ],
            "facts": [facts_row(one.metadata["facts"]) for one in answer[:1]],
        }

    for name, given in OPTIONS.items():
        for top_n in (3, None):

            def run(given: Mapping[str, Any] = given, name: str = name, top: Any = top_n) -> Row:
                rerank = RerankPluginsRerank(
                    **given, top_n=top, facts_key="facts", keep_retrieval_score=True
                )
                _held.append(rerank)
                return read(rerank.postprocess_nodes(nodes(_found(name)), query_str=QUERIES[0]))

            _tried(asked, f"llama_index/{name}/{top_n}", run)
    rerank = RerankPluginsRerank(facts_key="facts", metadata_mode="none")
    some = nodes(labelled(found(QUERIES[1], 6), "eu"))
    again = asyncio.run(rerank.apostprocess_nodes(some, query_str=QUERIES[1]))
    asked.put("llama_index/awaited", read(again))
    dumped = RerankPluginsRerank.from_dict(rerank.to_dict())
    asked.put("llama_index/loaded", read(dumped.postprocess_nodes(some, query_str=QUERIES[1])))
    _tried(asked, "llama_index/no query", lambda: read(rerank.postprocess_nodes(some)))
    asked.put("llama_index/nothing", read(rerank.postprocess_nodes([], query_str="a")))


def langchain(asked: Asking) -> None:
    """Ask the LangChain compressor and cross-encoder."""
    from langchain_core.documents import Document
    from langchain_rerank_plugins import RerankPluginsCompressor

    def documents(some: Sequence[Candidate]) -> list[Any]:
        return [
            Document(one.text, id=str(place), metadata={"score": one.prior})
            for place, one in enumerate(some)
        ]

    def read(answer: Sequence[Any]) -> Row:
        return {
            "hits": [[one.id, number(one.metadata["relevance_score"])] for one in answer],
            "facts": [facts_row(one.metadata["facts"]) for one in answer[:1]],
        }

    for name, given in OPTIONS.items():
        for top_n in (3, None):

            def run(given: Mapping[str, Any] = given, name: str = name, top: Any = top_n) -> Row:
                made = RerankPluginsCompressor(**given, top_n=top, facts_key="facts")
                _held.append(made)
                return read(made.compress_documents(documents(_found(name)), QUERIES[0]))

            _tried(asked, f"langchain/{name}/{top_n}", run)
    made = RerankPluginsCompressor(facts_key="facts", prior_key=None)
    some = documents(found(QUERIES[1], 6))
    again = asyncio.run(made.acompress_documents(some, QUERIES[1]))
    asked.put("langchain/awaited", read(again))
    chained = made.as_runnable().invoke({"documents": some, "query": QUERIES[1]})
    asked.put("langchain/chained", read(chained))
    texts = [{"a": "x", "text": one.page_content} for one in some]
    for what, given in (("documents", some), ("dicts", texts)):
        rows = made.rerank(given, QUERIES[1], top_n=4)
        hits = [[one["index"], number(one["relevance_score"])] for one in rows]
        asked.put(f"langchain/rerank {what}", {"hits": hits})
    asked.put("langchain/nothing", read(made.compress_documents([], "a")))
    _cross_encoder(asked)


def _cross_encoder(asked: Asking) -> None:
    from langchain_rerank_plugins import RerankPluginsCrossEncoder

    pairs = [(query, one.text or "") for query in QUERIES[:2] for one in found(QUERIES[0], 4)]
    options: Mapping[str, Mapping[str, Any]] = {
        "embedded": {},
        "words": {"model": "lexical"},
        "config": {"config": {"stages": [{"scorer": "embedded"}]}},
        "nowhere": {"model": "/nowhere"},
    }
    for name, given in options.items():

        def run(given: Mapping[str, Any] = given) -> Row:
            made = RerankPluginsCrossEncoder(**given)
            return {"hits": [number(one) for one in made.score([*pairs, ("a", " ")])]}

        _tried(asked, f"langchain/cross-encoder {name}", run)


def haystack(asked: Asking) -> None:
    """Ask the Haystack ranker."""
    from haystack import Document
    from haystack_integrations.components.rankers.rerank_plugins import RerankPluginsRanker

    def documents(some: Sequence[Candidate]) -> list[Any]:
        return [
            Document(content=one.text, id=str(place), score=one.prior, meta={"title": f"t{place}"})
            for place, one in enumerate(some)
        ]

    def read(answer: Mapping[str, Any]) -> Row:
        hits = [[one.id, number(one.score)] for one in answer["documents"]]
        return {"hits": hits, "facts": facts_row(answer["meta"])}

    for name, given in OPTIONS.items():
        for top_k in (3, None):

            def run(given: Mapping[str, Any] = given, name: str = name, top: Any = top_k) -> Row:
                made = RerankPluginsRanker(**given, top_k=top)
                _held.append(made)
                return read(made.run(query=QUERIES[0], documents=documents(_found(name))))

            _tried(asked, f"haystack/{name}/{top_k}", run)
    made = RerankPluginsRanker(meta_fields_to_embed=["title"], embedding_separator=" | ")
    some = documents(found(QUERIES[1], 6))
    asked.put("haystack/meta", read(made.run(query=QUERIES[1], documents=[*some, some[0]])))
    again = asyncio.run(made.run_async(query=QUERIES[1], documents=some, top_k=2))
    asked.put("haystack/awaited", read(again))
    cut: dict[str, Any] = {"score_threshold": 0.3}
    asked.put("haystack/threshold", read(made.run(query=QUERIES[1], documents=some, **cut)))
    loaded = RerankPluginsRanker.from_dict(made.to_dict())
    asked.put("haystack/loaded", read(loaded.run(query=QUERIES[1], documents=some)))
    _tried(asked, "haystack/blank", lambda: read(made.run(query=" ", documents=some)))
    _far(asked, RerankPluginsRanker, some)


def _far(asked: Asking, ranker: Any, some: Sequence[Any]) -> None:
    """Ask a remote model behind the ranker."""
    with FakeRerankServer("tei") as server:
        stage = {"scorer": {"provider": "tei", "base_url": server.url, "retries": 0}}
        output = ranker(config={"stages": [stage]}).run(query=QUERIES[1], documents=list(some))
        hits = [[one.id, number(one.score)] for one in output["documents"]]
        asked.put("haystack/remote", {"hits": hits, "facts": facts_row(output["meta"])})
