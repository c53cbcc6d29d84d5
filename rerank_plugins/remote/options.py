"""The options of a remote stage, and the endpoint that follows from them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from ..errors import ConfigError
from ..rules.residency import Destination, Policy
from ..scoring import ScoreKind
from .auth import Key, from_env
from .client import ClientOptions
from .destination import (
    Attestation,
    check_attestable,
    check_attestation,
    check_plain,
    locate,
    normalised,
    origin_of,
    roams,
)
from .dialects.json_body import Dialect, Json
from .payload import ReadingOptions
from .providers import PROVIDERS, Caps, Provider
from .resilience import BreakerOptions

# How a URL ends that names the call itself, whatever the provider.
_ENDPOINTS = frozenset({"rerank", "reranking", "ranking"})
_VERSION = re.compile(r"v\d+\w*")


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """A remote reranker: a row of the provider table, and what that row leaves open.

    base_url: with or without a version, the call's path, and a query such as ?api-version=...
    path: goes behind `base_url` as it is; None: the provider's, as far as `base_url` lacks it
    region: what the operator attests of the destination
    key: None: the environment variable that the provider's row names
    extra: fields that go into the body as they are
    accept_models: other names under which the model may answer
    timeout_s: seconds an attempt may take; the request's deadline bounds all attempts
    hedge_s: seconds without an answer until a second, equal call is made; None: never
    max_documents: documents of one call, None: what the provider takes
    instruction: what a model that takes an instruction should look for
    reading: how texts become tensors, for a provider that takes no text
    dialect: replaces the provider's
    """

    provider: str
    model: str = ""
    base_url: str | None = None
    path: str | None = None
    region: str | None = None
    project: str | None = None
    location: str | None = None
    key: Key | None = None
    extra: Mapping[str, Json] = field(default_factory=dict)
    accept_models: tuple[str, ...] = ()
    timeout_s: float = 10.0
    retries: int = 2
    per_minute: float | None = None
    concurrency: int = 16
    hedge_s: float | None = None
    max_documents: int | None = None
    instruction: str | None = None
    reading: ReadingOptions | None = None
    dialect: Dialect | None = None
    breaker: BreakerOptions = field(default_factory=BreakerOptions)
    client: ClientOptions = field(default_factory=ClientOptions)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where calls go, and in which dialect.

    roams: the model may run outside the region of its host
    listwise_limit: candidates a listwise model scores at all; None: the model is not listwise
    query_prefix: goes in front of each query
    extra: goes into each body
    """

    name: str
    model: str
    url: str
    provider: Provider
    dialect: Dialect
    caps: Caps
    score_kind: ScoreKind
    destination: Destination
    attested: Attestation | None
    roams: bool
    headers: Mapping[str, str]
    key: Key | None
    poll_url: str | None
    listwise_limit: int | None
    query_prefix: str
    extra: Mapping[str, Json]

    def locate(self, url: str, client: ClientOptions) -> Destination:
        """Return where a final URL leads, which a redirect may have changed."""
        return locate(
            url,
            self.attested,
            own_ca=client.ca_file is not None,
            proxied=client.proxy is not None,
            roams=self.roams,
        )


def resolve(options: RemoteOptions) -> Endpoint:
    """Return the endpoint of the options. Raises `ConfigError` if any are missing or conflict."""
    provider = _provider(options)
    key = _key(options, provider)
    url = _url(options, provider, key)
    if options.client.proxy is not None and not url.startswith("https://"):
        message = f"{origin_of(url)} behind a proxy must be https: the proxy would read the text"
        raise ConfigError(message)
    if not options.client.insecure:
        check_plain(url)
    attested, destination, roaming = _place(options, url)
    listwise_limit = next(
        (n for name, n in provider.listwise_limits.items() if options.model.startswith(name)), None
    )
    caps = provider.caps
    if options.max_documents is not None:
        caps = replace(caps, documents=options.max_documents)
    if listwise_limit is not None:
        listwise_limit = min(listwise_limit, options.max_documents or listwise_limit)
    instruction = options.instruction
    named = {provider.instruction: instruction} if provider.instruction and instruction else {}
    return Endpoint(
        name=f"{options.provider}/{options.model}" if options.model else options.provider,
        model=options.model,
        url=url,
        provider=provider,
        dialect=options.dialect or provider.dialect,
        caps=caps,
        score_kind="slate" if listwise_limit else provider.score_kind,
        destination=destination,
        attested=attested,
        roams=roaming,
        headers={
            name: _filled(value, options, f"header {name}")
            for name, value in provider.headers.items()
        },
        key=key,
        poll_url=_poll_url(provider, url),
        listwise_limit=listwise_limit,
        query_prefix=f"{instruction}\n" if instruction and provider.instruction is None else "",
        extra={**named, **options.extra},
    )


def _provider(options: RemoteOptions) -> Provider:
    provider = PROVIDERS.get(options.provider)
    if provider is None:
        message = f"no provider {options.provider!r}; known are {', '.join(PROVIDERS)}"
        raise ConfigError(message)
    if provider.tensors != (options.reading is not None):
        message = f"provider {options.provider!r} takes " + (
            "tensors; give the model's tokenizer" if provider.tensors else "text, no tokenizer"
        )
        raise ConfigError(message)
    return provider


def _key(options: RemoteOptions, provider: Provider) -> Key | None:
    if options.key is not None:
        options.key.get()
        return options.key
    if provider.key_env is None:
        return None
    key = from_env(provider.key_env)
    try:
        key.get()
    except ConfigError:
        if not provider.key_needed:
            return None
        raise
    return key


def _url(options: RemoteOptions, provider: Provider, key: Key | None) -> str:
    base = options.base_url or provider.base_url
    if options.base_url is None and key is not None:
        value = key.get()
        base = next(
            (url for prefix, url in provider.url_by_key.items() if value.startswith(prefix)), base
        )
    if base is None:
        message = f"provider {options.provider!r} has no address of its own; give base_url"
        raise ConfigError(message)
    if options.path is None:
        url = joined(base, provider.path)
    else:
        place, mark, query = base.partition("?")
        url = place.rstrip("/") + options.path + mark + query
    return normalised(_filled(url, options, "the URL"))


def joined(base: str, path: str) -> str:
    """Return the URL of a call to `path`, whether `base` holds none, a part or all of it.

    >>> joined("http://host/v1", "/v2/rerank"), joined("http://host/v1/rerank", "/v2/rerank")
    ('http://host/v1/rerank', 'http://host/v1/rerank')
    >>> joined("https://host/providers/cohere?api-version=1", "/providers/cohere/v2/rerank")
    'https://host/providers/cohere/v2/rerank?api-version=1'
    """
    place, mark, query = base.partition("?")
    place = place.rstrip("/")
    given, wanted = place.partition("://")[2].split("/")[1:], path.split("/")[1:]
    if given and given[-1] in {*_ENDPOINTS, wanted[-1]}:
        wanted = []
    elif given and _VERSION.fullmatch(given[-1]) and _VERSION.fullmatch(wanted[0]):
        wanted = wanted[1:]
    else:
        sizes = range(min(len(given), len(wanted)), 0, -1)
        shared = next((n for n in sizes if given[-n:] == wanted[:n]), 0)
        wanted = wanted[shared:]
    return "/".join((place, *wanted)) + mark + query


def _place(options: RemoteOptions, url: str) -> tuple[Attestation | None, Destination, bool]:
    """Return what is attested, where the URL leads, and whether the model may run elsewhere."""
    region = options.region
    attested = None if region is None else Attestation(origin_of(url), region.strip())
    # A dialect of the operator's own may put any model into the body.
    own = () if options.dialect is None else ("a body of its own",)
    roaming = roams(url, options.model, (*options.extra, *own))
    check_attestable(url, region, roams=roaming)
    own_ca, proxied = options.client.ca_file is not None, options.client.proxy is not None
    destination = locate(url, attested, own_ca=own_ca, proxied=proxied, roams=roaming)
    check_attestation(destination, region, Policy())
    return attested, destination, roaming


def _filled(text: str, options: RemoteOptions, what: str) -> str:
    values = {
        "model": quote(options.model, safe=""),
        "project": quote(options.project or "", safe=""),
        "location": quote(options.location or "", safe=""),
    }
    for name in re.findall(r"{(\w+)}", text):
        if not values.get(name):
            message = f"provider {options.provider!r} needs {name} for {what}; give it in the stage"
            raise ConfigError(message)
        text = text.replace(f"{{{name}}}", values[name])
    return text


def _poll_url(provider: Provider, url: str) -> str | None:
    """Return where a 202 is followed up: at the provider, or at the same path of another host."""
    if provider.poll_url is None or origin_of(url).endswith(".nvidia.com:443"):
        return provider.poll_url
    return origin_of(url) + re.sub(r"^https://[^/]+", "", provider.poll_url)
