"""What a request may wait for: micro-batches on the workers, or a future from elsewhere."""

from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Job(Generic[R]):
    """One micro-batch: what to run and its size, the unit the queue reckons in.

    `length_tokens` is that of its longest pair, 0 where it has none.
    """

    run: Callable[[], R]
    tokens: int
    length_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Jobs(Generic[R]):
    """Micro-batches that a request waits for; `admit` is asked before each."""

    jobs: Sequence[Job[R]]
    admit: Callable[[Job[R]], bool] | None

    def __await__(self) -> Generator["Jobs[R]", list[R | None], list[R | None]]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Wait(Generic[R]):
    """A future that a request waits for; an `owned` one is cancelled with it."""

    future: Future[R]
    owned: bool

    def __await__(self) -> Generator["Wait[R]", R, R]:
        return (yield self)


def run_jobs(
    jobs: Sequence[Job[R]], *, admit: Callable[[Job[R]], bool] | None = None
) -> Awaitable[list[R | None]]:
    """Compute `jobs` on the workers and give their results in order.

    `admit` is asked right before each job starts; a refused job gives None. The first exception
    ends the rest and is raised here.
    """
    return Jobs(jobs, admit)


def wait(future: Future[R], *, owned: bool = False) -> Awaitable[R]:
    """Give the result of a future that something outside the scheduler completes.

    An `owned` future serves this request alone, and is cancelled with it.
    """
    return Wait(future, owned)
