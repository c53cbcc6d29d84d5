"""How each provider reads a request, and what it refuses."""

from collections.abc import Callable, Mapping

from .messages import Asked, RefusedError


def _strings(body: Mapping[str, object], name: str) -> list[str]:
    value = body.get(name)
    if not isinstance(value, list) or not value:
        raise RefusedError(400, f"invalid request: {name} must be a list that is not empty")
    if not all(isinstance(one, str) for one in value):
        raise RefusedError(422, f"invalid request: {name} must be strings")
    for index, one in enumerate(value):
        if not one.strip():
            raise RefusedError(400, f"invalid request: document at index {index} cannot be empty")
    return value


def _objects(body: Mapping[str, object], name: str, field: str) -> list[str]:
    value = body.get(name)
    if not isinstance(value, list) or not value:
        raise RefusedError(400, f"{name} must be a list that is not empty")
    if not all(isinstance(one, dict) and one.get(field) for one in value):
        raise RefusedError(422, f"every one of {name} needs {field}")
    return [str(one[field]) for one in value]


def _query(body: Mapping[str, object], name: str = "query") -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RefusedError(400, "invalid request: query must not be empty or be only whitespace")
    return value


def reader(
    documents: str = "documents", cut: str | None = "top_n", *, zero_means: int | None = -1
) -> Callable[[Mapping[str, object]], Asked]:
    """Read the common form; a cut of 0 is an error (-1), all (None) or none (0)."""

    def read(body: Mapping[str, object]) -> Asked:
        texts = _strings(body, documents)
        top = body.get(cut) if cut is not None else None
        if cut is None and "top_n" in body:
            raise RefusedError(422, "unknown field top_n")
        if top == 0:
            if zero_means == -1:
                raise RefusedError(400, f"{cut} must be greater than 0")
            top = zero_means
        if isinstance(top, int) and top > len(texts):
            raise RefusedError(400, f"{cut} is more than the number of documents")
        top = top if isinstance(top, int) else None
        return Asked(_query(body), texts, str(body.get("model", "")), top, body)

    return read


def read_pinecone(body: Mapping[str, object]) -> Asked:
    """Read: documents are objects with text. Raises `RefusedError`."""
    texts = _objects(body, "documents", "text")
    top = body.get("top_n")
    if not isinstance(top, int | None) or top == 0 or (top or 1) > len(texts):
        raise RefusedError(400, "top_n out of range")
    return Asked(_query(body), texts, str(body["model"]), top, body)


def read_google(body: Mapping[str, object]) -> Asked:
    """Read: records with unique ids. Raises `RefusedError`."""
    records = body.get("records")
    texts = _objects(body, "records", "content")
    ids = (
        [one.get("id") for one in records if isinstance(one, dict)]
        if isinstance(records, list)
        else []
    )
    if len(set(ids)) != len(texts) or not all(isinstance(one, str) for one in ids):
        raise RefusedError(400, "record ids must be unique strings")
    top = body.get("topN")
    top = top if isinstance(top, int) else None
    return Asked(_query(body), texts, str(body.get("model", "")), top, body)


def read_nvidia(body: Mapping[str, object]) -> Asked:
    """Read: query and passages are objects, and nothing cuts. Raises `RefusedError`."""
    if "top_k" in body or "top_n" in body:
        raise RefusedError(400, "Extra inputs are not permitted: top_k")
    query = body.get("query")
    if not isinstance(query, dict):
        raise RefusedError(422, "query must be an object with text")
    texts = _objects(body, "passages", "text")
    return Asked(_query(query, "text"), texts, str(body.get("model", "")), None, body)


def read_vllm_score(body: Mapping[str, object]) -> Asked:
    """Read: text_1 against every text_2. Raises `RefusedError`."""
    return Asked(
        _query(body, "text_1"), _strings(body, "text_2"), str(body.get("model", "")), None, body
    )


def read_bedrock(body: Mapping[str, object]) -> Asked:
    """Read: one query and its sources, three objects deep. Raises `RefusedError`."""
    try:
        query = body["queries"][0]["textQuery"]["text"]  # type: ignore[index]
        texts = [
            one["inlineDocumentSource"]["textDocument"]["text"]
            for one in body["sources"]  # type: ignore[attr-defined]
        ]
        configuration = body["rerankingConfiguration"]["bedrockRerankingConfiguration"]  # type: ignore[index]
        model = configuration["modelConfiguration"]["modelArn"]
        top = configuration["numberOfResults"]
    except (KeyError, TypeError, IndexError) as error:
        raise RefusedError(400, f"ValidationException: {error!r}") from error
    if any(not 1 <= len(text) <= 32_000 for text in texts) or not 1 <= top <= len(texts):  # noqa: PLR2004
        raise RefusedError(400, "ValidationException: value out of range")
    return Asked(query, texts, model, top, body)
