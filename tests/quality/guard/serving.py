"""A service under guard: a scorer whose scores agree with the first stage until they do not."""

import numpy as np

from rerank_plugins import Candidate, Reranker, Stage
from rerank_plugins.core.setup import Setup
from rerank_plugins.quality.drift.features import observe_hits
from rerank_plugins.quality.drift.snapshot import snapshot
from rerank_plugins.quality.guard.guard import Guard
from rerank_plugins.quality.guard.stance import GuardOptions
from rerank_plugins.scoring import Scored


class Tied:
    """A scorer tied to the first stage, as far as `agreement` says; numbers, not text, decide."""

    name = "tied"
    score_kind = "logit"

    def __init__(self, agreement=0.8):
        self.agreement = agreement
        self.shift = 0.0
        self.calls = 0
        self.random = np.random.default_rng(0)

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Score texts that end with their prior."""
        self.calls += 1
        priors = np.array([float(text.rsplit(" ", 1)[1]) for text in passages])
        noise = self.random.normal(size=len(passages))
        scores = self.agreement * priors + np.sqrt(1 - self.agreement**2) * noise + self.shift
        zeros = np.zeros(len(passages), dtype=np.int64)
        return Scored(scores.astype(np.float32), zeros == 0, zeros)

    def warm_up(self):
        """Need none."""

    def close(self):
        """Hold nothing."""


def question(source, size=15):
    """Give the candidates of one request, best prior first."""
    priors = -np.sort(-source.normal(size=size))
    return [Candidate(f"passage {one:.6f}", float(one)) for one in priors]


def reference(scorer, count=200):
    """Take a snapshot while all is well."""
    source = np.random.default_rng(1)
    with Reranker(Setup((Stage(scorer),))) as reranker:
        seen = []
        for _ in range(count):
            candidates = question(source)
            seen.append(
                observe_hits("a query", candidates, reranker.rerank("a query", candidates).hits)
            )
    return snapshot(seen, subject="tied", model="tied")


def guarded(scorer, before, *, stages=None, **options):
    """Open a service under guard."""
    guard = Guard(GuardOptions(**{"window": 40, "null_every": 0, **options}), before)
    setup = Setup(stages or (Stage(scorer),), guard=guard)
    return Reranker(setup), guard


def ask(reranker, guard, count, *, seed=2):
    """Send requests, each thought about before the next; give their results."""
    source = np.random.default_rng(seed)
    results = []
    for _ in range(count):
        results.append(reranker.rerank("a query", question(source)))
        guard.settle()
    return results
