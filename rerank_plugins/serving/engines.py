"""The engines of a process: one for each settings, loaded once and outside of any lock."""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

from ..errors import ModelError, ModelUnavailable, RerankError
from ..reranker import Reranker

if TYPE_CHECKING:
    from ..config.schema import Settings

Source: TypeAlias = str | Mapping[str, object]
"""The path of a settings file, or settings."""

# A component made for each request finds the engine of the last one so long after its last use.
_KEPT_S = 300.0
# A load that failed is not repeated for so long: requests get the same answer at once.
_FAILED_S = 30.0


@dataclass(frozen=True, slots=True)
class _Failure:
    error: RerankError
    until_s: float


class Engines:
    """Loads engines and finds those that are loaded. Thread-safe.

    An engine ends with its last holder; the one that was found last is held for a while. Each load
    has a thread of its own: a hub that does not answer stops nobody but those who wait for it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._loaded: WeakValueDictionary[str, Reranker] = WeakValueDictionary()
        self._loading: dict[str, Future[Reranker]] = {}
        self._failed: dict[str, _Failure] = {}
        self._kept: Reranker | None = None
        self._kept_until_s = 0.0
        self._timer: threading.Timer | None = None

    def load(self, settings: "Settings", *, again: bool = False) -> Future[Reranker]:
        """Return the future of the engine of these settings, which ends in a `RerankError` at most.

        again: try again now where the last load failed
        """
        key = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
        with self._lock:
            engine, failure = self._loaded.get(key), self._failed.get(key)
            future = self._loading.get(key)
            if engine is not None:
                dropped = self._keep(engine)  # noqa: F841 - it ends outside of the lock
            elif future is not None:
                return future
            elif again or failure is None or self._clock() > failure.until_s:
                future = self._loading[key] = _running()
                work = partial(self._load, key, settings, future)
                threading.Thread(target=work, name="rerank-load", daemon=True).start()
                return future
        future = _running()
        if engine is not None:
            future.set_result(engine)
        elif failure is not None:
            future.set_exception(failure.error.with_traceback(None))
        return future

    def release(self, engine: Reranker) -> None:
        """Let go of an engine, so that it ends with its last holder."""
        with self._lock:
            if self._kept is engine:
                self._kept = None

    def _load(self, key: str, settings: "Settings", future: Future[Reranker]) -> None:
        from ..config.build import build_setup

        try:
            engine = Reranker(build_setup(settings))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the engine is to know
            failure = _ours(error)
            with self._lock:
                del self._loading[key]
                self._failed[key] = _Failure(failure, self._clock() + _FAILED_S)
            future.set_exception(failure)
            return
        with self._lock:
            del self._loading[key]
            self._failed.pop(key, None)
            self._loaded[key] = engine
            dropped = self._keep(engine)  # noqa: F841 - it ends outside of the lock
        future.set_result(engine)

    def _keep(self, engine: Reranker) -> Reranker | None:
        """Hold an engine for a while and return the one that was held; the lock is held."""
        before, self._kept = self._kept, engine
        self._kept_until_s = self._clock() + _KEPT_S
        if self._timer is None:
            self._start_timer(_KEPT_S)
        return before

    def _start_timer(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._let_go)
        self._timer.daemon = True
        self._timer.start()

    def _let_go(self) -> None:
        with self._lock:
            left_s = self._kept_until_s - self._clock()
            if self._kept is not None and left_s > 0.0:
                self._start_timer(left_s)
                return
            # It ends outside of the lock, when this function returns.
            engine, self._kept, self._timer = self._kept, None, None
        del engine


# Neither threads nor the holder of a lock survive a fork: each process has its own of both.
_engines: dict[int, Engines] = {}


def engines() -> Engines:
    """Return the engines of this process."""
    process = os.getpid()
    found = _engines.get(process)
    return _engines.setdefault(process, Engines()) if found is None else found


def read(source: Source) -> "Settings":
    """Read settings. Raises `ConfigError`."""
    # Here, because pydantic is a third of the import time.
    from ..config.read import read_settings

    return read_settings(source)


def _running() -> Future[Reranker]:
    """Return a future that nobody who waits for it can cancel."""
    future: Future[Reranker] = Future()
    future.set_running_or_notify_cancel()
    return future


def _ours(error: BaseException) -> RerankError:
    """Return what a load raised as one of our errors."""
    if isinstance(error, RerankError):
        return error
    kind = ModelUnavailable if isinstance(error, MemoryError) else ModelError
    failure = kind(f"the model does not load: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
