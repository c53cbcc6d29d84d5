"""Bedrock's Rerank operation: every text in three layers of objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .json_body import Answer, Ask, Json, Shape, encode


@dataclass(frozen=True, slots=True)
class BedrockRerank:
    """The dialect of the agent runtime; `model` is the ARN of the model."""

    answer: Shape = field(default_factory=lambda: Shape(scores=("relevanceScore",), tokens=()))

    def ask(self, ask: Ask) -> tuple[bytes, Mapping[str, str]]:
        """Lay out one query and its sources; extra fields go to the model."""
        body: dict[str, Json] = {
            "queries": [{"type": "TEXT", "textQuery": {"text": ask.query}}],
            "sources": [_source(text) for text in ask.texts],
            "rerankingConfiguration": {
                "type": "BEDROCK_RERANKING_MODEL",
                "bedrockRerankingConfiguration": {
                    "numberOfResults": len(ask.texts),
                    "modelConfiguration": {
                        "modelArn": ask.model,
                        "additionalModelRequestFields": dict(ask.extra),
                    },
                },
            },
        }
        if ask.page is not None:
            body["nextToken"] = ask.page
        return encode(body), {}

    def read(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Read the answer, which is an ordinary one."""
        return self.answer.read(body, headers)


def _source(text: str) -> Json:
    document: Json = {"type": "TEXT", "textDocument": {"text": text}}
    return {"type": "INLINE", "inlineDocumentSource": document}
