"""The exception tree.

RerankError
├── InvalidRequest      the caller's request cannot be answered as it stands (also a ValueError)
├── ConfigError         a configuration names something impossible (also a ValueError)
│   └── PolicyError     a residency policy and the stages under it contradict each other
├── ModelError          a model is missing, broken, foreign, or returned non-finite scores
│   └── ModelUnavailable  a model cannot be had now: the hub is out of reach, or memory is short
├── RemoteError         a remote reranker refused, failed, or answered nonsense
│   └── Withheld        the residency policy kept text from a destination: nothing was sent
├── Overloaded          the queue is full: the request was not started
├── DeadlineExceeded    the budget ended before anything could be scored (strict mode only)
└── ClosedError         the reranker was closed

Every message says what was found, what was expected, and what to do.
"""

import logging

from .records import Decision


class RerankError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidRequest(RerankError, ValueError):
    """The caller's request cannot be answered as it stands."""


class ConfigError(RerankError, ValueError):
    """A configuration names something unknown or impossible."""


class PolicyError(ConfigError):
    """A residency policy and the stages under it contradict each other."""


class ModelError(RerankError):
    """A model is missing, broken, foreign, or returned non-finite scores."""


class ModelUnavailable(ModelError):
    """A model cannot be had now, and may be later: the hub is out of reach, or memory is short."""


class RemoteError(RerankError):
    """A remote reranker refused, failed, or answered nonsense.

    `decisions` say what was done before it failed, such as what had been sent.
    """

    def __init__(self, message: str, *, decisions: tuple[Decision, ...] = ()) -> None:
        super().__init__(message)
        self.decisions = decisions


class Withheld(RemoteError):
    """The residency policy kept text from a destination; nothing was sent."""


class Overloaded(RerankError):
    """The queue is full; the request was not started."""


class DeadlineExceeded(RerankError):
    """The budget ended before anything could be scored (raised in strict mode only)."""


class ClosedError(RerankError):
    """The reranker was closed before or while the request ran."""


class FailureLog:
    """A block whose errors must not reach a request: each is logged by its name, and dropped.

    The first is logged as a warning, later ones at DEBUG. `message` has one %s for the name of the
    error's class: the error's own text may quote a caller's.
    """

    def __init__(self, logger: logging.Logger, message: str) -> None:
        self._logger = logger
        self._message = message
        self._level = logging.WARNING

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        level, self._level = self._level, logging.DEBUG
        self._logger.log(level, self._message, type(error).__name__)
        return True
