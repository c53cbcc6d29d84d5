"""How each provider lays out its answer."""

from .messages import Layout, Row


def _document(layout: Layout, row: Row) -> dict[str, object]:
    if layout.echo == "none":
        return {}
    return {"document": row.text if layout.echo == "string" else {"text": row.text}}


def _rows(layout: Layout, score: str) -> list[dict[str, object]]:
    return [{"index": row.index, score: row.score, **_document(layout, row)} for row in layout.rows]


def _tokens(layout: Layout) -> int:
    query = len(layout.asked.query.split())
    return sum(query + len(text.split()) for text in layout.asked.texts)


def _usage(layout: Layout) -> dict[str, int]:
    return {"prompt_tokens": _tokens(layout), "total_tokens": _tokens(layout)}


def cohere(layout: Layout) -> object:
    """Answer as Cohere does."""
    rows = _rows(layout, "relevance_score")
    if layout.asked.body.get("relevant_spans"):
        for row, one in zip(rows, layout.rows, strict=True):
            # Half open, in code points.
            row["relevant_spans"] = [{"start": 0, "end": len(one.text), "score": 0.9}]
    return {
        "id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf",
        "results": rows,
        "meta": {
            "api_version": {"version": "2", "is_deprecated": False, "is_experimental": False},
            "billed_units": {"search_units": 1.0, "input_tokens": None},
            "tokens": {"input_tokens": float(_tokens(layout)), "output_tokens": 0.0},
            "cached_tokens": 0.0,
        },
    }


def jina(layout: Layout) -> object:
    """Answer as Jina, and llama.cpp, does."""
    rows = _rows(layout, "relevance_score")
    return {"model": layout.model, "object": "list", "usage": _usage(layout), "results": rows}


def voyage(layout: Layout) -> object:
    """Answer as Voyage does."""
    return {
        "object": "list",
        "data": _rows(layout, "relevance_score"),
        "model": layout.model,
        "usage": {"total_tokens": _tokens(layout)},
    }


def mixedbread(layout: Layout) -> object:
    """Answer as Mixedbread does."""
    rows = [{**row, "input": None, "object": "rank_result"} for row in _rows(layout, "score")]
    return {
        "usage": {**_usage(layout), "completion_tokens": None},
        "model": f"mixedbread-ai/{layout.model.rpartition('/')[2]}",
        "data": rows,
        "object": "list",
        "top_k": len(rows),
        "return_input": False,
    }


def zeroentropy(layout: Layout) -> object:
    """Answer as ZeroEntropy does."""
    return {
        "results": _rows(layout, "relevance_score"),
        "actual_latency_mode": layout.asked.body.get("latency") or "slow",
        "e2e_latency": 0.112,
        "inference_latency": 0.061,
        "total_bytes": 1431,
        "total_tokens": _tokens(layout),
    }


def pinecone(layout: Layout) -> object:
    """Answer as Pinecone does."""
    rows = _rows(layout, "score")
    return {"model": layout.model, "data": rows, "usage": {"rerank_units": 1}}


def bedrock(layout: Layout) -> object:
    """Answer as Bedrock's agent runtime does."""
    return {"results": _rows(layout, "relevanceScore")}


def google(layout: Layout) -> object:
    """Answer as Google's ranking API does."""
    rows = [
        # Rounded to two decimals; next to nothing becomes 0.0001.
        {"id": str(row.index), "score": max(round(row.score, 2), 0.0001)}
        if isinstance(row.score, float) and abs(row.score) <= 1.0
        else {"id": str(row.index), "score": row.score}
        for row in layout.rows
    ]
    return {"records": rows}


def nvidia(layout: Layout) -> object:
    """Answer as NIM does."""
    return {"rankings": _rows(layout, "logit"), "usage": _usage(layout)}


def tei(layout: Layout) -> object:
    """Answer as TEI does."""
    return [{"index": row.index, "score": row.score} for row in layout.rows]


def vllm(layout: Layout) -> object:
    """Answer as vLLM's rerank route does."""
    rows = [
        {**row, "document": {"text": one.text, "multi_modal": None}}
        for row, one in zip(_rows(layout, "relevance_score"), layout.rows, strict=True)
    ]
    return {"id": "score-1", "model": layout.model, "usage": _usage(layout), "results": rows}


def vllm_score(layout: Layout) -> object:
    """Answer as vLLM's score route does."""
    return {
        "id": "score-1",
        "object": "list",
        "created": 1700000000,
        "model": layout.model,
        "data": [{**row, "object": "score"} for row in _rows(layout, "score")],
        "usage": {**_usage(layout), "completion_tokens": 0},
    }


def infinity(layout: Layout) -> object:
    """Answer as Infinity does."""
    return {
        "object": "rerank",
        "results": [{"document": None, **row} for row in _rows(layout, "relevance_score")],
        "model": layout.model,
        "usage": _usage(layout),
        "id": "infinity-1",
        "created": 1700000000,
    }
