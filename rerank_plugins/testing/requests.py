"""How each provider reads a request, and what it refuses; all raise `RefusedError`."""

from collections.abc import Mapping

from .messages import ParsedRequest, RefusedError

_MOST_BEDROCK_CHARS = 32_000


def common(
    body: Mapping[str, object],
    *,
    documents: str = "documents",
    top_n: str | None = "top_n",
    zero_means: int | None = -1,
) -> ParsedRequest:
    """Read the common form.

    documents, top_n: the names of these fields; None: there is no such field
    zero_means: what a top_n of 0 means: an error (-1), all (None) or none (0)
    """
    texts = _strings(body, documents)
    asked = body.get(top_n) if top_n is not None else None
    if top_n is None and "top_n" in body:
        raise RefusedError(422, "unknown field top_n")
    if asked == 0:
        if zero_means == -1:
            raise RefusedError(400, f"{top_n} must be greater than 0")
        asked = zero_means
    if isinstance(asked, int) and asked > len(texts):
        raise RefusedError(400, f"{top_n} is more than the number of documents")
    return _parsed(body, _query(body), texts, asked)


def pinecone(body: Mapping[str, object]) -> ParsedRequest:
    """Read documents that are objects with text."""
    texts = _objects(body, "documents", "text")
    asked = body.get("top_n")
    if not isinstance(asked, int | None) or asked == 0 or (asked or 1) > len(texts):
        raise RefusedError(400, "top_n out of range")
    return _parsed(body, _query(body), texts, asked)


def google(body: Mapping[str, object]) -> ParsedRequest:
    """Read records with unique ids."""
    texts = _objects(body, "records", "content")
    records = [record for record in _list(body, "records") if isinstance(record, dict)]
    ids = {record.get("id") for record in records}
    if len(ids) != len(texts) or not all(isinstance(name, str) for name in ids):
        raise RefusedError(400, "record ids must be unique strings")
    return _parsed(body, _query(body), texts, body.get("topN"))


def nvidia(body: Mapping[str, object]) -> ParsedRequest:
    """Read a query and passages that are objects; there is no field for top_n."""
    if "top_k" in body or "top_n" in body:
        raise RefusedError(400, "Extra inputs are not permitted: top_k")
    query = body.get("query")
    if not isinstance(query, dict):
        raise RefusedError(422, "query must be an object with text")
    return _parsed(body, _query(query, "text"), _objects(body, "passages", "text"))


def vllm_score(body: Mapping[str, object]) -> ParsedRequest:
    """Read text_1, which is compared with every text_2."""
    return _parsed(body, _query(body, "text_1"), _strings(body, "text_2"))


def bedrock(body: Mapping[str, object]) -> ParsedRequest:
    """Read a query and its sources, each in three nested objects."""
    try:
        query = body["queries"][0]["textQuery"]["text"]  # type: ignore[index]
        texts = [
            source["inlineDocumentSource"]["textDocument"]["text"]
            for source in body["sources"]  # type: ignore[attr-defined]
        ]
        configuration = body["rerankingConfiguration"]["bedrockRerankingConfiguration"]  # type: ignore[index]
        model = configuration["modelConfiguration"]["modelArn"]
        asked = configuration["numberOfResults"]
    except (KeyError, TypeError, IndexError) as error:
        raise RefusedError(400, f"ValidationException: {error!r}") from error
    lengths_fit = all(1 <= len(text) <= _MOST_BEDROCK_CHARS for text in texts)
    if not lengths_fit or not 1 <= asked <= len(texts):
        raise RefusedError(400, "ValidationException: value out of range")
    return ParsedRequest(query, texts, model, asked, body)


def _parsed(
    body: Mapping[str, object], query: str, texts: list[str], top_n: object = None
) -> ParsedRequest:
    model = str(body.get("model", ""))
    return ParsedRequest(query, texts, model, top_n if isinstance(top_n, int) else None, body)


def _query(body: Mapping[str, object], name: str = "query") -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RefusedError(400, "invalid request: query must not be empty or be only whitespace")
    return value


def _strings(body: Mapping[str, object], name: str) -> list[str]:
    values = _list(body, name)
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        raise RefusedError(422, f"invalid request: {name} must be strings")
    for index, text in enumerate(texts):
        if not text.strip():
            raise RefusedError(400, f"invalid request: document at index {index} cannot be empty")
    return texts


def _objects(body: Mapping[str, object], name: str, field: str) -> list[str]:
    values = _list(body, name)
    texts = [str(value[field]) for value in values if isinstance(value, dict) and value.get(field)]
    if len(texts) < len(values):
        raise RefusedError(422, f"every one of {name} needs {field}")
    return texts


def _list(body: Mapping[str, object], name: str) -> list[object]:
    value = body.get(name)
    if not isinstance(value, list) or not value:
        raise RefusedError(400, f"invalid request: {name} must be a list that is not empty")
    return value
