"""The verdict on a window of requests: ok, watch (features moved) or harmful (they show damage)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import two_sample_tests as statistics
from .features import FEATURES, Feature, Observation, sample
from .snapshot import Snapshot

Verdict: TypeAlias = Literal["ok", "watch", "harmful"]
DriftTest: TypeAlias = Literal["ks", "psi", "mean"]
# Smaller samples are not tested: the distributions of the tests hold for large ones.
MIN_REQUESTS = 20
# The means of these features show damage. They get a test of means as well, which needs fewer
# requests than tests of distributions.
_SIGNS: frozenset[Feature] = frozenset({"agreement", "separation", "length_bias"})


@dataclass(frozen=True, slots=True)
class DriftThresholds:
    """The thresholds of a verdict.

    alpha: probability that a window without drift is not ok, over all tests together (holm1979)
    least: KS distance from which a feature has moved; in large samples everything is significant
    agreement: share of the snapshot's mean below which it shows damage: any sound model agrees with
        the first stage to a degree, in any domain
    separation: likewise; other domains take up to two thirds of it from models that rank well
    length: mean rank correlation with the passages' lengths, of either sign, that shows damage: at
        0.7 lengths explain half of the variance of the ranks. It counts where the snapshot's is
        less than half of it
    """

    alpha: float = 0.005
    least: float = 0.15
    agreement: float = 0.6
    separation: float = 0.25
    length: float = 0.7


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a test of a feature.

    critical: the value that is exceeded without drift with the probability of the level
    p: probability of such a value without drift
    before, now: the means of snapshot and window
    shift: their difference, in standard deviations of the snapshot
    """

    feature: Feature
    test: DriftTest
    value: float
    critical: float
    p: float
    before: float
    now: float
    shift: float
    moved: bool = False

    @property
    def left(self) -> float:
        """Return the share of the snapshot's mean that is left; 1 if that mean was not positive."""
        return self.now / self.before if self.before > 0.0 else 1.0


@dataclass(frozen=True, slots=True)
class DriftReport:
    """The verdict on a window; `reasons` are features, the most certain first."""

    verdict: Verdict
    requests: int
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...] = ()

    @property
    def moved(self) -> tuple[Feature, ...]:
        """Return the features that moved."""
        return _features(found for found in self.findings if found.moved)


def judge(
    reference: Snapshot, window: Sequence[Observation], how: DriftThresholds | None = None
) -> DriftReport:
    """Return the verdict on a window of requests, compared with a snapshot.

    >>> from .snapshot import snapshot
    >>> judge(snapshot([], subject="", model=""), []).verdict
    'ok'
    """
    how = how or DriftThresholds()
    samples = {name: (reference.sample(name), sample(window, name)) for name in FEATURES}
    samples = {name: pair for name, pair in samples.items() if min(map(len, pair)) >= MIN_REQUESTS}
    level = how.alpha / max(1, 2 * len(samples) + len(_SIGNS & samples.keys()))
    findings = [found for name, pair in samples.items() for found in _tests(name, *pair, level)]
    return rejudge(DriftReport("ok", len(window), tuple(findings)), how)


def rejudge(report: DriftReport, how: DriftThresholds) -> DriftReport:
    """Return the verdict on the same tests by other thresholds; critical values stay as they are.

    >>> rejudge(DriftReport("watch", 100, (), ("best",)), DriftThresholds()).verdict
    'ok'
    """
    tests = sorted(report.findings, key=lambda found: found.p)
    certain = {found.feature for found in _certain(tests, how.alpha)}
    far = {found.feature for found in tests if found.test == "ks" and found.value >= how.least}
    findings = tuple(replace(found, moved=found.feature in certain & far) for found in tests)
    moved = [found for found in findings if found.moved]
    damaged = _features(found for found in moved if _shows_damage(found, how))
    verdict: Verdict = "harmful" if damaged else "watch" if moved else "ok"
    return DriftReport(verdict, report.requests, findings, damaged or _features(moved))


def _tests(
    feature: Feature, old: NDArray[np.float64], new: NDArray[np.float64], level: float
) -> Iterator[Finding]:
    n, m = old.size, new.size
    before, now, spread = float(old.mean()), float(new.mean()), float(old.std())
    means = (before, now, (now - before) / spread if spread > 0.0 else 0.0)
    value, critical = statistics.ks(old, new), statistics.ks_critical(level, n, m)
    yield Finding(feature, "ks", value, critical, statistics.ks_p(value, n, m), *means)
    inner = statistics.edges(old, m)
    bins = inner.size + 1
    value, critical = statistics.psi(old, new, inner), statistics.psi_critical(level, bins, n, m)
    yield Finding(feature, "psi", value, critical, statistics.psi_p(value, bins, n, m), *means)
    if feature in _SIGNS:
        value, freedom = statistics.welch(old, new)
        critical = statistics.welch_critical(level, freedom)
        yield Finding(feature, "mean", value, critical, statistics.welch_p(value, freedom), *means)


def _certain(tests: Sequence[Finding], alpha: float) -> Iterator[Finding]:
    """Yield the tests that chance does not explain, the most certain first (Holm)."""
    for rank, found in enumerate(tests):
        if found.p > alpha / (len(tests) - rank):
            return
        yield found


def _shows_damage(found: Finding, how: DriftThresholds) -> bool:
    if found.feature == "length_bias":
        return abs(found.now) >= how.length > 2.0 * abs(found.before)
    least = {"agreement": how.agreement, "separation": how.separation}.get(found.feature)
    return least is not None and found.shift < 0.0 and found.left <= least


def _features(findings: Iterable[Finding]) -> tuple[Feature, ...]:
    return tuple(dict.fromkeys(found.feature for found in findings))
