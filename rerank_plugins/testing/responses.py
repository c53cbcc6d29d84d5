"""The JSON that each provider answers."""

from .messages import Content, Row


def _document(content: Content, row: Row) -> dict[str, object]:
    if content.echo == "none":
        return {}
    return {"document": row.text if content.echo == "string" else {"text": row.text}}


def _rows(content: Content, score: str) -> list[dict[str, object]]:
    return [
        {"index": row.index, score: row.score, **_document(content, row)} for row in content.rows
    ]


def _tokens(content: Content) -> int:
    query = len(content.request.query.split())
    return sum(query + len(text.split()) for text in content.request.texts)


def _usage(content: Content) -> dict[str, int]:
    return {"prompt_tokens": _tokens(content), "total_tokens": _tokens(content)}


def cohere(content: Content) -> object:
    """Return what Cohere answers."""
    rows = _rows(content, "relevance_score")
    if content.request.body.get("relevant_spans"):
        for row, source in zip(rows, content.rows, strict=True):
            # Half open, in code points.
            row["relevant_spans"] = [{"start": 0, "end": len(source.text), "score": 0.9}]
    return {
        "id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf",
        "results": rows,
        "meta": {
            "api_version": {"version": "2", "is_deprecated": False, "is_experimental": False},
            "billed_units": {"search_units": 1.0, "input_tokens": None},
            "tokens": {"input_tokens": float(_tokens(content)), "output_tokens": 0.0},
            "cached_tokens": 0.0,
        },
    }


def jina(content: Content) -> object:
    """Return what Jina, and llama.cpp, answers."""
    rows = _rows(content, "relevance_score")
    return {"model": content.model, "object": "list", "usage": _usage(content), "results": rows}


def voyage(content: Content) -> object:
    """Return what Voyage answers."""
    return {
        "object": "list",
        "data": _rows(content, "relevance_score"),
        "model": content.model,
        "usage": {"total_tokens": _tokens(content)},
    }


def mixedbread(content: Content) -> object:
    """Return what Mixedbread answers."""
    rows = [{**row, "input": None, "object": "rank_result"} for row in _rows(content, "score")]
    return {
        "usage": {**_usage(content), "completion_tokens": None},
        "model": f"mixedbread-ai/{content.model.rpartition('/')[2]}",
        "data": rows,
        "object": "list",
        "top_k": len(rows),
        "return_input": False,
    }


def zeroentropy(content: Content) -> object:
    """Return what ZeroEntropy answers."""
    return {
        "results": _rows(content, "relevance_score"),
        "actual_latency_mode": content.request.body.get("latency") or "slow",
        "e2e_latency": 0.112,
        "inference_latency": 0.061,
        "total_bytes": 1431,
        "total_tokens": _tokens(content),
    }


def pinecone(content: Content) -> object:
    """Return what Pinecone answers."""
    rows = _rows(content, "score")
    return {"model": content.model, "data": rows, "usage": {"rerank_units": 1}}


def bedrock(content: Content) -> object:
    """Return what Bedrock's agent runtime answers."""
    return {"results": _rows(content, "relevanceScore")}


def google(content: Content) -> object:
    """Return what Google's ranking API answers."""
    rows = [
        # Rounded to two decimals; next to nothing becomes 0.0001.
        {"id": str(row.index), "score": max(round(row.score, 2), 0.0001)}
        if isinstance(row.score, float) and abs(row.score) <= 1.0
        else {"id": str(row.index), "score": row.score}
        for row in content.rows
    ]
    return {"records": rows}


def nvidia(content: Content) -> object:
    """Return what NIM answers."""
    return {"rankings": _rows(content, "logit"), "usage": _usage(content)}


def tei(content: Content) -> object:
    """Return what TEI answers."""
    return [{"index": row.index, "score": row.score} for row in content.rows]


def vllm(content: Content) -> object:
    """Return what vLLM's rerank route answers."""
    rows = [
        {**row, "document": {"text": source.text, "multi_modal": None}}
        for row, source in zip(_rows(content, "relevance_score"), content.rows, strict=True)
    ]
    return {"id": "score-1", "model": content.model, "usage": _usage(content), "results": rows}


def vllm_score(content: Content) -> object:
    """Return what vLLM's score route answers."""
    return {
        "id": "score-1",
        "object": "list",
        "created": 1700000000,
        "model": content.model,
        "data": [{**row, "object": "score"} for row in _rows(content, "score")],
        "usage": {**_usage(content), "completion_tokens": 0},
    }


def infinity(content: Content) -> object:
    """Return what Infinity answers."""
    return {
        "object": "rerank",
        "results": [{"document": None, **row} for row in _rows(content, "relevance_score")],
        "model": content.model,
        "usage": _usage(content),
        "id": "infinity-1",
        "created": 1700000000,
    }
