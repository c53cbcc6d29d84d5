"""A server that does everything wrong, as a process of its own: its work is not the engine's.

Says its URL; gets well at the first line it is told, and ends at the second with what it did.
"""

import json
import random
import sys
from collections import Counter

from rerank_plugins.testing import FakeRerankServer, Fault

SEED = 20261121
SLOW_S = 0.4
# Requests of this span find the server dead altogether.
OUTAGE = range(2_000, 2_060)


def main() -> None:
    """Serve until told to end."""
    chance = random.Random(SEED)
    faults = [*Fault, *[None] * len(Fault)]
    done: Counter[str] = Counter()

    def fault(number: int) -> Fault | None:
        drawn = Fault.CLOSED if number in OUTAGE else chance.choice(faults)
        done["NONE" if drawn is None else drawn.name] += 1
        server.requests.clear()
        return drawn

    with FakeRerankServer(
        "cohere", faults=fault, slow_s=SLOW_S, redirect_to="http://a.example/"
    ) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        sys.stdin.readline()
        server.break_with(())
        sys.stdin.readline()
    sys.stdout.write(f"{json.dumps(done)}\n")


if __name__ == "__main__":
    main()
