"""The guard: requests leave notes, which a thread of its own works through."""

import itertools
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ...errors import FailureLog
from ...records import Candidate, Hit
from ...scoring.runtime.process import OwnerProcess
from ..drift.canaries import TOLERANCE, deviation
from ..drift.features import Observation, observe_hits
from ..drift.snapshot import Snapshot, snapshot
from ..drift.verdict import DriftReport, Verdict, judge
from . import log
from .feedback_test import Arm, FeedbackTest
from .null_passages import NullPassages, PairScorer
from .stance import CONFIGURED, GuardOptions, Hysteresis, Stance

Canaries: TypeAlias = Callable[[], Sequence[float]]
"""Returns the scores of the fixed pairs, by idle workers; empty where it cannot."""

_LOG = logging.getLogger("rerank_plugins.guard")
# Notes that may wait for the thread; further notes are dropped: no request waits for the guard.
_MAX_NOTES = 4096
# Requests that feedback may still come for; the oldest are forgotten.
_MAX_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Note:
    """What a request leaves to the guard, which measures its texts and forgets them."""

    request_id: str
    query: str
    candidates: Sequence[Candidate]
    hits: Sequence[Hit]
    stance: Stance


Item: TypeAlias = Note | tuple[str, float] | Sequence[float]
"""What waits for the thread: a note, feedback with its request's id, or scores of canaries."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of the guard, for metrics; `version` grows with every change."""

    version: int = 0
    verdict: Verdict = "ok"
    acting: bool = False
    report: DriftReport | None = None
    canaries: float | None = None


class Guard:
    """Watches requests in the background, and decides how the next ones are served.

    `stance` and `note` cost microseconds and never raise; errors of the thread are logged. Without
    a `reference` the first requests become the snapshot. Thread-safe.
    """

    def __init__(
        self,
        options: GuardOptions,
        reference: Snapshot | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options
        self.reference = reference
        self.state = State()
        self._clock = clock
        self._file = None if options.log is None else log.open_log(options.log)
        self._notes: queue.Queue[Item | None] = queue.Queue(_MAX_NOTES)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._failures = FailureLog(_LOG, "the drift guard failed with %s; requests go on")
        self._count = itertools.count(1)
        self._stance = CONFIGURED
        share = options.control_share
        self._control_every = 0 if share <= 0.0 else max(2, round(1.0 / share))
        self._learned: list[Observation] = []
        self._window: list[Observation] = []
        self._hysteresis = Hysteresis(options.patience, options.relief)
        self._feedback = FeedbackTest(
            options.thresholds.alpha, options.window, bool(self._control_every)
        )
        self._arms: OrderedDict[str, Arm] = OrderedDict()
        self._null_passages = NullPassages(options.null_every)
        self._canaries: Canaries | None = None
        self._judged = 0
        self._owner = OwnerProcess("the guard")

    @property
    def wants_canaries(self) -> bool:
        """True if the snapshot holds canaries to compare with."""
        return self.reference is not None and bool(self.reference.canaries)

    def stance(self) -> Stance:
        """Return how the next request is served."""
        stance, turn = self._stance, next(self._count)
        if self._control_every and turn % self._control_every == 0:
            # While the guard acts, feedback is compared with requests served as configured.
            if stance.action is not None:
                return replace(CONFIGURED, moved=stance.moved)
            return replace(stance, control=True, scored=False)
        if stance.action == "first_stage":
            return replace(stance, scored=turn % self.options.probe_every == 0)
        if stance.action == "fallback" and turn % self.options.probe_every == 0:
            return replace(CONFIGURED, moved=stance.moved)
        return stance

    def note(self, note: Note) -> None:
        """Leave a note of a request; it is dropped where too many wait."""
        self._leave(note)

    def feedback(self, request_id: str, score: float) -> None:
        """Leave the score in [0, 1] that an evaluator gave to the answer to a request."""
        self._leave((request_id, score))

    def check(self, scores: Sequence[float]) -> None:
        """Leave scores of the canaries, to be compared with the snapshot's."""
        self._leave(list(scores))

    def attach(self, score: PairScorer | None, *, canaries: Canaries | None = None) -> None:
        """Set how random passages and the fixed pairs are scored in the background; None: never.

        Raises `ClosedError` in a forked process, which has neither the thread nor the notes.
        """
        self._owner.check()
        self._null_passages.scorer = score
        self._canaries = canaries

    def settle(self) -> None:
        """Wait until the thread has worked through all notes."""
        if not self._owner.forked:
            self._notes.join()

    def learned_snapshot(
        self, *, subject: str, model: str, canaries: Sequence[float] = ()
    ) -> Snapshot:
        """Return a snapshot of the requests so far, which had no snapshot to be compared with."""
        self.settle()
        return snapshot(self._learned, subject=subject, model=model, canaries=canaries)

    def close(self) -> None:
        """End the thread after the waiting notes, and close the log; in a fork do nothing."""
        # In a forked process a lock may be held for ever.
        if self._owner.forked:
            return
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._notes.put(None)
            thread.join(timeout=5.0)
        if self._file is not None:
            self._file.close()

    def _leave(self, item: Item) -> None:
        if self._owner.forked:
            return
        # A guard must not break a request, by a full queue or otherwise.
        with self._failures:
            if self._thread is None:
                self._start()
            self._notes.put_nowait(item)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="rerank-guard", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while (item := self._notes.get()) is not None:
            with self._failures:
                self._process(item)
            self._notes.task_done()
        self._notes.task_done()

    def _process(self, item: Item) -> None:
        if isinstance(item, Note):
            self._observe(item)
        elif isinstance(item, tuple):
            self._add_feedback(*item)
        else:
            self._compare(item)

    def _observe(self, note: Note) -> None:
        self._remember(note)
        if all(hit.score is None for hit in note.hits):
            return
        null = self._null_passages.score(note.query, note.candidates)
        seen = observe_hits(note.query, note.candidates, note.hits, null=null)
        if seen is None:
            return
        self._write(log.request_line(note.request_id, seen, self._clock()))
        if self.reference is None:
            self._learned.append(seen)
            if len(self._learned) >= self.options.learn:
                self.reference = self._learn()
            return
        self._window.append(seen)
        if len(self._window) >= self.options.window:
            report = judge(self.reference, self._window, self.options.thresholds)
            self._window = []
            self._hysteresis.add_report(report)
            self._change_to(report)
            acting = self.state.acting
            action = self.options.action if acting else ""
            self._write(log.window_line(report, acting=acting, action=action, at_s=self._clock()))
            self._check_canaries()

    def _learn(self) -> Snapshot:
        """Return the snapshot of the first requests, with the fixed pairs as they score now."""
        canaries = self._canaries() if self._canaries and self.options.canary_every else ()
        learned, self._learned = self._learned, []
        return snapshot(learned, subject="", model="", canaries=canaries)

    def _check_canaries(self) -> None:
        """Score the fixed pairs after some windows, or after every window while they deviate."""
        self._judged += 1
        every = self.options.canary_every
        if self._canaries is None or not every or not self.wants_canaries:
            return
        if self._judged % every == 0 or "canaries" in self._hysteresis.causes:
            self._compare(self._canaries())

    def _remember(self, note: Note) -> None:
        stance = note.stance
        if stance.in_first_order:
            self._arms[note.request_id] = "first_stage"
        elif stance.action is None:
            self._arms[note.request_id] = "configured"
        if len(self._arms) > _MAX_REMEMBERED:
            self._arms.popitem(last=False)

    def _add_feedback(self, request_id: str, score: float) -> None:
        arm = self._arms.pop(request_id, None)
        effect = "open" if arm is None else self._feedback.add(arm, score)
        if effect != "open":
            self._set_cause("feedback", score, harmful=effect == "worse")

    def _compare(self, scores: Sequence[float]) -> None:
        if self.reference is None or not scores:
            return
        value = deviation(self.reference.canaries, scores)
        self.state = replace(self.state, canaries=value)
        self._set_cause("canaries", value, harmful=value > TOLERANCE)

    def _set_cause(self, cause: str, value: float, *, harmful: bool) -> None:
        self._hysteresis.set_cause(cause, on=harmful)
        self._change_to(self.state.report)
        self._write(log.note_line(cause, value, harmful=harmful, at_s=self._clock()))

    def _change_to(self, report: DriftReport | None) -> None:
        """Set how requests are served from now on, and the state with the last `report`."""
        decided, was = self._hysteresis, self.state.acting
        acting = decided.harm and self.options.do_no_harm
        self._stance = Stance(
            self.options.action if acting else None,
            moved=decided.verdict != "ok",
            reason=decided.reason,
            prior_weight=self.options.prior_weight,
        )
        self.state = State(
            self.state.version + 1, decided.verdict, acting, report, self.state.canaries
        )
        if acting and not was:
            _LOG.warning("reranking hurts (%s): %s", decided.reason, self.options.action)
        elif was and not acting:
            _LOG.warning("reranking no longer hurts: served as configured again")

    def _write(self, line: str) -> None:
        if self._file is not None:
            self._file.write(line.encode())
