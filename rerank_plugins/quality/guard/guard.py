"""The guard itself: requests leave it a note, a thread of its own thinks about them."""

import itertools
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ...records import Candidate, Hit
from ...scoring.runtime.process import Home
from .. import drift
from ..drift import Observation, Report, Snapshot, Verdict, Window
from ..drift.canaries import TOLERANCE, deviation
from ..drift.features import noted
from . import log
from .feedback_test import Arm, Trial
from .null_passages import Score, Strangers
from .stance import CONFIGURED, GuardOptions, Resolve, Stance

Canaries: TypeAlias = Callable[[], Sequence[float]]
"""Scores the fixed pairs, at leisure; none where it cannot."""

_LOG = logging.getLogger("rerank_plugins.guard")
# Notes waiting to be thought about; with more, requests go unnoted rather than wait.
_MAX_NOTES = 4096
# Requests that feedback may still come for.
_MAX_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Note:
    """What one request leaves behind; its texts are measured and forgotten."""

    request_id: str
    query: str
    candidates: Sequence[Candidate]
    hits: Sequence[Hit]
    stance: Stance


@dataclass(frozen=True, slots=True)
class State:
    """Where the guard stands, for metrics; `version` grows with every change."""

    version: int = 0
    verdict: Verdict = "ok"
    acting: bool = False
    report: Report | None = None
    canaries: float | None = None


class Guard:
    """Watches requests off their path, and says how each next one is served.

    `stance` and `note` cost microseconds and never raise; whatever goes wrong while thinking is
    logged once. Without a `reference` the first requests become one. Thread-safe.
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
        self._notes: queue.Queue[Note | tuple[str, float] | Sequence[float] | None] = queue.Queue(
            _MAX_NOTES
        )
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._said = False
        self._count = itertools.count(1)
        self._stance = CONFIGURED
        share = options.control_share
        self._control_every = 0 if share <= 0.0 else max(2, round(1.0 / share))
        self._learned: list[Observation] = []
        self._window = Window(options.window)
        self._resolve = Resolve(options.patience, options.relief)
        self._trial = Trial(options.watch.alpha, options.window, bool(self._control_every))
        self._arms: OrderedDict[str, Arm] = OrderedDict()
        self._strangers = Strangers(options.null_every)
        self._canaries: Canaries | None = None
        self._judged = 0
        self._home = Home("the guard")

    @property
    def wants_canaries(self) -> bool:
        """Tell whether the snapshot holds canaries to compare with."""
        return self.reference is not None and bool(self.reference.canaries)

    def stance(self) -> Stance:
        """Say how the next request is served."""
        stance, turn = self._stance, next(self._count)
        if self._control_every and turn % self._control_every == 0:
            # While it acts, the requests to compare with are those served as configured.
            if stance.action is not None:
                return replace(CONFIGURED, moved=stance.moved)
            return replace(stance, control=True, scored=False)
        if stance.action == "first_stage":
            return replace(stance, scored=turn % self.options.probe_every == 0)
        if stance.action == "fallback" and turn % self.options.probe_every == 0:
            return replace(CONFIGURED, moved=stance.moved)
        return stance

    def note(self, note: Note) -> None:
        """Take a note of a request; where too many wait, this one is left out."""
        self._leave(note)

    def feedback(self, request_id: str, score: float) -> None:
        """Take in what an evaluator says, in [0, 1], about the answer to a request."""
        self._leave((request_id, score))

    def check(self, scores: Sequence[float]) -> None:
        """Compare the canaries' scores with those of the snapshot."""
        self._leave(list(scores))

    def attach(self, score: Score | None, *, canaries: Canaries | None = None) -> None:
        """Say how a random passage and the fixed pairs are scored, off the path; None: not.

        Raises `ClosedError` in a fork, where its thread and what it had noted are not.
        """
        self._home.check()
        self._strangers.scorer = score
        self._canaries = canaries

    def settle(self) -> None:
        """Wait until all that was left has been thought about."""
        if not self._home.left:
            self._notes.join()

    def learnt(self, *, subject: str, model: str, canaries: Sequence[float] = ()) -> Snapshot:
        """Sum up the requests that no snapshot was there for."""
        self.settle()
        return drift.snapshot(self._learned, subject=subject, model=model, canaries=canaries)

    def close(self) -> None:
        """End the thread, after what is waiting, and close the log; nothing in a fork."""
        # Whoever held a lock when the process was copied holds it there for ever.
        if self._home.left:
            return
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._notes.put(None)
            thread.join(timeout=5.0)
        if self._file is not None:
            self._file.close()

    def _leave(self, item: Note | tuple[str, float] | Sequence[float]) -> None:
        if self._home.left:
            return
        try:
            if self._thread is None:
                self._start()
            self._notes.put_nowait(item)
        except Exception as error:  # noqa: BLE001 - a guard must not break a request
            self._say(error)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="rerank-guard", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            item = self._notes.get()
            try:
                if item is None:
                    return
                self._think(item)
            except Exception as error:  # noqa: BLE001 - as above
                self._say(error)
            finally:
                self._notes.task_done()

    def _say(self, error: Exception) -> None:
        level = logging.DEBUG if self._said else logging.WARNING
        self._said = True
        _LOG.log(level, "the drift guard failed with %s; requests go on", type(error).__name__)

    def _think(self, item: Note | tuple[str, float] | Sequence[float]) -> None:
        if isinstance(item, Note):
            self._request(item)
        elif isinstance(item, tuple):
            self._hear(*item)
        else:
            self._compare(item)

    def _request(self, note: Note) -> None:
        self._remember(note)
        if all(hit.score is None for hit in note.hits):
            return
        null = self._strangers.score(note.query, note.candidates)
        one = noted(note.query, note.candidates, note.hits, null=null)
        if one is None:
            return
        self._write(lambda: log.request_line(note.request_id, one, self._clock()))
        if self.reference is None:
            self._learned.append(one)
            if len(self._learned) >= self.options.learn:
                self.reference = self._summed_up()
            return
        self._window.add(one)
        if self._window.full:
            report = drift.judge(self.reference, self._window, self.options.watch)
            self._window = Window(self.options.window)
            self._resolve.hear(report)
            self._settle_on(report)
            action = self.options.action if self.state.acting else ""
            acting = self.state.acting
            self._write(
                lambda: log.window_line(report, acting=acting, action=action, at_s=self._clock())
            )
            self._look_again()

    def _summed_up(self) -> Snapshot:
        """Make the snapshot that nobody gave, with the fixed pairs as they score now."""
        canaries = self._canaries() if self._canaries and self.options.canary_every else ()
        learned, self._learned = self._learned, []
        return drift.snapshot(learned, subject="", model="", canaries=canaries)

    def _look_again(self) -> None:
        """Score the fixed pairs after some windows; after every one while they deviate."""
        self._judged += 1
        every = self.options.canary_every
        if self._canaries is None or not every or not self.wants_canaries:
            return
        if self._judged % every == 0 or "canaries" in self._resolve.lasting:
            self._compare(self._canaries())

    def _remember(self, note: Note) -> None:
        stance = note.stance
        if stance.in_first_order:
            self._arms[note.request_id] = "first_stage"
        elif stance.action is None:
            self._arms[note.request_id] = "configured"
        if len(self._arms) > _MAX_REMEMBERED:
            self._arms.popitem(last=False)

    def _hear(self, request_id: str, score: float) -> None:
        arm = self._arms.pop(request_id, None)
        if arm is None:
            return
        outcome = self._trial.add(arm, score)
        if outcome == "open":
            return
        worse = outcome == "worse"
        self._resolve.insist("feedback", on=worse)
        self._settle_on(self.state.report)
        self._write(lambda: log.note_line("feedback", score, harmful=worse, at_s=self._clock()))

    def _compare(self, scores: Sequence[float]) -> None:
        if self.reference is None or not scores:
            return
        value = deviation(self.reference.canaries, scores)
        wrong = value > TOLERANCE
        self._resolve.insist("canaries", on=wrong)
        self.state = replace(self.state, canaries=value)
        self._settle_on(self.state.report)
        self._write(lambda: log.note_line("canaries", value, harmful=wrong, at_s=self._clock()))

    def _settle_on(self, report: Report | None) -> None:
        """Draw the consequence: how requests are served from now on."""
        resolve, was = self._resolve, self.state.acting
        acting = resolve.harm and self.options.do_no_harm
        self._stance = Stance(
            self.options.action if acting else None,
            moved=resolve.verdict != "ok",
            reason=resolve.reason,
            prior_weight=self.options.prior_weight,
        )
        self.state = State(
            self.state.version + 1, resolve.verdict, acting, report, self.state.canaries
        )
        if acting and not was:
            _LOG.warning("reranking hurts (%s): %s", resolve.reason, self.options.action)
        elif was and not acting:
            _LOG.warning("reranking no longer hurts: served as configured again")

    def _write(self, line: Callable[[], str]) -> None:
        if self._file is not None:
            self._file.write(line().encode())
