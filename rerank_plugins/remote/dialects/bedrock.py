"""Bedrock's Rerank operation: every text lies in three nested objects."""

from collections.abc import Mapping
from dataclasses import dataclass

from .json_body import ApiRequest, ApiResponse, Json, JsonDialect, dump_json

_RESPONSE = JsonDialect(scores=("relevanceScore",), tokens=())


@dataclass(frozen=True, slots=True)
class BedrockDialect:
    """The dialect of the agent runtime; `model` is the ARN of the model."""

    def encode(self, request: ApiRequest) -> tuple[bytes, Mapping[str, str]]:
        """Return the body of a call; extra fields go to the model."""
        body: dict[str, Json] = {
            "queries": [{"type": "TEXT", "textQuery": {"text": request.query}}],
            "sources": [_source(text) for text in request.texts],
            "rerankingConfiguration": {
                "type": "BEDROCK_RERANKING_MODEL",
                "bedrockRerankingConfiguration": {
                    "numberOfResults": len(request.texts),
                    "modelConfiguration": {
                        "modelArn": request.model,
                        "additionalModelRequestFields": dict(request.extra),
                    },
                },
            },
        }
        if request.page is not None:
            body["nextToken"] = request.page
        return dump_json(body), {}

    def decode(self, body: bytes, headers: Mapping[str, str]) -> ApiResponse:
        """Return the response, which has the common form."""
        return _RESPONSE.decode(body, headers)


def _source(text: str) -> Json:
    document: Json = {"type": "TEXT", "textDocument": {"text": text}}
    return {"type": "INLINE", "inlineDocumentSource": document}
