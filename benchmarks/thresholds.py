"""Which thresholds a guard should have: chosen by a rule on some streams, told on others."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rerank_plugins.quality.drift.verdict import DriftReport, DriftThresholds, rejudge
from rerank_plugins.quality.guard.stance import GuardOptions, Hysteresis

AGREEMENT = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
SEPARATION = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55)
# No correlation reaches the last: what is chosen without this sign.
NEVER = 1.1
LENGTH = (0.7, 0.9, NEVER)
LEAST = (0.1, 0.15, 0.2)
TOLERANCE = tuple(round(0.1 * step, 1) for step in range(1, 11))
# What no choice may pass: windows that are not ok without drift, and nDCG@10 below the better.
MAX_ALARMS, MAX_LOSS = 0.01, 0.01
# Drift is to be found by this window.
SOON = 3
# A stream counts as found by the window by which this share of its runs was not ok.
MOST = 0.95


@dataclass(frozen=True, slots=True, order=True)
class Thresholds:
    """The thresholds of `DriftThresholds`, and the canaries' tolerance."""

    agreement: float
    separation: float
    length: float
    least: float
    tolerance: float

    @property
    def watch(self) -> DriftThresholds:
        """Return what windows are judged by."""
        return DriftThresholds(
            agreement=self.agreement,
            separation=self.separation,
            length=self.length,
            least=self.least,
        )


@dataclass(frozen=True, slots=True)
class Stream:
    """Many runs of windows of one stream, and nDCG@10 of its orders.

    `model` orders by the scores alone, `reranker` fuses them with the prior as the package does by
    default. `canaries` is how far the fixed pairs deviate, where the model is another one.
    `above_random` is the share of candidates that score above a random passage.
    """

    name: str
    queries: int
    first_stage: float
    model: float
    reranker: float
    canaries: float | None
    above_random: float
    runs: tuple[tuple[DriftReport, ...], ...]

    @property
    def harmful(self) -> bool:
        """True if reranking hurts."""
        return self.reranker < self.first_stage


@dataclass(frozen=True, slots=True)
class Judged:
    """What the verdicts on a stream's requests are, and what a guard makes of them.

    `watch` and `harmful` are shares of its windows; `soon` of its runs, those with a window that is
    not ok among the first three; `found_by` the window by which most have one, None for later than
    the last; `acts` the share of runs that end with the guard acting.
    """

    watch: float
    harmful: float
    soon: float
    found_by: int | None
    acts: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How often the guard acts in the end, and nDCG@10 of what it serves, `loss` below the better.

    `guarded` weighs the two orders by how often each is served.
    """

    acts: float
    guarded: float
    loss: float


@dataclass(frozen=True, slots=True)
class Merit:
    """What thresholds are worth on several streams: share detected, worst loss, false alarms.

    A stream that reranking hurts is detected where the guard acts, another where it was found soon.
    """

    detected: float
    loss: float
    alarms: float

    @property
    def allowed(self) -> bool:
        """True if neither alarms nor losses are too many."""
        return self.alarms <= MAX_ALARMS and self.loss <= MAX_LOSS


@dataclass(frozen=True, slots=True)
class Tried:
    """Every choice of thresholds, judged on every stream and on each set cut in two.

    `judged` has, by stream, what each way to judge makes of its requests; `alarms`, by set, the
    share of windows without drift that are not ok at each least.
    """

    streams: Mapping[str, Stream]
    judged: Mapping[str, Mapping[DriftThresholds, Judged]]
    alarms: Mapping[str, Mapping[float, float]]

    def outcome(self, name: str, chosen: Thresholds) -> Outcome:
        """Let a guard with these thresholds serve a stream."""
        stream = self.streams[name]
        acts = self.judged[name][chosen.watch].acts
        if stream.canaries is not None and stream.canaries > chosen.tolerance:
            acts = 1.0
        guarded = acts * stream.first_stage + (1.0 - acts) * stream.reranker
        return Outcome(acts, guarded, max(stream.first_stage, stream.reranker) - guarded)

    def merit(self, names: Sequence[str], chosen: Thresholds) -> Merit:
        """Return what thresholds are worth on some of the streams."""
        found = {name: self.outcome(name, chosen) for name in names}
        at = chosen.watch
        return Merit(
            float(
                np.mean(
                    [
                        one.acts if self.streams[name].harmful else self.judged[name][at].soon
                        for name, one in found.items()
                    ]
                )
            ),
            max(one.loss for one in found.values()),
            max(self.alarms[name][chosen.least] for name in names if name in self.alarms),
        )

    def choose(self, names: Sequence[str], lengths: Sequence[float] = LENGTH[:-1]) -> Thresholds:
        """Pick what detects most of what is allowed; of equals the one in their middle.

        Where nothing is allowed, of what loses least.
        """
        worth = {
            one: self.merit(names, one)
            for one in itertools.starmap(
                Thresholds, itertools.product(AGREEMENT, SEPARATION, lengths, LEAST, TOLERANCE)
            )
        }
        allowed = [one for one, merit in worth.items() if merit.allowed]
        if not allowed:
            least = min(merit.loss for merit in worth.values())
            allowed = [one for one, merit in worth.items() if merit.loss == least]
        most = max(worth[one].detected for one in allowed)
        best = sorted(one for one in allowed if worth[one].detected == most)
        places = np.array([_place(one) for one in best], dtype=np.float64)
        centre = np.median(places, axis=0)
        return best[int(np.argmin(np.abs(places - centre).sum(axis=1)))]


def attempt(streams: Sequence[Stream], undrifted: Mapping[str, Sequence[DriftReport]]) -> Tried:
    """Judge every stream by every choice; `undrifted` are windows of each set without drift."""
    return Tried(
        {one.name: one for one in streams},
        {
            one.name: {
                how: judge(one, how)
                for how in (
                    Thresholds(*one_choice, tolerance=0.0).watch
                    for one_choice in itertools.product(AGREEMENT, SEPARATION, LENGTH, LEAST)
                )
            }
            for one in streams
        },
        {
            name: {least: _alarms(windows, DriftThresholds(least=least)) for least in LEAST}
            for name, windows in undrifted.items()
        },
    )


def judge(stream: Stream, how: DriftThresholds) -> Judged:
    """Judge the windows of a stream, and let a guard hear the verdicts."""
    options = GuardOptions()
    runs = [[rejudge(one, how).verdict for one in run] for run in stream.runs]
    length = max(len(run) for run in runs)
    acts = 0
    for run in runs:
        resolve = Hysteresis(options.patience, options.relief)
        for verdict in run:
            resolve.add_report(DriftReport(verdict, 0, ()))
        acts += resolve.harm
    firsts = [next((i for i, one in enumerate(run, 1) if one != "ok"), length + 1) for run in runs]
    by = int(np.quantile(firsts, MOST, method="higher"))
    every = [verdict for run in runs for verdict in run]
    return Judged(
        every.count("watch") / len(every),
        every.count("harmful") / len(every),
        float(np.mean(np.array(firsts) <= SOON)),
        by if by <= length else None,
        acts / len(runs),
    )


def _alarms(windows: Sequence[DriftReport], how: DriftThresholds) -> float:
    return float(np.mean([rejudge(one, how).verdict != "ok" for one in windows]))


def _place(one: Thresholds) -> tuple[int, int, int, int, int]:
    return (
        AGREEMENT.index(one.agreement),
        SEPARATION.index(one.separation),
        LENGTH.index(one.length),
        LEAST.index(one.least),
        TOLERANCE.index(one.tolerance),
    )
