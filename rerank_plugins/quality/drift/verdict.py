"""The verdict on a window: ok, watch (it has moved), or harmful (it moved the way damage does)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import two_sample_tests
from .features import FEATURES, Feature, Observation
from .snapshot import Snapshot

Verdict: TypeAlias = Literal["ok", "watch", "harmful"]
Test: TypeAlias = Literal["ks", "psi", "mean"]
# Below these nothing is judged: the tests' laws hold for samples.
MIN_REQUESTS = 20
# Harm is read from the means of these, so that their means are tested besides: a difference of
# means shows in fewer requests than one of distributions.
_SIGNS: frozenset[Feature] = frozenset({"agreement", "separation", "length_bias"})


@dataclass(frozen=True, slots=True)
class Watch:
    """How windows are judged.

    `alpha` is the chance that a window without drift is called anything but ok, over all tests
    together (holm1979). A feature counts as moved only from `least` on, a KS distance: with large
    samples everything is significant. `agreement` and `separation` are the shares of the snapshot's
    means that still have to be there. Any sound model agrees with the first stage to a degree,
    whatever the domain; it tells what was retrieved from random passages less well in other
    domains, which take up to two thirds of that, and still ranks well.
    `length` is the mean rank correlation with the passages' lengths, either way, from which on
    scores are length and little else: at 0.7 it is half of their ranks' variance. It counts where
    the snapshot's is less than half of it.
    """

    alpha: float = 0.005
    least: float = 0.15
    agreement: float = 0.6
    separation: float = 0.25
    length: float = 0.7


@dataclass(frozen=True, slots=True)
class Finding:
    """One test of one feature: its value, what chance seldom passes, and how often it passes this.

    `before` and `now` are the means of snapshot and window, `shift` is their difference in
    deviations of the snapshot.
    """

    feature: Feature
    test: Test
    value: float
    critical: float
    p: float
    before: float
    now: float
    shift: float
    moved: bool = False

    @property
    def left(self) -> float:
        """Give the share of the snapshot's mean that is left; 1 where there was none to lose."""
        return self.now / self.before if self.before > 0.0 else 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a window of `requests` is like; `reasons` name what moved, the most certain first."""

    verdict: Verdict
    requests: int
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...] = ()

    @property
    def moved(self) -> tuple[Feature, ...]:
        """Name the features that moved."""
        return tuple(dict.fromkeys(one.feature for one in self.findings if one.moved))


@dataclass(slots=True)
class Window:
    """Collects observations until `size` of them can be judged."""

    size: int
    observations: list[Observation] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Tell whether it is time to judge."""
        return len(self.observations) >= self.size

    def add(self, one: Observation) -> None:
        """Add one request."""
        self.observations.append(one)

    def sample(self, feature: Feature) -> NDArray[np.float64]:
        """Give a feature's values, of the requests that tell it."""
        column = np.array([one[feature] for one in self.observations], dtype=np.float64)
        return column[~np.isnan(column)]


def judge(reference: Snapshot, window: Window, how: Watch | None = None) -> Report:
    """Judge a window against a snapshot.

    >>> from .snapshot import snapshot
    >>> judge(snapshot([], subject="", model=""), Window(1)).verdict
    'ok'
    """
    how = how or Watch()
    samples = {
        feature: (old, new)
        for feature in FEATURES
        if min(
            (old := reference.sample(feature)).size,
            (new := window.sample(feature)).size,
        )
        >= MIN_REQUESTS
    }
    level = how.alpha / max(1, 2 * len(samples) + len(_SIGNS & samples.keys()))
    tests = [one for name, pair in samples.items() for one in _tests(name, *pair, level)]
    return again(Report("ok", len(window.observations), tuple(tests)), how)


def again(report: Report, how: Watch) -> Report:
    """Judge the same tests by other thresholds; what chance seldom passes is not told anew.

    >>> again(Report("watch", 100, (), ("best",)), Watch()).verdict
    'ok'
    """
    tests = sorted(report.findings, key=lambda one: one.p)
    certain = {one.feature for one in _certain(tests, how.alpha)}
    far = {one.feature for one in tests if one.test == "ks" and one.value >= how.least}
    moved = certain & far
    findings = tuple(replace(one, moved=one.feature in moved) for one in tests)
    reasons = tuple(dict.fromkeys(one.feature for one in findings if one.moved))
    damaged = tuple(
        dict.fromkeys(one.feature for one in findings if one.moved and _damaged(one, how))
    )
    verdict: Verdict = "harmful" if damaged else "watch" if reasons else "ok"
    return Report(verdict, report.requests, findings, damaged or reasons)


def _tests(
    feature: Feature, old: NDArray[np.float64], new: NDArray[np.float64], level: float
) -> Iterator[Finding]:
    n, m = old.size, new.size
    spread = float(old.std())
    before, now = float(old.mean()), float(new.mean())
    means = (before, now, (now - before) / spread if spread > 0.0 else 0.0)
    far = two_sample_tests.ks(old, new)
    critical = two_sample_tests.ks_critical(level, n, m)
    yield Finding(feature, "ks", far, critical, two_sample_tests.ks_p(far, n, m), *means)
    inner = two_sample_tests.edges(old, m)
    bins = inner.size + 1
    index = two_sample_tests.psi(old, new, inner)
    critical = two_sample_tests.psi_critical(level, bins, n, m)
    yield Finding(
        feature, "psi", index, critical, two_sample_tests.psi_p(index, bins, n, m), *means
    )
    if feature in _SIGNS:
        apart, freedom = two_sample_tests.welch(old, new)
        critical = two_sample_tests.welch_critical(level, freedom)
        yield Finding(
            feature, "mean", apart, critical, two_sample_tests.welch_p(apart, freedom), *means
        )


def _certain(tests: Sequence[Finding], alpha: float) -> Iterator[Finding]:
    """Give the tests that chance does not explain, the most certain first (Holm)."""
    for rank, one in enumerate(tests):
        if one.p > alpha / (len(tests) - rank):
            return
        yield one


def _damaged(one: Finding, how: Watch) -> bool:
    if one.feature == "length_bias":
        return abs(one.now) >= how.length > 2.0 * abs(one.before)
    least = {"agreement": how.agreement, "separation": how.separation}.get(one.feature)
    return least is not None and one.shift < 0.0 and one.left <= least
