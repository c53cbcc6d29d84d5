"""What is lost by reading less of each passage: the plans that a budget may then take."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...scoring.exits.segmented_model import Trunk
from .calibrate import Calibrated, Plan, case_of, halves, plan_qualities
from .collect import Question, observe

# As many held-out queries as other plans are measured on.
MEASURED = 100


def with_short_plans(
    trunk: Trunk,
    questions: Sequence[Question],
    done: Calibrated,
    how: Plan,
    lengths: Sequence[int],
    *,
    progress: Callable[[], None] = lambda: None,
) -> Calibrated:
    """Measure plans with pairs cut to each of `lengths` tokens, on queries that shaped nothing.

    Their quality is what they keep of the order of the whole model on whole passages. `questions`
    and `how` are those that `done` came from; each of up to `MEASURED` queries is scored once more
    for each length.
    """
    _, held = halves(len(questions), how.seed)
    asked = [questions[i] for i in held[:MEASURED]]
    found: dict[int, dict[tuple[int, ...], float]] = {}
    for tokens in lengths:
        short = trunk.shortened(tokens)
        seen = observe(short, asked, progress=progress)
        cases = [
            replace(
                case_of(one, done.exits.heads, short, how, done.probability),
                gains=whole.gains,
                full=whole.full,
            )
            for one, whole in zip(seen, done.cases, strict=False)
        ]
        found[tokens] = plan_qualities(cases, len(trunk), how)
    return replace(done, exits=replace(done.exits, short_plans=found))
