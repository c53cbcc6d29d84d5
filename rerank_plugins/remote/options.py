"""What an operator says about a remote stage, and what it comes down to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from ..errors import ConfigError
from ..rules.residency import Destination, Policy
from ..scoring import ScoreKind
from .auth import Key, from_env
from .client import ClientOptions
from .destination import Attested, check_attestation, check_model, locate, origin_of
from .dialects.json_body import Dialect, Json
from .payload import ReadingOptions
from .providers import PROVIDERS, Caps, Provider
from .resilience import BreakerOptions


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """A remote reranker: a row of the provider table and what it leaves open.

    `region` is what the operator attests of the destination. `timeout_s` bounds an attempt, the
    request's deadline everything. `extra` goes into the body as it is. `hedge_s` is when a second,
    equal call is made for one that has not been answered. `accept_models` are other names under
    which the model may answer. `instruction` tells a model that takes one what to look for.
    `reading` says how texts become tensors, for a provider that takes no text; `dialect` replaces
    the provider's.
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
class Target:
    """Where calls go, and in which dialect. `slate` bounds what is scored at all, if anything.

    `lead` goes in front of each query, `extra` into each body.
    """

    name: str
    model: str
    url: str
    provider: Provider
    dialect: Dialect
    caps: Caps
    score_kind: ScoreKind
    destination: Destination
    attested: Attested | None
    headers: Mapping[str, str]
    key: Key | None
    poll_url: str | None
    slate: int | None
    lead: str
    extra: Mapping[str, Json]

    def locate(self, url: str, client: ClientOptions) -> Destination:
        """Say where a final URL leads, whatever was planned."""
        return locate(
            url,
            self.attested,
            own_ca=client.ca_file is not None,
            proxied=client.proxy is not None,
        )


def resolve(options: RemoteOptions) -> Target:
    """Fill the provider's row in. Raises `ConfigError` for what is missing or contradictory."""
    provider = PROVIDERS.get(options.provider)
    if provider is None:
        message = f"no provider {options.provider!r}; known are {', '.join(PROVIDERS)}"
        raise ConfigError(message)
    if provider.tensors != (options.reading is not None):
        message = f"provider {options.provider!r} takes " + (
            "tensors; give the model's tokenizer" if provider.tensors else "text, no tokenizer"
        )
        raise ConfigError(message)
    key = _key(options, provider)
    url = _url(options, provider, key)
    if options.client.proxy is not None and not url.startswith("https://"):
        message = f"{origin_of(url)} behind a proxy must be https: the proxy would read the text"
        raise ConfigError(message)
    attested = None if options.region is None else Attested(origin_of(url), options.region.strip())
    own_ca = options.client.ca_file is not None
    destination = locate(url, attested, own_ca=own_ca, proxied=options.client.proxy is not None)
    check_attestation(destination, options.region, Policy())
    check_model(url, options.model)
    slate = next((n for name, n in provider.slate.items() if options.model.startswith(name)), None)
    caps = provider.caps
    if options.max_documents is not None:
        caps = replace(caps, documents=options.max_documents)
    if slate is not None:
        slate = min(slate, options.max_documents or slate)
    told = options.instruction
    asked = {provider.instruction: told} if provider.instruction and told else {}
    return Target(
        name=f"{options.provider}/{options.model}" if options.model else options.provider,
        model=options.model,
        url=url,
        provider=provider,
        dialect=options.dialect or provider.dialect,
        caps=caps,
        score_kind="slate" if slate else provider.score_kind,
        destination=destination,
        attested=attested,
        headers={
            name: _filled(value, options, f"header {name}")
            for name, value in provider.headers.items()
        },
        key=key,
        poll_url=_poll_url(provider, url),
        slate=slate,
        lead=f"{told}\n" if told and provider.instruction is None else "",
        extra={**asked, **options.extra},
    )


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
        read = key.get()
        base = next(
            (url for head, url in provider.url_by_key.items() if read.startswith(head)), base
        )
    if base is None:
        message = f"provider {options.provider!r} has no address of its own; give base_url"
        raise ConfigError(message)
    path = provider.path if options.path is None else options.path
    return _filled(base.rstrip("/") + path, options, "the URL")


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
    """Follow a 202 up where the provider says, or at one's own server under the same path."""
    if provider.poll_url is None or origin_of(url).endswith(".nvidia.com:443"):
        return provider.poll_url
    return origin_of(url) + re.sub(r"^https://[^/]+", "", provider.poll_url)
