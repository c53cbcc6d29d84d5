"""The region a URL leads to: proven by its host, attested by the operator, or unknown."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from ..errors import ConfigError, PolicyError
from ..rules.residency import ON_PREM, Destination, Policy

# Host, path and region of APIs whose name fixes where requests are processed, by their operators'
# documentation. The group "centre" names a data centre, whose region the policy's map knows.
_REGION_OF_HOST: tuple[tuple[str, str, str], ...] = (
    (
        (
            r"bedrock-(?:agent-)?runtime(?:-fips)?\.(?P<centre>[a-z]{2}(?:-[a-z]+)+-\d)"
            r"\.(?:amazonaws\.com|api\.aws)"
        ),
        "",
        "",
    ),
    (r"inference\.generativeai\.(?P<centre>eu-frankfurt-2)\.oci\.oraclecloud\.eu", "", ""),
    (r"eu-api\.zeroentropy\.dev", "", "eu"),
    (r"api\.zeroentropy\.dev", "", "us"),
    (r"eu-discoveryengine\.googleapis\.com", r"/v1/projects/[^/]+/locations/eu/", "eu"),
    (r"us-discoveryengine\.googleapis\.com", r"/v1/projects/[^/]+/locations/us/", "us"),
    (r"discoveryengine\.googleapis\.com", "", "global"),
    (r"dashscope\.aliyuncs\.com", "", "cn"),
)

_ARN = re.compile(r"arn:[^:]*:bedrock:(?P<centre>[^:]*):[^:]*:(?P<kind>[^/]+)/")
_PATH_STEPS = re.compile(r"(?:/|%2f)(?:\.|%2e){1,2}(?:/|%2f|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Attestation:
    """The operator's word that one origin lies in `region`."""

    origin: str
    region: str


def locate(
    url: str, attested: Attestation | None = None, *, own_ca: bool = False, proxied: bool = False
) -> Destination:
    """Return the destination of `url`. Raises `ConfigError` if it is no URL of a destination.

    A host name proves a region only over TLS that the public authorities vouch for: a name alone is
    whatever DNS says, and under an authority of the operator (`own_ca`) any host can pose as any
    other. An address of this machine or of a private network proves "on-prem", unless the URL is
    reached through a proxy (`proxied`): the address is then in the proxy's network. An attestation
    holds for its own origin alone, and never against what the URL proves.
    """
    parts = _parts(url)
    origin = origin_of(url)
    proven = _proven(parts.hostname or "", parts.path, parts.scheme, own_ca=own_ca)
    own = attested.region if attested is not None and attested.origin == origin else None
    if proven is None or (proven == ON_PREM and proxied):
        return Destination(origin, (own,), "attested") if own else Destination(origin)
    if proven == ON_PREM and own is not None:
        # A server on our premises lies in the region that the operator attests, too.
        return Destination(origin, tuple(dict.fromkeys((ON_PREM, own))), "attested")
    return Destination(origin, (proven,), "url")


def check_attestation(destination: Destination, region: str | None, policy: Policy) -> None:
    """Raise `PolicyError` for an attestation that the URL contradicts."""
    if region is None or destination.proof != "url":
        return
    if not any(policy.contains(region, proven) for proven in destination.regions):
        message = (
            f"the stage says region {region!r}, but its URL proves otherwise: {destination}. "
            "Correct the region or the URL"
        )
        raise PolicyError(message)


def check_model(url: str, model: str) -> None:
    """Raise `PolicyError` for a Bedrock model that may run outside the region of its host."""
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
    """Return scheme://host:port of a URL in lower case, with the port even if it is the default."""
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
    if host == "localhost" or (address is not None and _is_private(address)):
        return ON_PREM
    if scheme != "https" or own_ca:
        return None
    for pattern, needed_path, region in _REGION_OF_HOST:
        found = re.fullmatch(pattern, host)
        # ".." in a path could lead out of the location that the path names.
        if found is not None and re.match(needed_path, path) and not _PATH_STEPS.search(path):
            return region or found["centre"]
    return None


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """True if an address can only be reached inside a private network."""
    nets = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
    return any(
        address in net for net in map(ipaddress.ip_network, nets) if net.version == address.version
    )
