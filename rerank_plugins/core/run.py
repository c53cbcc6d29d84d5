"""What is particular to one run of the pipeline: its time, its share of the workers, its name."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from ..records import Code
from ..scoring.runtime.fair_share import Claim, Share


def new_request_id() -> str:
    """Return a random name for a request: 32 hexadecimal digits."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the pipeline. All instants are of `clock`, in seconds.

    submitted_s: when the request was handed in
    deadline_s: when scoring has to end, so that the result is ready in time; None: no limit
    local_outage: why no local stage can serve; None: they can
    claim: what the request has claimed of the workers; None: it runs beside all requests
    share: tells what the request may count on, others being under way; None: it is alone
    margin_factor: factor on the margins of calibrated exits; 1 is as certified, more drops less
    clock: the time now
    request_id: the name of the request in results, spans and audit records
    """

    submitted_s: float
    deadline_s: float | None = None
    local_outage: Code | None = None
    claim: Claim | None = None
    share: Callable[[], Share] | None = None
    margin_factor: float = 1.0
    clock: Callable[[], float] = time.monotonic
    request_id: str = field(default_factory=new_request_id)
