"""Which texts of a request are scored: distinct, not blank, within the depth."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..records import Candidate, Code, Decision
from ..rules import selection
from ..rules.selection import Certain, Depth
from ..rules.texts import is_blank


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The texts to score: distinct, not blank, within the depth; best first.

    texts: the texts; the place of a text in this list is its slot
    priors: first-stage scores of the texts, and behind them of those beyond the depth
    slot_of: per candidate, the slot of its text; None: not to be scored
    decisions: what was left out, and why
    """

    texts: list[str]
    priors: list[float | None]
    slot_of: list[int | None]
    decisions: list[Decision]


def choose(
    candidates: Sequence[Candidate],
    depth: Depth | None,
    *,
    skip: Certain | None = None,
) -> Shortlist:
    """Return the texts to score: no blank ones, duplicates once, no more than the depth.

    skip: when the first stage is so sure that nothing is scored; None: never
    """
    places: dict[str, int] = {}
    priors: list[float | None] = []
    slot_of: list[int | None] = []
    blank = duplicates = 0
    for candidate in candidates:
        text = candidate.text
        if not isinstance(text, str) or is_blank(text):
            blank += 1
            slot_of.append(None)
            continue
        if text in places:
            duplicates += 1
        else:
            places[text] = len(places)
            priors.append(candidate.prior)
        slot_of.append(places[text])
    counts = {Code.BLANK: blank, Code.DUPLICATE: duplicates}
    decisions = [Decision("select", code, count) for code, count in counts.items() if count]
    if selection.certain(skip, priors):
        decisions.append(Decision("select", Code.STAGE_SKIPPED, len(places), "prior is certain"))
        return Shortlist([], [], [None] * len(candidates), decisions)
    wanted = selection.depth(depth, priors)
    if wanted < len(places):
        decisions.append(Decision("select", Code.DEPTH, len(places) - wanted))
    return limited(Shortlist(list(places), priors, slot_of, decisions), wanted)


def limited(chosen: Shortlist, count: int | None) -> Shortlist:
    """Return the shortlist with only its first `count` texts (None: all)."""
    if count is None or count >= len(chosen.texts):
        return chosen
    inside = [slot if slot is not None and slot < count else None for slot in chosen.slot_of]
    return Shortlist(chosen.texts[:count], chosen.priors, inside, chosen.decisions)
