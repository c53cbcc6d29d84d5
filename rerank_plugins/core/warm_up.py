"""Readiness: whether real shapes have run, and the one warm-up that makes it so."""

import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future

from ..records import Result
from ..scoring import Scorer
from ..scoring.runtime.jobs import wait


class Readiness:
    """Warms scorers up once, whoever asks and however often. Thread-safe."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self._scorers = tuple(scorers)
        self._lock = threading.Lock()
        self._warming: Future[None] | None = None
        self._background: threading.Thread | None = None

    @property
    def ready(self) -> bool:
        """Tell whether every scorer has run real shapes."""
        warming = self._warming
        return warming is not None and warming.done() and warming.exception() is None

    @property
    def under_way(self) -> Future[None] | None:
        """Give the warm-up that is running, None where none is."""
        warming = self._warming
        return None if warming is None or warming.done() else warming

    def warm_up(self) -> None:
        """Warm every scorer up, or wait for who does; a failed one can be tried again."""
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
                scorer.warm_up()
        except BaseException as error:
            self._warming = None
            warming.set_exception(error)
            raise
        warming.set_result(None)

    def begin(self) -> bool:
        """Warm up on a thread of its own, started once; tell whether it still runs.

        After a failed warm-up nothing more is to be waited for: requests show what is wrong.
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


async def once_warm(
    warming: Future[None] | None, answer: Callable[[], Coroutine[object, object, Result]]
) -> Result:
    """Answer after the warm-up that is under way, if one is."""
    if warming is not None:
        # Where it fails, so will the stage, which says so in the result.
        with contextlib.suppress(Exception):
            await wait(warming)
    return await answer()
