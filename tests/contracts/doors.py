"""Every door through which a document reaches the engine, each asked in its own format.

A document is a dict: `text`, and where its format allows one a label. A door says which of these
places it has: "own" (a field of the document), "metadata", "meta", and "inner" (metadata inside
metadata). What is not in the places of a door is not given to it.
"""

import asyncio
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_plugins import Candidate, Reranker, cli, load
from rerank_plugins.serving.shared_engine import ComponentOptions, SharedReranker

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"

QUERY = "red fox"
KEY = "residency"
Document = Mapping[str, Any]
Ask = Callable[[Path, Sequence[Document]], None]

FRAMEWORK = ("metadata", "inner")
OBJECT = ("own", "metadata", "meta", "inner")


@dataclass(frozen=True)
class Door:
    """A way in: the places where its documents may have a label, and how to ask through it."""

    name: str
    places: tuple[str, ...]
    ask: Ask

    def __str__(self) -> str:
        return self.name


def document(text: str, place: str, *label: Any, key: str = KEY) -> dict[str, Any]:
    """Return a document with a label in a place, or without one."""
    labelled = {key: label[0]} if label else {}
    wrap = {"own": lambda: labelled, "inner": lambda: {"metadata": {"meta": labelled}}}
    return {"text": text, **wrap.get(place, lambda: {place: labelled})()}


def _reranker(ask: Callable[[Reranker, Sequence[Document]], object]) -> Ask:
    def through(config: Path, documents: Sequence[Document]) -> None:
        with load(config) as reranker:
            ask(reranker, documents)

    return through


def _candidates(documents: Sequence[Document]) -> list[Candidate]:
    return [Candidate(one["text"], metadata=one.get("metadata")) for one in documents]


def _core_async(config: Path, documents: Sequence[Document]) -> None:
    shared = SharedReranker(ComponentOptions(config=str(config)).source())
    asyncio.run(shared.arerank(QUERY, _candidates(documents)))


def _llama_index(config: Path, documents: Sequence[Document], *, wait: bool, cut: bool) -> None:
    from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
    from llama_index.postprocessor.rerank_plugins import RerankPluginsRerank

    nodes = []
    for one in documents:
        metadata = one.get("metadata") or {}
        source = {
            NodeRelationship.SOURCE: RelatedNodeInfo(node_id="source", metadata=metadata),
        }
        node = TextNode(
            text=one["text"],
            metadata={} if cut else metadata,
            excluded_embed_metadata_keys=[KEY, "meta"],
            relationships=source if cut else {},
        )
        nodes.append(NodeWithScore(node=node, score=0.5))
    rerank = RerankPluginsRerank(config=str(config))
    if wait:
        asyncio.run(rerank.apostprocess_nodes(nodes, query_str=QUERY))
    else:
        rerank.postprocess_nodes(nodes, query_str=QUERY)


def _langchain(config: Path, documents: Sequence[Document], *, way: str) -> None:
    from langchain_core.documents import Document as LangChainDocument
    from langchain_rerank_plugins import RerankPluginsCompressor

    compressor = RerankPluginsCompressor(config=str(config))
    if way == "rerank-dicts":
        compressor.rerank([dict(one) for one in documents], QUERY)
        return
    given = [
        LangChainDocument(one["text"], metadata=one.get("metadata") or {}) for one in documents
    ]
    chain = {"documents": given, "query": QUERY}
    {
        "compress": lambda: compressor.compress_documents(given, QUERY),
        "acompress": lambda: asyncio.run(compressor.acompress_documents(given, QUERY)),
        "invoke": lambda: compressor.as_runnable().invoke(chain),
        "ainvoke": lambda: asyncio.run(compressor.as_runnable().ainvoke(chain)),
        "rerank": lambda: compressor.rerank(given, QUERY),
    }[way]()


def _haystack(config: Path, documents: Sequence[Document], *, wait: bool, twins: bool) -> None:
    from haystack import Document as HaystackDocument
    from haystack_integrations.components.rankers.rerank_plugins import RerankPluginsRanker

    given = []
    for place, one in enumerate(documents):
        meta = one.get("metadata") or {}
        given.append(HaystackDocument(id=str(place), content=one["text"], meta=meta, score=0.1))
        if twins:  # The same document again, found by another retriever, without its label.
            given.append(HaystackDocument(id=str(place), content=one["text"], meta={}, score=0.9))
    ranker = RerankPluginsRanker(config=str(config), meta_fields_to_embed=["title"])
    if wait:
        asyncio.run(ranker.run_async(query=QUERY, documents=given))
    else:
        ranker.run(query=QUERY, documents=given)


def _server(config: Path, documents: Sequence[Document], *, route: str) -> None:
    from starlette.testclient import TestClient

    from rerank_plugins.serving.http.app import Serving, build

    with TestClient(build(Serving(open_reranker=lambda: load(config)))) as client:
        body = {"query": QUERY, "documents": list(documents)}
        assert client.post(route, json=body).status_code == 200


def _json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _command(*arguments: object) -> None:
    try:
        code = cli.main([str(one) for one in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    if code:
        raise SystemExit(code)


def _cli_run(config: Path, documents: Sequence[Document]) -> None:
    docs = _json_lines(config.parent / "docs.jsonl", documents)
    _command("run", "-q", QUERY, "--docs", docs, "-c", config, "--json")


def _cli_eval(config: Path, documents: Sequence[Document], *, kind: str) -> None:
    folder = config.parent / kind
    extra = ["--label-free"] if kind == "label-free" else []
    rows = [{"docid": str(i), "score": 1.0, "rel": i, **one} for i, one in enumerate(documents)]
    if kind == "table":
        place = _json_lines(
            folder / "table.jsonl",
            [{"query": QUERY, "passage": one["text"], "label": 1, **one} for one in documents],
        )
    elif kind == "beir":
        place = folder
        _json_lines(folder / "corpus.jsonl", [{"_id": row["docid"], **row} for row in rows])
        _json_lines(folder / "queries.jsonl", [{"_id": "q", "text": QUERY}])
        run = "".join(f"q Q0 {row['docid']} 1 {row['score']} bm25\n" for row in rows)
        qrels = "".join(f"q 0 {row['docid']} 1\n" for row in rows)
        for name, text in (("candidates/bm25.trec", run), ("qrels.txt", qrels)):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    else:
        place = folder
        other = {"docid": "x", "text": "fox", KEY: "on-prem"}
        topics = [
            {"qid": "1", "query": QUERY, "candidates": rows},
            {"qid": "2", "query": "another", "candidates": [other]},
        ]
        _json_lines(folder / "rerank/run.jsonl", topics)
    _command("eval", "--dataset", place, "-c", config, "--json", *extra)


def _ray(config: Path, documents: Sequence[Document], *, columns: bool) -> None:
    import pyarrow as pa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own.
        from rerank_plugins.serving.ray import RayOptions, _BatchReranker

    batch = _BatchReranker(RayOptions(config=str(config)), None)
    # One table each: a column has one type.
    for one in documents:
        row: dict[str, Any] = {"id": "1", "query": QUERY, "passages": [dict(one)]}
        if columns:
            beside = {name: [value] for name, value in one.items() if name != "text"}
            row |= {"passages": [one["text"]], **beside}
        batch(pa.Table.from_pylist([row]))


def _with(ask: Callable[..., None], **options: object) -> Ask:
    return lambda config, documents: ask(config, documents, **options)


def _sync_and_async() -> Iterator[Door]:
    for wait in (False, True):
        way = "async" if wait else "sync"
        for cut in (False, True):
            name = f"llama_index-{way}{'-cut' if cut else ''}"
            yield Door(name, FRAMEWORK, _with(_llama_index, wait=wait, cut=cut))
        for twins in (False, True):
            name = f"haystack-{way}{'-twins' if twins else ''}"
            yield Door(name, FRAMEWORK, _with(_haystack, wait=wait, twins=twins))


DOORS = (
    Door("core", FRAMEWORK, _reranker(lambda r, given: r.rerank(QUERY, _candidates(given)))),
    Door("core-async", FRAMEWORK, _core_async),
    *_sync_and_async(),
    *(
        Door(f"langchain-{way}", FRAMEWORK, _with(_langchain, way=way))
        for way in ("compress", "acompress", "invoke", "ainvoke", "rerank")
    ),
    Door("langchain-rerank-dicts", OBJECT, _with(_langchain, way="rerank-dicts")),
    *(
        Door(f"server{route.replace('/', '-')}", OBJECT, _with(_server, route=route))
        for route in ("/v2/rerank", "/v1/rerank", "/rerank")
    ),
    Door("cli-run", OBJECT, _cli_run),
    *(
        Door(f"cli-eval-{kind}", OBJECT, _with(_cli_eval, kind=kind))
        for kind in ("beir", "lines", "table", "label-free")
    ),
    Door("ray-passages", OBJECT, _with(_ray, columns=False)),
    Door("ray-columns", OBJECT, _with(_ray, columns=True)),
)


@contextmanager
def settings_file(
    folder: Path, policy: Mapping[str, Any], *urls: Mapping[str, Any]
) -> Iterator[Path]:
    """Write settings of remote stages with a local fallback, every stage calibrated."""
    remote = [{"provider": "cohere", "model": "m", "retries": 0, **url} for url in urls]
    stages = [{"scorer": scorer, "calibration": [6.0, -3.0]} for scorer in remote]
    local = {"scorer": "lexical", "when": "fallback", "calibration": [2.0, -1.5]}
    path = folder / "rerank.json"
    path.write_text(json.dumps({"stages": [*stages, local], "policy": policy}), encoding="utf-8")
    yield path
