"""Which texts of a request are scored: distinct, not blank, within the depth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..records import Candidate, Code, Decision
from ..rules import selection
from ..rules.selection import Certain, Depth
from ..rules.texts import is_blank

# So many different first-stage scores that only rise are no accident.
_CERTAIN = 5
# A text is of extreme length if it has more characters, and so many times more than the median.
_LONG_CHARS, _LONG_TIMES = 20_000, 8


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The texts to score: distinct, not blank, within the depth; best first.

    texts: the texts; the place of a text in this list is its slot
    priors: first-stage scores of the texts, and behind them of those beyond the depth
    slot_of: per candidate, the slot of its text; None: not to be scored
    decisions: what was left out, and why
    has_priors: false where the first-stage scores contradict the order of the candidates
    """

    texts: list[str]
    priors: list[float | None]
    slot_of: list[int | None]
    decisions: list[Decision]
    has_priors: bool = True


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
    rising = _rise([candidate.prior for candidate in candidates])
    if rising:
        decisions.append(Decision("select", Code.PRIORS_RISE, len(candidates)))
        priors = [None] * len(priors)
    if selection.certain(skip, priors):
        decisions.append(Decision("select", Code.STAGE_SKIPPED, len(places), "prior is certain"))
        return Shortlist([], [], [None] * len(candidates), decisions)
    wanted = selection.depth(depth, priors)
    if wanted < len(places):
        decisions.append(Decision("select", Code.DEPTH, len(places) - wanted))
    return limited(Shortlist(list(places), priors, slot_of, decisions, not rising), wanted)


def without_long(chosen: Shortlist) -> Shortlist:
    """Return the shortlist without texts of extreme length, for which there is no time.

    One text of a million characters must not take the time in which all others could be scored.
    """
    chars = [len(text) for text in chosen.texts]
    limit = max(_LONG_CHARS, _LONG_TIMES * sorted(chars)[len(chars) // 2]) if chars else 0
    kept = [slot for slot, count in enumerate(chars) if count <= limit]
    if len(kept) == len(chars):
        return chosen
    slots = {slot: place for place, slot in enumerate(kept)}
    return replace(
        chosen,
        texts=[chosen.texts[slot] for slot in kept],
        priors=[chosen.priors[slot] for slot in kept] + chosen.priors[len(chars) :],
        slot_of=[None if slot is None else slots.get(slot) for slot in chosen.slot_of],
        decisions=[
            *chosen.decisions,
            Decision("budget", Code.DEADLINE, len(chars) - len(kept), "far longer than the others"),
        ],
    )


def limited(chosen: Shortlist, count: int | None) -> Shortlist:
    """Return the shortlist with only its first `count` texts (None: all)."""
    if count is None or count >= len(chosen.texts):
        return chosen
    inside = [slot if slot is not None and slot < count else None for slot in chosen.slot_of]
    return replace(chosen, texts=chosen.texts[:count], slot_of=inside)


def _rise(priors: Sequence[float | None]) -> bool:
    """True if first-stage scores never fall down the list, as distances do.

    Candidates come best first, so such scores contradict their order. Fewer than five different
    scores may do so by chance.
    """
    known = [prior for prior in priors if prior is not None]
    rises = all(first <= second for first, second in pairwise(known))
    return rises and len(set(known)) >= _CERTAIN
