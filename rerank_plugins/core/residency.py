"""The residency gate: which texts a stage that sends may send, and which stay here."""

from collections.abc import Sequence

import numpy as np

from ..errors import (
    RemoteError,
    Withheld,
)
from ..records import Candidate, Code, Decision
from ..rules.residency import Label, Permit
from ..scoring import Scored, ScoreKind, Scorer, Sends, State
from .setup import Setup


def permit(setup: Setup, candidates: Sequence[Candidate], request_id: str) -> Permit:
    """Say what a request may do with its text, by what all its candidates say of themselves."""
    told = [(one.text, setup.policy.label(one.metadata)) for one in candidates]
    labels = {label: None for _, label in told if label is not None}
    of_text: dict[str, tuple[Label, ...]] = {}
    for text, label in told:
        if isinstance(text, str):
            of_text[text] = (*of_text.get(text, ()), *([] if label is None else [label]))
    return Permit(setup.policy, tuple(labels), request_id, setup.audit, of_text)


class Parted:
    """A remote scorer for one request, given only the texts that may go where it sends them.

    `held` are the others; they come back not done.
    """

    def __init__(self, scorer: Scorer, held: frozenset[str], reason: str) -> None:
        self.name = scorer.name
        self.score_kind: ScoreKind = scorer.score_kind
        self.held = held
        self._scorer = scorer
        self._reason = reason

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        state: State | None = None,
        deadline_s: float | None = None,
    ) -> Scored:
        """Score the passages that may leave. Raises as the scorer itself."""
        n = len(passages)
        places = [place for place, text in enumerate(passages) if text not in self.held]
        said = Decision("policy", Code.POLICY, n - len(places), self._reason)
        try:
            part = await self._scorer.score(
                query, [passages[place] for place in places], state=state, deadline_s=deadline_s
            )
        except RemoteError as error:
            error.decisions = (said, *error.decisions)
            raise
        scores, done = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.bool_)
        truncated = np.zeros(n, dtype=np.int64)
        scores[places], done[places] = part.scores, part.done
        truncated[places] = part.truncated_tokens
        return Scored(
            scores,
            done,
            truncated,
            timings=part.timings,
            decisions=(said, *part.decisions),
            usage=part.usage,
        )

    def warm_up(self) -> None:
        """Do nothing: it is made for one request."""

    def close(self) -> None:
        """Do nothing, as above."""


def permitted(scorer: Scorer, permit: Permit, query: str, passages: Sequence[str]) -> Scorer:
    """Give a scorer if its texts, or some of them, may go where it sends them.

    What may not is on record first. Raises `Withheld` if nothing may.
    """
    if not isinstance(scorer, Sends):
        return scorer
    there = scorer.destination
    verdict = permit.verdict(there, passages)
    if verdict.allowed:
        return scorer.under(permit)
    held = list(passages)
    if permit.policy.per == "candidate":
        held = [text for text in passages if not permit.verdict(there, [text]).allowed]
    permit.audit(verdict, there, query, held)
    if len(held) == len(passages):
        raise Withheld(verdict.reason)
    return Parted(scorer.under(permit), frozenset(held), verdict.reason)
