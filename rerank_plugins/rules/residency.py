"""Residency: where text may be processed; decided once a request, and again when it is sent.

The rule, in one sentence: text may go to a destination only if the destination is known to lie
inside a region that the policy names and inside a region that each document names.

Everything unclear is a no: a destination of unknown region, a document label that cannot be read,
a name that nothing contains. Documents can narrow what the policy allows and never widen it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from ..errors import PolicyError

Proof: TypeAlias = Literal["url", "attested", "unknown"]
Unlabelled: TypeAlias = Literal["allow", "deny"]
Per: TypeAlias = Literal["request", "candidate"]
UNKNOWN = "unknown"
ON_PREM = "on-prem"
_EU = "at be bg cy cz de dk ee es fi fr gr hr hu ie it lt lu lv mt nl pl pt ro se si sk"

# Data centres by the names that cloud providers give them, and the country each stands in. Not
# every name that starts with "eu" lies in the EU: London and Zurich do not.
_CENTRES = {
    "ap-northeast-1": "jp",
    "ap-northeast-2": "kr",
    "ap-south-1": "in",
    "ap-southeast-1": "sg",
    "ap-southeast-2": "au",
    "ca-central-1": "ca",
    "eu-central-1": "de",
    "eu-central-2": "ch",
    "eu-frankfurt-2": "de",
    "eu-north-1": "se",
    "eu-south-1": "it",
    "eu-south-2": "es",
    "eu-west-1": "ie",
    "eu-west-2": "gb",
    "eu-west-3": "fr",
    "sa-east-1": "br",
    "us-east-1": "us",
    "us-east-2": "us",
    "us-gov-east-1": "us",
    "us-gov-west-1": "us",
    "us-west-1": "us",
    "us-west-2": "us",
}

_COUNTRY_LETTERS = 2

INSIDE: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(_EU.split(), "eu"),
        **dict.fromkeys(("is", "li", "no", "eu"), "eea"),
        **_CENTRES,
    }
)
"""Which region lies inside which: countries (ISO 3166-1, lower case), EU, EEA, data centres."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A place that text could be sent to.

    `origin` is scheme://host:port. It lies in every region of `regions` at once (a server of our
    own in Germany is "on-prem" and "de"); none means unknown. `proof` says how that is known.
    """

    origin: str
    regions: tuple[str, ...] = ()
    proof: Proof = "unknown"

    def __str__(self) -> str:
        where = "+".join(self.regions) or UNKNOWN
        return f"{self.origin} (region {where}, proof {self.proof})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether text may go to a destination, and why."""

    allowed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Where text may be processed. Local scorers are always allowed: their text goes nowhere.

    `regions` None allows every destination; a list allows only what is known to lie inside one of
    its names. `residency_key` is the metadata key under which a document narrows that, by a name or
    a list of names; `unlabelled` says whether documents without it may leave at all. `inside` adds
    names of your own to the tree of regions: {"acme-frankfurt": "de"}. `per` "request" keeps a
    whole request here for one document that has to stay, "candidate" keeps that document. `audit`
    is a file that gets one JSON line for each sending and each refusal. Raises `PolicyError` for
    what can never hold.
    """

    regions: tuple[str, ...] | None = None
    residency_key: str = "residency"
    unlabelled: Unlabelled = "allow"
    inside: Mapping[str, str] = field(default_factory=dict)
    audit: Path | None = None
    per: Per = "request"

    def __post_init__(self) -> None:
        given: object = self.regions
        if self.regions is not None:
            if isinstance(given, str) or not given:
                message = (
                    f"policy regions are {self.regions!r}; expected names such as "
                    '["eu", "on-prem"], or None to allow every destination'
                )
                raise PolicyError(message)
            object.__setattr__(self, "regions", tuple(map(_name, self.regions)))
        if UNKNOWN in (self.regions or ()):
            message = (
                'policy regions name "unknown"; an unknown place cannot be allowed: leave regions '
                "out to allow every destination"
            )
            raise PolicyError(message)
        inside = {_name(one): _name(other) for one, other in self.inside.items()}
        _refuse_moves(inside)
        tree = {**INSIDE, **inside}
        for region in tree:
            _refuse_circle(region, tree)
        object.__setattr__(self, "inside", MappingProxyType(inside))

    def contains(self, outer: str, inner: str) -> bool:
        """True if region `inner` lies inside region `outer`, or is the same.

        >>> Policy().contains("eu", "eu-central-1"), Policy().contains("eu", "eu-west-2")
        (True, False)
        """
        outer, here = _name(outer), _name(inner)
        while here != outer:
            above = self.inside.get(here) or INSIDE.get(here)
            if above is None:
                return False
            here = above
        return here != UNKNOWN

    def verdict(self, destination: Destination, labels: Iterable["Label"] = ()) -> Verdict:
        """Return whether text under `labels` may go to `destination`, and why."""
        if self.regions is not None and not self._lies_in(destination, self.regions):
            wanted = ", ".join(self.regions)
            return Verdict(False, f"{destination} is not known to lie inside {wanted}")
        for label in labels:
            if not self._lies_in(destination, label.regions):
                return Verdict(False, f"a document {label} may not go to {destination}")
        if self.regions is None:
            return Verdict(True, f"{destination}: the policy restricts no destination")
        return Verdict(True, f"{destination} lies inside {', '.join(self.regions)}")

    def label(self, metadata: Mapping[str, object] | None) -> "Label | None":
        """Return the label in a document's metadata; None where it does not narrow the policy.

        A label that cannot be read keeps the document local.
        """
        value = None if metadata is None else metadata.get(self.residency_key)
        if value is None:
            return Label((), "without a label") if self.unlabelled == "deny" else None
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, Sequence | set | frozenset) or isinstance(names, bytes):
            return Label((), "with a label that cannot be read")
        if not all(isinstance(one, str) and one.strip() for one in names):
            return Label((), "with a label that cannot be read")
        regions = tuple(sorted({_name(one) for one in names}))
        return Label(regions, f"labelled {', '.join(regions) or 'with nothing'}"[:80])

    def _lies_in(self, destination: Destination, regions: Iterable[str]) -> bool:
        if destination.proof == "unknown":
            return False
        return any(self.contains(one, here) for one in regions for here in destination.regions)


@dataclass(frozen=True, slots=True)
class Label:
    """The regions a document may be processed in (none: nowhere but here), in words besides."""

    regions: tuple[str, ...]
    words: str = ""

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True, slots=True)
class Audit:
    """What left, or was kept from leaving, to where and why: hashes and counts, never text."""

    request_id: str
    destination: str
    regions: tuple[str, ...]
    proof: Proof
    allowed: bool
    reason: str
    policy: tuple[str, ...] | None
    texts: int
    text_bytes: int
    query_sha256: str
    texts_sha256: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Permit:
    """What one request may do with its text: the policy, and what its documents add to it.

    `labels` are those of every text it covers, `of_text` those of each; `record` receives an
    `Audit` for each question asked, before anything is sent.
    """

    policy: Policy
    labels: tuple[Label, ...] = ()
    request_id: str = ""
    record: Callable[[Audit], None] | None = None
    of_text: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)

    def verdict(self, destination: Destination, texts: Sequence[str] | None = None) -> Verdict:
        """Return whether the request's text may go to `destination`.

        By candidate, only `texts` are in question; one that nobody knows counts as all of them.
        """
        labels = self.labels
        if texts is not None and self.policy.per == "candidate":
            known = (self.of_text.get(text, self.labels) for text in texts)
            labels = tuple(dict.fromkeys(label for each in known for label in each))
        return self.policy.verdict(destination, labels)

    def audit(
        self, verdict: Verdict, destination: Destination, query: str, texts: Sequence[str]
    ) -> None:
        """Record a verdict. What `record` raises reaches the caller: no record, no sending."""
        if self.record is None:
            return
        hashes = tuple(map(_hash, texts))
        size = sum(len(text.encode("utf-8", "replace")) for text in (query, *texts))
        self.record(
            Audit(
                request_id=self.request_id,
                destination=destination.origin,
                regions=destination.regions,
                proof=destination.proof,
                allowed=verdict.allowed,
                reason=verdict.reason,
                policy=self.policy.regions,
                texts=len(texts),
                text_bytes=size,
                query_sha256=_hash(query),
                texts_sha256=hashes,
            )
        )


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()


def _name(region: str) -> str:
    return region.strip().casefold()


def _refuse_moves(inside: Mapping[str, str]) -> None:
    """Raise `PolicyError` where a region of the map is moved: that would widen a policy."""
    fixed = {*INSIDE, *INSIDE.values(), UNKNOWN, "global"}
    for region, above in inside.items():
        # Two letters are a country, listed above or not.
        if region in fixed or len(region) == _COUNTRY_LETTERS:
            message = (
                f"inside places {region!r} in {above!r}; countries, the EU and data centres stay "
                "where they are: only names of your own can be added"
            )
            raise PolicyError(message)


def _refuse_circle(region: str, tree: Mapping[str, str]) -> None:
    seen = [region]
    while (above := tree.get(seen[-1])) is not None:
        seen.append(above)
        if above in seen[:-1]:
            message = f"regions lie inside each other: {' > '.join(seen)}; remove one of them"
            raise PolicyError(message)
