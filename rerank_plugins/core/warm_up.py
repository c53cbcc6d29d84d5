"""The warm-up: real shapes run on every scorer once, before requests or beside them."""

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from ..scoring import Scorer, as_model_error
from ..scoring.runtime.jobs import wait


class Readiness:
    """Warms scorers up once, however often it is asked to. Thread-safe."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self._scorers = tuple(scorers)
        self._lock = threading.Lock()
        self._warming: Future[None] | None = None
        self._background: threading.Thread | None = None

    @property
    def ready(self) -> bool:
        """True if every scorer has run real shapes."""
        warming = self._warming
        return warming is not None and warming.done() and warming.exception() is None

    @property
    def under_way(self) -> Future[None] | None:
        """The warm-up that is running; None: none is."""
        warming = self._warming
        return None if warming is None or warming.done() else warming

    def warm_up(self) -> None:
        """Warm every scorer up, or wait for the thread that does; after a failure, try again."""
        with self._lock:
            warming = self._warming
            mine = warming is None
            if warming is None:
                warming = self._warming = Future()
        if not mine:
            warming.result()
            return
        try:
            for scorer in self._scorers:
                _warm(scorer)
        except BaseException as error:
            self._warming = None
            warming.set_exception(error)
            raise
        warming.set_result(None)

    def begin(self) -> bool:
        """Warm up on a background thread, started once; return whether it still runs.

        After a failed warm-up there is nothing to wait for: requests show what is wrong.
        """
        with self._lock:
            if self._background is None:
                self._background = threading.Thread(
                    target=self._quietly, name="rerank-warm-up", daemon=True
                )
                self._background.start()
            return self._background.is_alive()

    def _quietly(self) -> None:
        with contextlib.suppress(Exception):
            self.warm_up()


def _warm(scorer: Scorer) -> None:
    """Warm a scorer up. Raises `RerankError`."""
    try:
        scorer.warm_up()
    except Exception as error:
        failure = as_model_error(error, scorer.name)
        if failure is error:
            raise
        raise failure from error


async def until_warm(warming: Future[None] | None) -> None:
    """Wait for the warm-up that is under way, if there is one.

    Where it fails, so will the stage, which says so in the result.
    """
    if warming is not None:
        with contextlib.suppress(Exception):
            await wait(warming)
