"""Where a URL leads: what its host proves, what the operator attests, or nothing."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from ..errors import ConfigError, PolicyError
from ..rules.residency import ON_PREM, Destination, Policy

# Hosts whose name fixes where requests are processed, by their operators' documentation.
# A group named "centre" is the name of a data centre, which the policy's map places.
_PROVEN: tuple[tuple[str, str, str], ...] = (
    (
        (
            r"bedrock-(?:agent-)?runtime(?:-fips)?\.(?P<centre>[a-z]{2}(?:-[a-z]+)+-\d)"
            r"\.(?:amazonaws\.com|api\.aws)"
        ),
        "",
        "",
    ),
    (
        r"inference\.generativeai\.(?P<centre>eu-frankfurt-2)\.oci\.oraclecloud\.eu",
        "",
        "",
    ),
    (r"eu-api\.zeroentropy\.dev", "", "eu"),
    (r"api\.zeroentropy\.dev", "", "us"),
    (r"eu-discoveryengine\.googleapis\.com", r"/v1/projects/[^/]+/locations/eu/", "eu"),
    (r"us-discoveryengine\.googleapis\.com", r"/v1/projects/[^/]+/locations/us/", "us"),
    (r"discoveryengine\.googleapis\.com", "", "global"),
    (r"dashscope\.aliyuncs\.com", "", "cn"),
)

_ARN = re.compile(r"arn:[^:]*:bedrock:(?P<centre>[^:]*):[^:]*:(?P<kind>[^/]+)/")
_STEPS = re.compile(r"(?:/|%2f)(?:\.|%2e){1,2}(?:/|%2f|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Attested:
    """What the operator answers for: that one origin lies in `region`."""

    origin: str
    region: str


def locate(
    url: str,
    attested: Attested | None = None,
    *,
    own_ca: bool = False,
    proxied: bool = False,
) -> Destination:
    """Say where `url` leads.

    A host name proves a place only over TLS that the public authorities vouch for: a name alone is
    whatever DNS says, and with an authority of one's own (`own_ca`) anybody can be anyone. An
    address of this machine or of a private network proves "on-prem", unless it is reached through
    a proxy (`proxied`), whose network it is then an address of. An attestation holds for its own
    origin alone, and never against what the URL proves. Raises `ConfigError` for what is no URL of
    a destination.
    """
    parts = _parts(url)
    origin = origin_of(url)
    proven = _proven(parts.hostname or "", parts.path, parts.scheme, own_ca=own_ca)
    own = attested.region if attested is not None and attested.origin == origin else None
    if proven is None or (proven == ON_PREM and proxied):
        return Destination(origin, (own,), "attested") if own else Destination(origin)
    if proven == ON_PREM and own is not None:
        # On our own premises, and we know where those are.
        return Destination(origin, tuple(dict.fromkeys((ON_PREM, own))), "attested")
    return Destination(origin, (proven,), "url")


def check_attestation(destination: Destination, region: str | None, policy: Policy) -> None:
    """Refuse an attestation that the URL contradicts. Raises `PolicyError`."""
    if region is None or destination.proof != "url":
        return
    if not any(policy.contains(region, proven) for proven in destination.regions):
        message = (
            f"the stage says region {region!r}, but its URL proves otherwise: {destination}. "
            "Correct the region or the URL"
        )
        raise PolicyError(message)


def check_model(url: str, model: str) -> None:
    """Refuse a Bedrock model that would be run elsewhere than its host says.

    Raises `PolicyError`.
    """
    found = _ARN.match(model)
    if found is None:
        return
    host = _parts(url).hostname or ""
    if "inference-profile" in found["kind"] or found["centre"] not in host.split("."):
        message = (
            f"model {model!r} may run outside the region of {host}: name a foundation model of the "
            "host's own region, not an inference profile or another region's model"
        )
        raise PolicyError(message)


def origin_of(url: str) -> str:
    """Give scheme://host:port of a URL, in lower case, the port spelled out."""
    parts = _parts(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = (parts.hostname or "").rstrip(".").lower()
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        port_is_fine = False
    if not port_is_fine or parts.scheme not in {"http", "https"} or not parts.hostname:
        message = f"{url[:40]!r} is no URL of a destination; expected https://host[:port]/path"
        raise ConfigError(message)
    if parts.username is not None or parts.password is not None:
        message = "the URL holds a user or password; give the key by api_key_env or api_key_file"
        raise ConfigError(message)
    return parts


def _proven(host: str, path: str, scheme: str, *, own_ca: bool) -> str | None:
    host = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and _is_ours(address)):
        return ON_PREM
    if scheme != "https" or own_ca:
        return None
    for pattern, needed_path, region in _PROVEN:
        found = re.fullmatch(pattern, host)
        # Steps back in a path could lead out of what it seems to name.
        if found is not None and re.match(needed_path, path) and not _STEPS.search(path):
            return region or found["centre"]
    return None


def _is_ours(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether an address can only be reached inside our own network."""
    nets = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
    return any(
        address in net for net in map(ipaddress.ip_network, nets) if net.version == address.version
    )
