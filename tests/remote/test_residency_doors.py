"""The residency property at every door: no text goes where its labels do not let it, however asked.

Destinations are servers on this machine, which the operator attests to lie in one region more.
"""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rerank_plugins import Policy
from rerank_plugins.errors import PolicyError
from rerank_plugins.testing import FakeRerankServer, Fault
from tests.contracts.doors import DOORS, Door, document, settings_file
from tests.remote.worlds import ABSENT, NAMES, may_go

# RESIDENCY_CASES=10000 takes half an hour on two busy cores.
CASES = int(os.environ.get("RESIDENCY_CASES", "1500"))

REGIONS = (None, "eu", "de", "us", "mars")
# Their documents are a request each, or are told apart by more than their text.
APART = ("ray", "langchain-rerank-dicts")
# They ask about another topic as well.
TALKATIVE = ("cli-eval-lines", "cli-eval-label-free")


@pytest.fixture(scope="module")
def servers() -> Iterator[Mapping[str | None, FakeRerankServer]]:
    """Start a server for each region."""
    with contextlib.ExitStack() as stack:
        yield {region: stack.enter_context(FakeRerankServer("cohere")) for region in REGIONS}


@dataclass(frozen=True)
class Case:
    """One request at a door; each document is a place for a label, and the label."""

    door: Door
    region: str | None
    regions: tuple[str, ...] | None
    unlabelled: str
    per: str
    labels: tuple[tuple[str, object], ...]
    twins: bool
    redirect_to: str | None
    answer: Fault | None

    @property
    def texts(self) -> list[str]:
        """Return the text of each document, every other one the same if they are twins."""
        twins = self.twins and not self.door.name.startswith(APART)
        return [f"secret {i % 2 if twins else i} passage" for i in range(len(self.labels))]

    @property
    def documents(self) -> list[dict[str, object]]:
        """Return the documents as the door takes them."""
        return [
            document(text, place, *([] if label == ABSENT else [label]))
            for text, (place, label) in zip(self.texts, self.labels, strict=True)
        ]

    @property
    def fine(self) -> set[str]:
        """Work out on paper which texts the destination may see."""
        places = {place for place in ("on-prem", self.region) if place}
        by_text: dict[str, list[object]] = {text: [] for text in self.texts}
        for text, (_, label) in zip(self.texts, self.labels, strict=True):
            by_text[text] += [label, *([ABSENT] if self.door.name.endswith("twins") else [])]
        fine = {
            text
            for text, labels in by_text.items()
            if may_go(labels, places, policy=self.regions, unlabelled=self.unlabelled)
        }
        alone = self.per == "candidate" or self.door.name.startswith("ray")
        return fine if alone or fine == set(by_text) else set()


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a request that somebody could make."""
    door = draw(st.sampled_from(DOORS))
    names = st.sampled_from(NAMES)
    odd = st.sampled_from([None, 7, "", "EU ", [["eu"]], {"eu": 1}])
    label = st.one_of(st.just(ABSENT), names, names, st.lists(names, max_size=2), odd)
    labels = st.tuples(st.sampled_from(door.places), label)
    return Case(
        door=door,
        region=draw(st.sampled_from(REGIONS)),
        regions=draw(st.one_of(st.none(), st.lists(names, min_size=1, max_size=3).map(tuple))),
        unlabelled=draw(st.sampled_from(["allow", "allow", "deny"])),
        per=draw(st.sampled_from(["request", "candidate"])),
        labels=tuple(draw(st.lists(labels, min_size=1, max_size=3))),
        twins=draw(st.booleans()),
        redirect_to=draw(st.sampled_from(REGIONS)),
        answer=draw(st.sampled_from([None, None, None, Fault.REDIRECT])),
    )


def hold(servers, folder, examples: int) -> tuple[int, int, int]:
    """Let the property hold; return how often texts were sent, kept, and split."""
    counts = {"sent": 0, "kept": 0, "split": 0}

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
        there = servers[case.region]
        for server in servers.values():
            server.requests.clear()
            server.break_with([case.answer])
            server.redirect_to = f"{servers[case.redirect_to].url}/v2/rerank"
        before = {region: server.bytes_received for region, server in servers.items()}
        policy = {"unlabelled": case.unlabelled, "per": case.per}
        policy |= {} if case.regions is None else {"regions": list(case.regions)}
        url = {"base_url": there.url, **({"region": case.region} if case.region else {})}
        quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with (
            settings_file(folder, policy, url) as config,
            quiet[0],
            quiet[1],
            contextlib.suppress(PolicyError, SystemExit),
        ):
            case.door.ask(config, case.documents)
        received = {r: server.bytes_received - before[r] for r, server in servers.items()}
        strangers = {r: n for r, n in received.items() if r != case.region and n}
        assert not strangers, f"{case.door} sent to {strangers}"
        seen = b"".join(request.body for request in there.requests).decode()
        leaked = {text for text in set(case.texts) - case.fine if text in seen}
        assert not leaked, f"{case.door} sent {leaked}"
        if not case.fine and case.door.name not in TALKATIVE:
            assert not received[case.region], f"{case.door} sent something"
        counts["sent"] += any(text in seen for text in case.fine)
        counts["kept"] += not case.fine
        counts["split"] += bool(case.fine) and case.fine != set(case.texts)

    property_holds()
    return counts["sent"], counts["kept"], counts["split"]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    """Set the provider's key."""
    monkeypatch.setenv("COHERE_API_KEY", "k")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_door_sends_what_has_to_stay(servers, tmp_path):
    """Requests over all doors, places and shapes of labels (10,000 by hand): no withheld text."""
    sent, kept, split = hold(servers, tmp_path, CASES)
    # The property would hold trivially if nothing were ever sent, or nothing ever split.
    assert sent > CASES // 10
    assert kept > CASES // 4
    assert split > CASES // 200


def test_the_property_holds_for_a_few(servers, tmp_path):
    """The same over fewer requests, some of which are sent."""
    sent, kept, _ = hold(servers, tmp_path, 150)
    assert sent > 10
    assert kept > 30


def labels_are_not_read(monkeypatch):
    """Ignore what documents say."""
    monkeypatch.setattr(Policy, "label", lambda self, metadata: None)


def only_metadata_are_read(monkeypatch):
    """Ignore labels anywhere but at the top of the metadata."""
    monkeypatch.setattr("rerank_plugins.rules.residency._NESTED", ())


@pytest.mark.parametrize("hole", [labels_are_not_read, only_metadata_are_read])
def test_a_planted_hole_is_found_at_the_doors(servers, tmp_path, monkeypatch, hole):
    """Each weakening of the reading of labels makes the property fail."""
    hole(monkeypatch)
    with pytest.raises(AssertionError, match="sent"):
        hold(servers, tmp_path, 500)
