"""The region a URL leads to: proven by its host, attested by the operator, or unknown."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import ConfigError, PolicyError
from ..rules.residency import ON_PREM, Destination, Policy

# A model that runs in the region of its host and nowhere else: its bare id, from the vendors of
# rerankers, or its ARN in that region. Profiles, routers and imported models may run elsewhere.
_MODEL = (
    r"(?:(?:amazon|cohere)\.rerank-[a-z0-9.-]+(?::\d+)?"
    r"|arn:aws(?:-[a-z-]+)?:bedrock:{centre}::foundation-model/[a-z0-9]{{3,}}\.[a-z0-9][a-z0-9.:-]*)"
)
_ROAMING_ID = re.compile(r"(?:.*/)?(?:amer|apac|global)\.")
# Fields of a body that choose no model.
_MODEL_FREE = frozenset(
    {"api_version", "max_chunks_per_doc", "max_tokens_per_doc", "return_documents", "top_n"}
)
_BEDROCK = re.compile(
    r"bedrock-(?:agent-)?runtime(?:-fips)?\.(?P<centre>[a-z]{2}(?:-[a-z]+)+-\d)"
    r"\.(?:amazonaws\.com|api\.aws)"
)

# Host, path and region of other APIs whose name fixes where requests are processed, by their
# operators' documentation. The group "centre" names a data centre, which the policy's map knows.
_REGION_OF_HOST: tuple[tuple[str, str, str], ...] = (
    (r"inference\.generativeai\.(?P<centre>eu-frankfurt-2)\.oci\.oraclecloud\.eu", "", ""),
    (r"eu-api\.zeroentropy\.dev", "", "eu"),
    (r"api\.zeroentropy\.dev", "", "us"),
    (
        r"(?P<geo>eu|us)-discoveryengine\.googleapis\.com",
        r"/v1/projects/(?!\.)[\w.:-]+/locations/{geo}/rankingConfigs/[\w-]+:rank",
        "{geo}",
    ),
    (r"discoveryengine\.googleapis\.com", "", "global"),
    (r"dashscope\.aliyuncs\.com", "", "cn"),
)

# Names that only the resolver of a private network knows.
_PRIVATE_NAME = re.compile(
    r"[^.]+|.*\.(?:internal|intranet|lan|local|localdomain|localhost|svc|home\.arpa)"
)
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_NUMBERS = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)")


@dataclass(frozen=True, slots=True)
class Attestation:
    """The operator's word that one origin lies in `region`."""

    origin: str
    region: str


def locate(
    url: str,
    attested: Attestation | None = None,
    *,
    own_ca: bool = False,
    proxied: bool = False,
    roams: bool = False,
) -> Destination:
    """Return the destination of `url`. Raises `ConfigError` if it is no URL of a destination.

    A host name proves a region only over TLS that the public authorities vouch for: a name alone is
    whatever DNS says, and under an authority of the operator (`own_ca`) any host can pose as any
    other. An address of this machine or of a private network proves "on-prem", unless the URL is
    reached through a proxy (`proxied`): the address is then in the proxy's network. An attestation
    holds for its own origin alone, and never against what the URL proves. On Bedrock a model that
    `roams`, or a path that names one, leaves the region unknown, attested or not.
    """
    parts = _parts(url)
    origin = origin_of(url)
    own = attested.region if attested is not None and attested.origin == origin else None
    bedrock = _BEDROCK.fullmatch(parts.hostname or "")
    if bedrock is not None and (roams or not _fixes_region(parts, bedrock["centre"])):
        return Destination(origin)
    proven = _proven(parts, own_ca=own_ca)
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


def roams(url: str, model: str, extra: Iterable[str]) -> bool:
    """True if a call to Bedrock may run outside the region of its host.

    It runs there if the model of the path and `model` are known to, and the fields of `extra` name
    no other.
    """
    parts = _parts(url)
    bedrock = _BEDROCK.fullmatch(parts.hostname or "")
    if bedrock is None:
        return False
    stays = _fixes_region(parts, bedrock["centre"]) and set(extra) <= _MODEL_FREE
    in_path = not model and parts.path != "/rerank"
    return not (stays and (in_path or _runs_in(model, bedrock["centre"])))


def check_attestable(url: str, region: str | None, *, roams: bool) -> None:
    """Raise `PolicyError` for a region that is attested of a model that may run elsewhere."""
    if region is not None and roams:
        message = (
            f"the stage says region {region!r}, but its model may run outside the region of "
            f"{origin_of(url)}: name a foundation model of the host's own region, not an inference "
            "profile, a router or another region's model"
        )
        raise PolicyError(message)


def check_plain(url: str) -> None:
    """Raise `ConfigError` for plain http that leaves this machine and private networks."""
    parts = _parts(url)
    host = parts.hostname or ""
    private = is_private(host) if is_address(host) else _PRIVATE_NAME.fullmatch(host) is not None
    if parts.scheme == "http" and not private:
        message = (
            f"{origin_of(url)} is a public host and has no TLS: everybody on the way could read "
            "the text; use https, or write insecure = true in the stage"
        )
        raise ConfigError(message)


def origin_of(url: str) -> str:
    """Return scheme://host:port of a URL in lower case, with the port even if it is the default."""
    parts = _parts(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def normalised(url: str) -> str:
    """Return a URL whose host has one form: lower case, no dot at the end, addresses as usual.

    >>> normalised("http://LOCALHOST.:8080/a"), normalised("http://0x7f.1/")
    ('http://localhost:8080/a', 'http://127.0.0.1/')
    """
    return _parts(url).geturl()


def is_address(host: str) -> bool:
    """True if a host in its usual form is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_private(host: str) -> bool:
    """True if an address can only be reached from this machine or inside a private network."""
    address = ipaddress.ip_address(host)
    nets = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
    return any(
        address in net for net in map(ipaddress.ip_network, nets) if net.version == address.version
    )


def _parts(url: str) -> SplitResult:
    """Return the parts of a URL, its host in the one form that is checked and connected to."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = _host(parts.hostname or "") if port is None or port > 0 else ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in {"http", "https"}:
        shown = re.sub(r"//.*@", "//", url, flags=re.DOTALL)[:40]
        message = f"{shown!r} is no URL of a destination; expected https://host[:port]/path"
        raise ConfigError(message)
    if parts.username is not None or parts.password is not None:
        message = "the URL holds a user or password; give the key by api_key_env or api_key_file"
        raise ConfigError(message)
    netloc = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=netloc if port is None else f"{netloc}:{port}", fragment="")


def _host(host: str) -> str:
    """Return a host in its usual form. Raises `ValueError` if programs could read it otherwise."""
    if not host.isascii():
        import idna

        host = idna.encode(host, uts46=True).decode()
    host = host.lower().removesuffix(".")
    if ":" in host:
        address = ipaddress.IPv6Address(host)
        if address.scope_id is not None:
            message = "a zone of this machine says nothing elsewhere"
            raise ValueError(message)
        return str(address.ipv4_mapped or address)
    if _NUMBERS.fullmatch(host):
        try:
            # As resolvers read numbers: in one to four parts, decimal, octal or hexadecimal.
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError as error:
            message = "a host that ends in a number is an address"
            raise ValueError(message) from error
    if not _NAME.fullmatch(host):
        message = "no name of a host"
        raise ValueError(message)
    return host


def _proven(parts: SplitResult, *, own_ca: bool) -> str | None:
    host = parts.hostname or ""
    if host == "localhost" or (is_address(host) and is_private(host)):
        return ON_PREM
    if parts.scheme != "https" or own_ca:
        return None
    bedrock = _BEDROCK.fullmatch(host)
    if bedrock is not None:
        return bedrock["centre"]
    for pattern, path, region in _REGION_OF_HOST:
        found = re.fullmatch(pattern, host)
        if found is None:
            continue
        groups = found.groupdict()
        # The whole path has to be known: ".." could lead out of the location that it names.
        known = re.fullmatch(path.format(**groups), unquote(parts.path)) and not parts.query
        if known or not path:
            return region.format(**groups) or found["centre"]
    return None


def _fixes_region(parts: SplitResult, centre: str) -> bool:
    """True if a path of Bedrock names no model that may run outside `centre`."""
    path = unquote(parts.path)
    named = re.fullmatch(r"/model/(.*)/invoke", path)
    known = path == "/rerank" if named is None else _runs_in(named[1], centre)
    return known and not parts.query


def _runs_in(model: str, centre: str) -> bool:
    if _ROAMING_ID.match(model):
        return False
    return re.fullmatch(_MODEL.format(centre=re.escape(centre)), model, re.ASCII) is not None
