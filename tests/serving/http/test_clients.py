"""Clients that others wrote, against our server: none needs a change but its address."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cohere
import httpx
import pytest
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

from rerank_plugins import Reranker, load
from tests.serving.http.serving import Server, running

# The frameworks' clients leave their connections to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

QUERY = "red fox"
TEXTS = ["a hen in the yard", "the red fox sleeps", "a red barn", "foxes"]
UV = Path(sys.executable).parent / "uv"

LLAMA_INDEX_COHERE = """
import sys
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
ranker = CohereRerank(api_key="any", base_url=sys.argv[1], model="lexical", top_n=4)
nodes = [NodeWithScore(node=TextNode(text=t, id_=str(i))) for i, t in enumerate(sys.argv[3:])]
print([int(n.node.id_) for n in ranker.postprocess_nodes(nodes, query_str=sys.argv[2])])
"""
LANGCHAIN_COHERE = """
import sys
from langchain_cohere import CohereRerank
from langchain_core.documents import Document
ranker = CohereRerank(cohere_api_key="any", base_url=sys.argv[1], model="lexical", top_n=4)
docs = [Document(page_content=t, metadata={"i": i}) for i, t in enumerate(sys.argv[3:])]
print([d.metadata["i"] for d in ranker.compress_documents(docs, sys.argv[2])])
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Serve the lexical scorer for the whole module."""
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def expected() -> list[int]:
    """Order the texts in process."""
    with Reranker("lexical") as reranker:
        return [hit.index for hit in reranker.rerank(QUERY, TEXTS)]


@pytest.mark.parametrize("client", [cohere.ClientV2, cohere.Client])
def test_the_cohere_sdk_gets_the_engines_order(server, expected, client) -> None:
    """Both generations of the official SDK parse the answer and its billing."""
    with httpx.Client() as wire:
        answer = client(api_key="any", base_url=server.url, httpx_client=wire).rerank(
            model="lexical", query=QUERY, documents=TEXTS, top_n=4
        )
    assert [one.index for one in answer.results] == expected
    assert answer.meta.billed_units.search_units == 1


def test_the_voyage_sdk_gets_the_engines_order(server, expected) -> None:
    """The official SDK joins our answer with the documents that it sent."""
    program = (
        "import sys, voyageai\n"
        "client = voyageai.Client('any', base_url=sys.argv[1] + '/v1')\n"
        "answer = client.rerank(sys.argv[2], sys.argv[3:], model='lexical')\n"
        "assert [sys.argv[3:][one.index] for one in answer.results] == "
        "[one.document for one in answer.results]\n"
        "print([one.index for one in answer.results], answer.total_tokens >= 0)\n"
    )
    # In a process of its own: it keeps a session per thread and never closes it.
    command = [sys.executable, "-c", program, server.url, QUERY, *TEXTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == f"{expected} True"


@pytest.mark.parametrize("provider", ["cohere", "jina", "voyage", "infinity", "tei"])
def test_our_own_remote_scorer_gets_the_engines_order(server, expected, provider) -> None:
    """One of our engines serves as the remote stage of another, in every dialect it speaks."""
    stage = {"provider": provider, "model": "lexical", "base_url": server.url}
    keyless = {"infinity", "tei"}
    if provider not in keyless:
        stage["api_key_env"] = "A_KEY"
    settings = {"stages": [{"scorer": stage}]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_KEY", "any")
        with load(settings) as reranker:
            result = reranker.rerank(QUERY, TEXTS, strict=True)
    assert [hit.index for hit in result] == expected
    assert not result.degraded


def test_llama_index_tei_gets_the_engines_order(server, expected) -> None:
    """LlamaIndex's own TEI reranker takes our server for TEI."""
    ranker = TextEmbeddingInference(base_url=server.url, top_n=4, model_name="lexical")
    nodes = [NodeWithScore(node=TextNode(text=t, id_=str(i))) for i, t in enumerate(TEXTS)]
    ranked = ranker.postprocess_nodes(nodes, query_bundle=QueryBundle(QUERY))
    assert [int(node.node.id_) for node in ranked] == expected


def test_haystack_tei_gets_the_engines_order(server, expected) -> None:
    """Haystack's own TEI ranker takes our server for TEI."""
    ranker = HuggingFaceTEIRanker(url=server.url, token=Secret.from_token("any"), top_k=4)
    documents = [Document(content=text, meta={"i": i}) for i, text in enumerate(TEXTS)]
    ranked = ranker.run(query=QUERY, documents=documents)["documents"]
    assert [document.meta["i"] for document in ranked] == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "program"),
    [
        ("llama-index-postprocessor-cohere-rerank", LLAMA_INDEX_COHERE),
        ("langchain-cohere", LANGCHAIN_COHERE),
    ],
)
def test_the_frameworks_cohere_rerankers_work(server, expected, package, program) -> None:
    """They pin other versions of the SDK, so each runs in an environment of its own."""
    command = [str(UV), "run", "--quiet", "--no-project", "--isolated", "--with", package]
    done = subprocess.run(
        [*command, "--python", sys.executable, "python", "-c", program, server.url, QUERY, *TEXTS],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == str(expected)
