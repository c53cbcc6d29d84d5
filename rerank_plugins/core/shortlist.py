"""Which texts of a request are scored: distinct, not blank, within the depth."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..records import Candidate, Code, Decision
from ..rules import selection
from ..rules.selection import Certain, Depth


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The texts to score: distinct, not blank, within the depth; best first.

    `priors` belong to the texts, and behind them to those over the depth; `text_of` gives each
    candidate's text, None where it has none to score.
    """

    texts: list[str]
    priors: list[float | None]
    text_of: list[int | None]
    decisions: list[Decision]


def choose(
    candidates: Sequence[Candidate],
    depth: Depth | None,
    *,
    skip: Certain | None = None,
) -> Shortlist:
    """Choose the texts to score: skip blank ones, score duplicates once, stop at the depth.

    `skip` says when the first stage is sure enough to score nothing.
    """
    places: dict[str, int] = {}
    priors: list[float | None] = []
    text_of: list[int | None] = []
    blank = duplicates = 0
    for candidate in candidates:
        text = candidate.text
        if not isinstance(text, str) or not text.strip():
            blank += 1
            text_of.append(None)
            continue
        if text in places:
            duplicates += 1
        else:
            places[text] = len(places)
            priors.append(candidate.prior)
        text_of.append(places[text])
    counts = {Code.BLANK: blank, Code.DUPLICATE: duplicates}
    decisions = [Decision("select", code, count) for code, count in counts.items() if count]
    if selection.certain(skip, priors):
        decisions.append(Decision("select", Code.STAGE_SKIPPED, len(places), "prior is certain"))
        return Shortlist([], [], [None] * len(candidates), decisions)
    wanted = selection.depth(depth, priors)
    if wanted < len(places):
        decisions.append(Decision("select", Code.DEPTH, len(places) - wanted))
    return limited(Shortlist(list(places), priors, text_of, decisions), wanted)


def limited(chosen: Shortlist, count: int | None) -> Shortlist:
    """Leave only the first `count` texts (None: all) to be scored."""
    if count is None or count >= len(chosen.texts):
        return chosen
    inside = [place if place is not None and place < count else None for place in chosen.text_of]
    return Shortlist(chosen.texts[:count], chosen.priors, inside, chosen.decisions)
