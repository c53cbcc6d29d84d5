"""Plans with truncated pairs: the quality that a budget may trade for reading less."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...scoring.exits.segmented_model import SegmentedModel
from .calibrate import Calibrated, CalibrationOptions, case_of, halves, plan_qualities
from .collect import Question, observe

# As many held-out queries as other plans are measured on.
MEASURED = 100


def with_short_plans(
    model: SegmentedModel,
    questions: Sequence[Question],
    done: Calibrated,
    how: CalibrationOptions,
    lengths: Sequence[int],
    *,
    progress: Callable[[], None] = lambda: None,
) -> Calibrated:
    """Return `done` with the qualities of plans whose pairs are cut to each of `lengths` tokens.

    Quality is measured against the whole model on whole passages, on up to `MEASURED` queries that
    fitted nothing; each of them is scored again for each length. `questions` and `how` are those
    that `done` came from.
    """
    _, held = halves(len(questions), how.seed)
    asked = [questions[i] for i in held[:MEASURED]]
    found: dict[int, dict[tuple[int, ...], float]] = {}
    for tokens in lengths:
        short = model.shortened(tokens)
        seen = observe(short, asked, progress=progress)
        cases = [
            replace(
                case_of(short_seen, done.exits.heads, short, how, done.probability),
                gains=whole.gains,
                full=whole.full,
            )
            for short_seen, whole in zip(seen, done.cases, strict=False)
        ]
        found[tokens] = plan_qualities(cases, len(model), how)
    return replace(done, exits=replace(done.exits, short_plans=found))
