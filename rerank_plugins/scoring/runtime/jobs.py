"""What a request may await: micro-batches on the workers, or a future from elsewhere."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import coroutine
from typing import Generic, TypeVar

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Job(Generic[R]):
    """One micro-batch.

    tokens: its size with padding, by which the queue estimates its time.
    length_tokens: the length of its longest pair, 0 where it has no pairs.
    """

    run: Callable[[], R]
    tokens: int
    length_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PendingJobs(Generic[R]):
    """What `run_jobs` hands to the scheduler."""

    jobs: Sequence[Job[R]]
    admit: Callable[[Job[R]], bool] | None


@dataclass(frozen=True, slots=True)
class PendingFuture(Generic[R]):
    """What `wait` hands to the scheduler."""

    future: Future[R]
    owned: bool


@coroutine
def run_jobs(
    jobs: Sequence[Job[R]], *, admit: Callable[[Job[R]], bool] | None = None
) -> Generator[PendingJobs[R], list[R | None], list[R | None]]:
    """Compute `jobs` on the workers and return their results in order.

    `admit` is asked right before each job starts; the result of a refused job is None. The first
    exception ends the rest and is raised here.
    """
    return (yield PendingJobs(jobs, admit))


@coroutine
def wait(future: Future[R], *, owned: bool = False) -> Generator[PendingFuture[R], R, R]:
    """Return the result of a future that something outside the scheduler completes.

    An `owned` future serves this request alone, and is cancelled with it.
    """
    return (yield PendingFuture(future, owned))
