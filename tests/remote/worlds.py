"""A world of real servers on loopback, one for each host name, and where each host really is.

A transport stands in for DNS and TLS and connects a name to its server.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import httpx

from rerank_plugins.remote.options import RemoteOptions
from rerank_plugins.remote.scorer import RemoteScorer
from rerank_plugins.scoring.runtime.scheduler import Scheduler
from rerank_plugins.testing import FakeRerankServer
from tests.remote.serving import PATIENT, planted

# Where each host really is, as far as anybody can know; None: nobody can.
TRUTH: Mapping[str, str | None] = {
    "eu-api.zeroentropy.dev": "eu",
    "api.zeroentropy.dev": "us",
    "bedrock-runtime.eu-central-1.amazonaws.com": "de",
    "bedrock-runtime.eu-west-2.amazonaws.com": "gb",
    "api.cohere.com": None,
    "gateway.example": None,
    "10.0.0.7": "on-prem",
}
HOSTS = tuple(TRUTH)
# What an operator can attest of each host without contradicting it, besides nothing.
ATTESTED = {"api.cohere.com": ("eu", "us"), "gateway.example": ("de", "mars"), "10.0.0.7": ("fr",)}
WITHIN = {
    "eu": {"eu", "de", "fr"},
    "eea": {"eu", "de", "fr"},
    "de": {"de"},
    "fr": {"fr"},
    "us": {"us"},
    "gb": {"gb"},
    "mars": {"mars"},
    "on-prem": {"on-prem"},
}
NAMES = tuple(WITHIN)
ABSENT = "no label at all"


def may_go(
    labels: Iterable[object],
    places: set[str],
    *,
    policy: tuple[str, ...] | None,
    unlabelled: str,
) -> bool:
    """Ask the policy and every label of a text, on paper, whether it may go to these places."""
    parties = [policy]
    for label in labels:
        if label == ABSENT:
            parties.append(() if unlabelled == "deny" else None)
            continue
        names = [label] if isinstance(label, str) else label
        readable = isinstance(names, list) and all(isinstance(one, str) and one for one in names)
        parties.append(tuple(one.strip().lower() for one in names) if readable else ())
    return all(
        party is None or any(WITHIN[name] & places for name in party if name in WITHIN)
        for party in parties
    )


def dialect_of(host: str) -> str:
    """Return the provider whose dialect a host speaks."""
    return "bedrock-invoke" if host.startswith("bedrock") else "compatible"


class Roads(httpx.AsyncBaseTransport):
    """Connects host names to servers on loopback, as DNS and TLS would to the real ones."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the server that stands for its host."""
        port = self._ports[request.url.host]
        url = request.url.copy_with(scheme="http", host="127.0.0.1", port=port)
        there = httpx.Request(
            request.method,
            url,
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        return await self._inner.handle_async_request(there)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


@dataclass
class World:
    """One server for each host, and every scorer that leads to one."""

    servers: dict[str, FakeRerankServer] = field(default_factory=dict)
    scorers: dict[tuple[str, str | None], RemoteScorer] = field(default_factory=dict)
    scheduler: Scheduler = field(default_factory=lambda: Scheduler(1))
    sent: int = 0
    kept: int = 0
    split: int = 0

    def scorer(self, host: str, region: str | None) -> RemoteScorer:
        """Return the scorer for a host that the operator attests to lie in `region`."""
        if (host, region) not in self.scorers:
            options = RemoteOptions(
                dialect_of(host),
                "cohere.rerank-v3-5:0",
                base_url=f"https://{host}",
                region=region,
                key=None if host.startswith("bedrock") else planted(),
                retries=0,
                breaker=PATIENT,
            )
            ports = {name: int(one.url.rpartition(":")[2]) for name, one in self.servers.items()}
            self.scorers[host, region] = RemoteScorer(options, transport=lambda: Roads(ports))
        return self.scorers[host, region]
