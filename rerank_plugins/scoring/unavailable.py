"""A scorer in the place of a model that could not be loaded, where a fallback can serve."""

from collections.abc import Sequence

from ..errors import ModelError
from . import Scored, ScoreKind, State


class MissingScorer:
    """Fails every request with the reason why the model is missing."""

    score_kind: ScoreKind = "vendor"

    def __init__(self, name: str, reason: ModelError) -> None:
        self.name = name
        self._reason = str(reason)

    async def score(
        self,
        query: str,  # noqa: ARG002 - nothing reads it
        passages: Sequence[str],  # noqa: ARG002
        *,
        state: State | None = None,  # noqa: ARG002
        deadline_s: float | None = None,  # noqa: ARG002
    ) -> Scored:
        """Refuse. Raises `ModelError`."""
        raise ModelError(self._reason)

    def warm_up(self) -> None:
        """Do nothing: there is nothing to warm."""

    def close(self) -> None:
        """Do nothing: nothing is held."""
