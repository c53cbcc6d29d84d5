"""A LangChain cross-encoder over a shared engine."""

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from langchain_core.cross_encoders import BaseCrossEncoder

from rerank_plugins import Candidate
from rerank_plugins.serving.shared_engine import ComponentOptions, SharedReranker, shared_reranker


class RerankPluginsCrossEncoder(BaseCrossEncoder):
    """Scores pairs of texts, for whatever takes a cross-encoder, such as `CrossEncoderReranker`.

    A failure raises, since there is no order to keep. A blank text scores minus infinity. Pairs
    carry no residency labels: a configuration that could send a text against its label is refused
    with a `PolicyError`.
    """

    def __init__(
        self,
        model: str | PurePath = "embedded",
        *,
        config: str | PurePath | Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self._shared: SharedReranker | None = None
        self._reranker().check()
        self._reranker().refuse_bare_texts()

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score each pair of query and passage, in the order given; higher is better."""
        text_pairs = list(text_pairs)
        places: defaultdict[str, list[int]] = defaultdict(list)
        for place, (query, _) in enumerate(text_pairs):
            places[query].append(place)
        scores = [-math.inf] * len(text_pairs)
        for query, asked in places.items():
            candidates = [Candidate(text_pairs[place][1]) for place in asked]
            reranker = self._reranker()
            # Loaded first: its file may have changed since it was looked at.
            reranker.engine()
            reranker.refuse_bare_texts()
            result = reranker.rerank(query, candidates, top_k=len(asked), strict=True)
            for hit in result:
                if hit.relevance is not None:
                    scores[asked[hit.index]] = hit.relevance
        return scores

    def _reranker(self) -> SharedReranker:
        options = ComponentOptions(model=self.model, config=self.config)
        self._shared = shared_reranker(options, self._shared)
        return self._shared
