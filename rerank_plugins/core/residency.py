"""The residency gate: which texts a stage that sends may send, and which stay here."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import RemoteError, Withheld
from ..records import Candidate, Code, Decision
from ..rules.residency import Audit, Label, Permit, Policy
from ..scoring import Scored, ScoreKind, Scorer, Sends, State


def permit(
    policy: Policy,
    candidates: Sequence[Candidate],
    request_id: str,
    audit: Callable[[Audit], None] | None,
) -> Permit:
    """Return what a request may do with its text, by what its candidates' metadata say."""
    labelled = [(candidate.text, policy.label(candidate.metadata)) for candidate in candidates]
    labels = {label: None for _, label in labelled if label is not None}
    of_text: dict[str, tuple[Label, ...]] = {}
    for text, label in labelled:
        if isinstance(text, str):
            of_text[text] = (*of_text.get(text, ()), *([] if label is None else [label]))
    return Permit(policy, tuple(labels), request_id, audit, of_text)


class FilteredScorer:
    """A remote scorer for one request that is given only the texts that may be sent to it.

    `withheld` are the other texts; they come back not done.
    """

    def __init__(self, scorer: Scorer, withheld: frozenset[str], reason: str) -> None:
        self.name = scorer.name
        self.score_kind: ScoreKind = scorer.score_kind
        self.withheld = withheld
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
        """Return scores of the passages that may be sent. Raises as the scorer itself."""
        n = len(passages)
        places = [place for place, text in enumerate(passages) if text not in self.withheld]
        decision = Decision("policy", Code.POLICY, n - len(places), self._reason)
        try:
            part = await self._scorer.score(
                query, [passages[place] for place in places], state=state, deadline_s=deadline_s
            )
        except RemoteError as error:
            error.decisions = (decision, *error.decisions)
            raise
        return replace(part.scatter(places, n), decisions=(decision, *part.decisions))

    def warm_up(self) -> None:
        """Do nothing: it is made for one request."""

    def close(self) -> None:
        """Do nothing: it is made for one request."""


def permitted(scorer: Scorer, permit: Permit, query: str, passages: Sequence[str]) -> Scorer:
    """Return the scorer as the residency policy lets it be used for these passages.

    A scorer that sends no text is returned as it is. What is withheld is on record first. Raises
    `Withheld` if no passage may be sent.
    """
    if not isinstance(scorer, Sends):
        return scorer
    destination = scorer.destination
    verdict = permit.verdict(destination, passages)
    if verdict.allowed:
        return scorer.under(permit)
    withheld = list(passages)
    if permit.policy.per == "candidate":
        withheld = [text for text in passages if not permit.verdict(destination, [text]).allowed]
    permit.audit(verdict, destination, query, withheld)
    if len(withheld) == len(passages):
        raise Withheld(verdict.reason)
    return FilteredScorer(scorer.under(permit), frozenset(withheld), verdict.reason)
