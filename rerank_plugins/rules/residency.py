"""Residency: where text may be processed; decided once a request, and again when it is sent.

The rule, in one sentence: text may go to a destination only if the destination is known to lie
inside a region that the policy names and inside a region that each document names.

Everything unclear is a no: a destination of unknown region, a document label that cannot be read,
a name that nothing contains. Documents can narrow what the policy allows and never widen it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
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

# The regions of AWS, Azure, Google Cloud and Oracle's EU sovereign cloud by the country each stands
# in. Not every name that starts with "eu" lies in the EU: London and Zurich do not.
_CENTRES_OF = {
    "ae": "me-central-1 uaecentral uaenorth",
    "at": "austriaeast",
    "au": "ap-southeast-2 ap-southeast-4 australia-southeast1 australia-southeast2 "
    "australiacentral australiacentral2 australiaeast australiasoutheast",
    "be": "belgiumcentral europe-west1",
    "bh": "me-south-1",
    "br": "brazilsouth brazilsoutheast sa-east-1 southamerica-east1",
    "ca": "ca-central-1 ca-west-1 canadacentral canadaeast northamerica-northeast1 "
    "northamerica-northeast2",
    "ch": "eu-central-2 europe-west6 switzerlandnorth switzerlandwest",
    "cl": "chilecentral southamerica-west1",
    "cn": "chinaeast chinaeast2 chinaeast3 chinanorth chinanorth2 chinanorth3 cn-north-1 "
    "cn-northwest-1",
    "de": "eu-central-1 eu-frankfurt-2 europe-west10 europe-west3 eusc-de-east-1 germanynorth "
    "germanywestcentral",
    "dk": "denmarkeast",
    "es": "eu-south-2 europe-southwest1 spaincentral",
    "fi": "europe-north1",
    "fr": "eu-west-3 europe-west9 francecentral francesouth",
    "gb": "eu-west-2 europe-west2 uksouth ukwest",
    "hk": "ap-east-1 asia-east2 eastasia",
    "id": "ap-southeast-3 asia-southeast2 indonesiacentral",
    "ie": "eu-west-1 northeurope",
    "il": "il-central-1 israelcentral me-west1",
    "in": "ap-south-1 ap-south-2 asia-south1 asia-south2 centralindia jioindiacentral jioindiawest "
    "southindia westindia",
    "it": "eu-south-1 europe-west12 europe-west8 italynorth",
    "jp": "ap-northeast-1 ap-northeast-3 asia-northeast1 asia-northeast2 japaneast japanwest",
    "kr": "ap-northeast-2 asia-northeast3 koreacentral koreasouth",
    "mx": "mexicocentral mx-central-1 northamerica-south1",
    "my": "ap-southeast-5 malaysiawest",
    "nl": "europe-west4 westeurope",
    "no": "norwayeast norwaywest",
    "nz": "ap-southeast-6 newzealandnorth",
    "pl": "europe-central2 polandcentral",
    "qa": "me-central1 qatarcentral",
    "sa": "me-central2",
    "se": "eu-north-1 europe-north2 swedencentral swedensouth",
    "sg": "ap-southeast-1 asia-southeast1 southeastasia",
    "th": "ap-southeast-7 asia-southeast3",
    "tw": "ap-east-2 asia-east1",
    "us": "centralus eastus eastus2 northcentralus southcentralus us-central1 us-east-1 us-east-2 "
    "us-east1 us-east4 us-east5 us-gov-east-1 us-gov-west-1 us-south1 us-west-1 us-west-2 us-west1 "
    "us-west2 us-west3 us-west4 usdodcentral usdodeast usgovarizona usgovtexas usgovvirginia "
    "westcentralus westus westus2 westus3",
    "za": "af-south-1 africa-south1 southafricanorth southafricawest",
}
_CENTRES = {name: land for land, names in _CENTRES_OF.items() for name in names.split()}

# Regions that the clouds open later: where they stand is not for the operator to say.
_SIDE = "(?:north|south|east|west|central)+"
_CLOUD_NAME = re.compile(
    rf"(?:af|ap|ca|cn|eu|eusc|il|me|mx|sa|us|africa|asia|australia|europe|northamerica|southamerica)"
    rf"(?:-(?:gov|iso[a-z]*|[a-z]{{2}}))?-{_SIDE}-?\d+"
    rf"|{_SIDE}(?:africa|america|asia|europe|india|us)\d*|us(?:gov|dod)[a-z]+\d*"
)
_CONTINENTS = (
    "africa america americas apac asia asiapacific australia emea europe global latam "
    "northamerica oceania southamerica"
)

_COUNTRY_LETTERS = 2
# What holds metadata in a document, and metadata in metadata; deeper than this is unreadable.
_NESTED = ("metadata", "meta")
_DEPTH = 8
_WORDS = 80

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

    def __reduce__(self) -> tuple[type["Policy"], tuple[object, ...]]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self), tuple((values | {"inside": dict(self.inside)}).values())

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

        It is read under `residency_key` in the metadata, and in what they hold as `metadata` or
        `meta`; of several labels all count. A label that cannot be read keeps the document local.
        """
        labels: Iterable[Label | None]
        if isinstance(metadata, _Merged):
            labels = [self.label(each) for each in metadata.each]
        else:
            try:
                labels = [_label(value) for value in _values(metadata, self.residency_key)]
            except Exception:  # noqa: BLE001 - somebody else's mapping may raise anything
                labels = [_label(None)]
            if not labels and self.unlabelled == "deny":
                return Label((), "without a label")
        found: Label | None = None
        for label in labels:
            if label is not None:
                found = label if found is None else self._both(found, label)
        return found

    @property
    def needs_labels(self) -> bool:
        """True if a text whose label was lost could go where the label would not let it."""
        return self.regions is not None and self.unlabelled == "allow"

    def _both(self, first: "Label", second: "Label") -> "Label":
        """Return the label of what both labels allow."""
        pairs = [(a, b) for a in first.regions for b in second.regions]
        inner = {b for a, b in pairs if self.contains(a, b)}
        inner |= {a for a, b in pairs if self.contains(b, a)}
        return Label(tuple(sorted(inner)), f"{first} and {second}"[:_WORDS])

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


class _Unreadable(Mapping[str, object]):
    """Metadata that cannot be read: under every key there is something, and it is no label."""

    def __getitem__(self, _: str) -> None:
        return None

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


UNREADABLE: Mapping[str, object] = _Unreadable()
"""The metadata of a document whose label is unknown: it stays here."""


class _Merged(_Unreadable):
    """The metadata of several documents that became one; only `Policy.label` can read them."""

    def __init__(self, each: Sequence[Mapping[str, object] | None]) -> None:
        self.each = each


def metadata_of(document: object) -> Mapping[str, object] | None:
    """Return everything in which a document may carry a label, for `Candidate.metadata`.

    document: a text or None, which carry none; or an object with fields of its own, `metadata` and
        `meta`, in all of which the label is read

    `UNREADABLE` where one of these should be an object and is none. Never raises.
    """
    if document is None or isinstance(document, str):
        return None
    try:
        if isinstance(document, Mapping) and all(
            isinstance(document.get(name), Mapping | None) for name in _NESTED
        ):
            return document
    except Exception:  # noqa: BLE001 - somebody else's mapping may raise anything
        return UNREADABLE
    return UNREADABLE


def merged(each: Sequence[Mapping[str, object] | None]) -> Mapping[str, object] | None:
    """Return the metadata of documents that became one: it may go only where all of them may."""
    return each[0] if len(each) == 1 else _Merged(each)


def _values(metadata: object, key: str, depth: int = _DEPTH) -> Iterator[object]:
    """Yield what stands under `key` in metadata, and in metadata inside them."""
    if metadata is None:
        return
    if not isinstance(metadata, Mapping) or not depth:
        yield None
        return
    if key in metadata:
        yield metadata[key]
    for name in _NESTED:
        if name != key and isinstance(nested := metadata.get(name), Mapping):
            yield from _values(nested, key, depth - 1)


def _label(value: object) -> Label:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence | set | frozenset) or isinstance(names, bytes):
        return Label((), "with a label that cannot be read")
    if not all(isinstance(name, str) and name.strip() for name in names):
        return Label((), "with a label that cannot be read")
    regions = tuple(sorted({_name(name) for name in names}))
    return Label(regions, f"labelled {', '.join(regions) or 'with nothing'}"[:_WORDS])


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()


def _name(region: str) -> str:
    return region.strip().casefold()


def _refuse_moves(inside: Mapping[str, str]) -> None:
    """Raise `PolicyError` where a region of the map is moved: that would widen a policy."""
    fixed = {*INSIDE, *INSIDE.values(), *_CONTINENTS.split(), UNKNOWN}
    for region, above in inside.items():
        if INSIDE.get(region) == above:
            continue
        # Two letters are a country, listed above or not.
        country = len(region) == _COUNTRY_LETTERS
        if region in fixed or country or _CLOUD_NAME.fullmatch(region):
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
