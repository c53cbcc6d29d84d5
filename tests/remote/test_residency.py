"""No server outside the allowed regions ever receives a byte, whatever is asked, sent or answered.

What is allowed is worked out here a second time, from a table of where each host really is, by code
that shares nothing with the policy's.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rerank_plugins import Candidate, Policy, Stage
from rerank_plugins.core import pipeline, residency
from rerank_plugins.core.request import Resolved
from rerank_plugins.core.run import Run
from rerank_plugins.core.setup import Setup
from rerank_plugins.errors import PolicyError, RerankError
from rerank_plugins.remote.calls import Calls
from rerank_plugins.remote.client import Client
from rerank_plugins.rules.calibration import Calibration
from rerank_plugins.rules.residency import Per, Permit
from rerank_plugins.scoring import Scorer
from rerank_plugins.scoring.lexical import LexicalScorer
from rerank_plugins.testing import FakeRerankServer, Fault
from tests.remote.worlds import (
    ABSENT,
    ATTESTED,
    HOSTS,
    NAMES,
    TRUTH,
    World,
    dialect_of,
    may_go,
)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Start the servers."""
    world = World({host: FakeRerankServer(dialect_of(host)) for host in HOSTS})
    yield world
    world.scheduler.close()
    for scorer in world.scorers.values():
        scorer.close()
    for server in world.servers.values():
        server.close()


@dataclass(frozen=True)
class Case:
    """One request: where it would go, under what policy, with which documents and answers."""

    host: str
    region: str | None
    policy: tuple[str, ...] | None
    unlabelled: str
    labels: tuple[object, ...]
    answer: Fault | None
    redirect_to: str
    per: Per
    twins: bool

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Return the candidates, every other one of the same text if they are twins."""
        return tuple(
            Candidate(
                f"secret passage {i % 2 if self.twins else i}",
                metadata={} if label == ABSENT else {"residency": label},
            )
            for i, label in enumerate(self.labels)
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a request that somebody could make."""
    host = draw(st.sampled_from(HOSTS))
    names = st.sampled_from(NAMES)
    odd = st.sampled_from([None, 7, "", "EU ", ["eu", 0]])
    label = st.one_of(st.just(ABSENT), names, st.lists(names, max_size=2), odd)
    return Case(
        host=host,
        region=draw(st.sampled_from((None, *ATTESTED.get(host, ())))),
        policy=draw(st.one_of(st.none(), st.lists(names, min_size=1, max_size=3).map(tuple))),
        unlabelled=draw(st.sampled_from(["allow", "allow", "deny"])),
        labels=tuple(draw(st.lists(label, min_size=1, max_size=3))),
        answer=draw(st.sampled_from([None, Fault.REDIRECT, Fault.REDIRECT, Fault.REDIRECT_SELF])),
        redirect_to=draw(st.sampled_from(HOSTS)),
        per=draw(st.sampled_from(["request", "candidate"])),
        twins=draw(st.booleans()),
    )


def may_receive(case: Case, host: str) -> set[str]:
    """Work out again, on paper, which of a request's texts a host may see."""
    texts = {candidate.text for candidate in case.candidates}
    fine = {text for text in texts if all_agree(case, host, text)}
    return fine if case.per == "candidate" or fine == texts else set()


def all_agree(case: Case, host: str, text: str) -> bool:
    """Ask the policy and every candidate of a text."""
    places = {place for place in (TRUTH[host], case.region if host == case.host else None) if place}
    twins = (candidate for candidate in case.candidates if candidate.text == text)
    labels = [candidate.metadata.get("residency", ABSENT) for candidate in twins]
    return may_go(labels, places, policy=case.policy, unlabelled=case.unlabelled)


def ask(world: World, case: Case) -> None:
    """Make the request twice: through the engine, and past it to the scorer itself."""
    policy = Policy(case.policy, unlabelled=case.unlabelled, per=case.per)
    remote = world.scorer(case.host, case.region)
    for server in world.servers.values():
        server.break_with([case.answer] * 2)
        server.redirect_to = f"https://{case.redirect_to}/v2/rerank"
    try:
        setup = Setup(stages(remote), policy=policy)
    except PolicyError:
        setup = Setup(stages(LexicalScorer()), policy=policy)
    answer = pipeline.rerank(setup, Resolved("secret query", case.candidates), Run(0.0))
    result = world.scheduler.submit(answer).result()
    assert len(result.order) == len(case.candidates)
    assert all(hit.probability is not None for hit in result), "a candidate was left out"
    permitted = remote.under(residency.permit(policy, case.candidates, "", None))
    texts = [candidate.text for candidate in case.candidates]
    try:
        world.scheduler.submit(permitted.score("secret query", texts)).result()
    except RerankError:
        return


def stages(first: Scorer) -> tuple[Stage, ...]:
    """Put word overlap behind a scorer, both calibrated."""
    local = Stage(LexicalScorer(), when="fallback", calibration=Calibration(1.0, -1.0))
    return (Stage(first, calibration=Calibration(4.0, -2.0)), local)


def hold(world: World, examples: int) -> None:
    """Let the property hold over so many cases. Raises `AssertionError` where it does not."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def property_holds(case: Case) -> None:
        before = {host: server.bytes_received for host, server in world.servers.items()}
        for server in world.servers.values():
            server.requests.clear()
        ask(world, case)
        texts = {candidate.text for candidate in case.candidates}
        for host, server in world.servers.items():
            received = server.bytes_received - before[host]
            fine = may_receive(case, host)
            if not fine:
                assert received == 0, f"{host} received {received} bytes"
                world.kept += 1
            elif received:
                world.sent += 1
                world.split += fine != texts
                assert host == case.host, "a redirect to another origin was followed"
            seen = b"".join(request.body for request in server.requests).decode()
            leaked = {text for text in texts - fine if text in seen}
            assert not leaked, f"{host} received {leaked}"

    property_holds()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_servers_outside_the_allowed_regions_receive_nothing(world):
    """10,000 policies, destinations, documents and redirects: zero bytes where none may go.

    By candidate, no document that has to stay is among those that leave.
    """
    hold(world, 10_000)
    # The property would hold trivially if nothing were ever sent, or nothing ever split.
    assert world.sent > 1000
    assert world.kept > 10_000
    assert world.split > 100


def unknown_passes(monkeypatch):
    """Let destinations without proof pass."""
    real = Policy._lies_in
    monkeypatch.setattr(
        Policy, "_lies_in", lambda self, d, regions: d.proof == "unknown" or real(self, d, regions)
    )


def names_that_start_with_eu_pass(monkeypatch):
    """Take every data centre whose name starts with eu for a part of the EU."""
    real = Policy.contains
    monkeypatch.setattr(
        Policy,
        "contains",
        lambda self, outer, inner: inner.startswith(outer) or real(self, outer, inner),
    )


def labels_are_not_read(monkeypatch):
    """Ignore what documents say."""
    monkeypatch.setattr(Policy, "label", lambda self, metadata: None)


def unreadable_labels_pass(monkeypatch):
    """Take a label that cannot be read for none."""
    real = Policy.label

    def label(self, metadata):
        found = real(self, metadata)
        return found if found is None or found.regions else None

    monkeypatch.setattr(Policy, "label", label)


def nobody_asks_for_which_texts(monkeypatch):
    """Send all texts of a request where some of them may go."""
    monkeypatch.setattr(
        Permit,
        "verdict",
        lambda self, destination, texts=None: self.policy.verdict(
            destination, () if self.policy.per == "candidate" else self.labels
        ),
    )


def twins_are_not_told_apart(monkeypatch):
    """Of candidates with the same text, believe the first."""
    real = residency.permit

    def permit(policy, candidates, request_id, audit):
        found = real(policy, candidates, request_id, audit)
        labels = {}
        for one in candidates:
            label = policy.label(one.metadata)
            labels.setdefault(one.text, () if label is None else (label,))
        return replace(found, of_text=labels)

    monkeypatch.setattr(residency, "permit", permit)


def redirects_are_followed(monkeypatch):
    """Follow redirects anywhere, and check the first URL alone."""
    monkeypatch.setattr(Client, "_redirect_target", lambda self, url, there: str(url.join(there)))
    real = Calls._check
    monkeypatch.setattr(
        Calls,
        "_check",
        lambda self, context, request, items, url: real(
            self, context, request, items, self.endpoint.url
        ),
    )


@pytest.mark.parametrize(
    "hole",
    [
        unknown_passes,
        names_that_start_with_eu_pass,
        labels_are_not_read,
        unreadable_labels_pass,
        nobody_asks_for_which_texts,
        twins_are_not_told_apart,
        redirects_are_followed,
    ],
)
def test_a_planted_hole_is_found(world, monkeypatch, hole):
    """Each weakening of the check makes the property fail."""
    hole(monkeypatch)
    with pytest.raises(AssertionError, match=r"received|followed"):
        hold(world, 2000)


def test_the_property_holds_without_a_hole(world):
    """The same cases that find the holes find none in the code as it is."""
    hold(world, 300)
