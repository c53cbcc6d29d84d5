"""Where a URL leads is proven by its host, attested by the operator, or unknown."""

from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rerank_plugins.errors import ConfigError, PolicyError
from rerank_plugins.remote.client import ClientOptions
from rerank_plugins.remote.destination import (
    Attestation,
    check_attestation,
    locate,
    normalised,
    origin_of,
)
from rerank_plugins.remote.dialects.json_body import JsonDialect
from rerank_plugins.remote.options import RemoteOptions, resolve
from rerank_plugins.rules.residency import Policy

EU = Policy(("eu",))


@pytest.mark.parametrize(
    ("url", "regions"),
    [
        ("https://bedrock-agent-runtime.eu-central-1.amazonaws.com/rerank", ("eu-central-1",)),
        ("https://bedrock-runtime-fips.us-east-1.amazonaws.com/rerank", ("us-east-1",)),
        ("https://bedrock-agent-runtime.eu-west-2.api.aws/rerank", ("eu-west-2",)),
        ("https://eu-api.zeroentropy.dev/v1/models/rerank", ("eu",)),
        ("https://api.zeroentropy.dev/v1/models/rerank", ("us",)),
        (
            "https://eu-discoveryengine.googleapis.com/v1/projects/p/locations/eu/rankingConfigs/d:rank",
            ("eu",),
        ),
        ("https://inference.generativeai.eu-frankfurt-2.oci.oraclecloud.eu/x", ("eu-frankfurt-2",)),
        ("http://127.0.0.1:8080/rerank", ("on-prem",)),
        ("http://[::1]/rerank", ("on-prem",)),
        ("https://10.1.2.3/rerank", ("on-prem",)),
        ("http://localhost:8080/rerank", ("on-prem",)),
    ],
)
def test_some_hosts_prove_where_they_are(url, regions):
    """The URL alone fixes the place."""
    found = locate(url)
    assert (found.regions, found.proof) == (regions, "url")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.cohere.com/v2/rerank",
        "https://api.jina.ai/v1/rerank",
        "https://api.voyageai.com/v1/rerank",
        "https://x.services.ai.azure.com/providers/cohere/v2/rerank",
        "http://bedrock-agent-runtime.eu-central-1.amazonaws.com/rerank",
        "https://bedrock-agent-runtime.eu-central-1.amazonaws.com.evil.example/rerank",
        "https://evil-eu-api.zeroentropy.dev/v1",
        "https://eu-api.zeroentropy.dev.evil.example/v1",
        "https://eu-discoveryengine.googleapis.com/v1/projects/p/locations/global/rankingConfigs/d",
        "https://eu-discoveryengine.googleapis.com/v1/projects/p%2Flocations%2Feu%2F/locations/us/",
        "https://eu-discoveryengine.googleapis.com/v1/projects/p/locations/eu/%2e%2e/us/x",
        "http://rerank.internal/rerank",
        "http://169.254.169.254/rerank",
        "http://8.8.8.8/rerank",
        "http://127.0.0.1.evil.example/rerank",
    ],
)
def test_what_nothing_proves_is_unknown_and_denied(url):
    """A name that only looks right, or is not protected by TLS, proves nothing."""
    found = locate(url)
    assert found.proof == "unknown" or found.regions == ("us",)
    assert not EU.verdict(found).allowed


def test_authorities_of_ones_own_and_proxies_take_the_proof_away():
    """With a foreign CA any host can pose as any other; a proxy has its own private network."""
    bedrock = "https://bedrock-agent-runtime.eu-central-1.amazonaws.com/rerank"
    assert locate(bedrock, own_ca=True).proof == "unknown"
    assert locate("https://10.1.2.3/rerank", proxied=True).proof == "unknown"


def test_an_attestation_holds_for_its_own_origin():
    """What the operator answers for is one scheme, host and port."""
    attested = Attestation(origin_of("https://api.cohere.com/v2/rerank"), "eu")
    assert locate("https://API.cohere.com:443/other", attested).regions == ("eu",)
    for other in (
        "https://api.cohere.ai/x",
        "http://api.cohere.com/x",
        "https://api.cohere.com:8443",
    ):
        assert locate(other, attested).proof == "unknown"


def test_an_attestation_adds_to_on_prem():
    """A server of our own lies on our premises and where we say those are."""
    attested = Attestation(origin_of("http://10.0.0.1/"), "de")
    found = locate("http://10.0.0.1/rerank", attested)
    assert found.regions == ("on-prem", "de")
    assert EU.verdict(found).allowed


def test_an_attestation_against_the_url_is_refused():
    """Nobody can attest that a host in Virginia is in the EU."""
    found = locate("https://bedrock-agent-runtime.us-east-1.amazonaws.com/rerank")
    with pytest.raises(PolicyError, match="proves otherwise"):
        check_attestation(found, "eu", Policy())
    check_attestation(found, "us", Policy())


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "https://", "no url", "https://user:pw@a.example/", "https://a:99999/"]
)
def test_what_is_no_url_of_a_destination_is_refused(url):
    """Other schemes, no host, and keys in URLs are refused, and the password is not repeated."""
    with pytest.raises(ConfigError) as caught:
        locate(url)
    assert "pw" not in str(caught.value)


HOST = "bedrock-runtime.eu-central-1.amazonaws.com"
ARN = "arn:aws:bedrock:eu-central-1"
OWN_MODELS = (
    "cohere.rerank-v3-5:0",
    "amazon.rerank-v1:0",
    f"{ARN}::foundation-model/cohere.rerank-v3-5:0",
)
ROAMING_MODELS = (
    "us.cohere.rerank-v3-5:0",
    "eu.cohere.rerank-v3-5:0",
    "global.cohere.rerank-v3-5:0",
    "apac.amazon.rerank-v1:0",
    "1a2b3c4d5e6f",
    " cohere.rerank-v3-5:0",
    "cohere.rerank-v3-5:0 ",
    "COHERE.rerank-v3-5:0",
    f" {ARN}::foundation-model/cohere.rerank-v3-5:0",
    f"{ARN}::foundation-model/us.cohere.rerank-v3-5:0",
    "ARN:AWS:BEDROCK:EU-CENTRAL-1::FOUNDATION-MODEL/COHERE.RERANK-V3-5:0",
    "arn:aws:bedrock:us-east-1::foundation-model/cohere.rerank-v3-5:0",
    f"{ARN}:123456789012:inference-profile/eu.cohere.rerank-v3-5:0",
    f"{ARN}:123456789012:application-inference-profile/1a2b3c4d5e6f",
    f"{ARN}:123456789012:default-prompt-router/anthropic.claude:1",
    f"{ARN}:123456789012:prompt-router/1a2b3c",
    f"{ARN}:123456789012:provisioned-model/1a2b3c",
    f"{ARN}:123456789012:imported-model/1a2b3c",
    "x/../us.cohere.rerank-v3-5:0",
)
PLACES = ("model", "path", "extra", "dialect", "model of another provider", "redirect")


def given_at(place, model, host=HOST):
    """Return where text goes if a model's id is given at a place of the options."""
    fine = OWN_MODELS[0]
    options = {
        "model": RemoteOptions("bedrock-invoke", model, base_url=f"https://{host}"),
        "path": RemoteOptions(
            "bedrock-invoke",
            fine,
            base_url=f"https://{host}",
            path=f"/model/{quote(model, safe='')}/invoke",
        ),
        "extra": RemoteOptions(
            "bedrock-invoke", fine, base_url=f"https://{host}", extra={"modelId": model}
        ),
        "dialect": RemoteOptions(
            "bedrock-invoke", fine, base_url=f"https://{host}", dialect=JsonDialect(model=model)
        ),
        "model of another provider": RemoteOptions(
            "compatible", model, base_url=f"https://{host}", path="/rerank"
        ),
        "redirect": RemoteOptions("bedrock-invoke", fine, base_url=f"https://{host}"),
    }[place]
    endpoint = resolve(options)
    if place == "redirect":
        moved = f"https://{host}/model/{quote(model, safe='')}/invoke"
        return endpoint.locate(moved, options.client)
    return endpoint.destination


@given(
    st.one_of(st.sampled_from(ROAMING_MODELS), st.text(min_size=1, max_size=30)),
    st.sampled_from(PLACES),
    st.sampled_from([HOST, HOST.upper(), f"{HOST}.", HOST.replace("runtime", "agent-runtime")]),
)
def test_only_a_foundation_model_of_its_own_region_runs_where_the_host_is(model, place, host):
    """Whatever else is named, and wherever, may be a profile or a router: region unknown."""
    assume(model not in OWN_MODELS)
    try:
        found = given_at(place, model, host)
    except ConfigError:
        return
    assert (found.regions, found.proof) == ((), "unknown")


@pytest.mark.parametrize("model", OWN_MODELS)
@pytest.mark.parametrize("place", ["model", "path", "model of another provider", "redirect"])
def test_a_foundation_model_of_the_hosts_region_keeps_the_hosts_proof(place, model):
    """Bare ids of rerankers, and their ARNs in the host's region."""
    found = given_at(place, model)
    assert (found.regions, found.proof) == (("eu-central-1",), "url")


def test_a_model_that_may_run_elsewhere_cannot_be_attested():
    """The operator's word does not bind a profile to a region."""
    roaming = RemoteOptions(
        "bedrock-invoke", ROAMING_MODELS[0], location="eu-central-1", region="eu"
    )
    with pytest.raises(PolicyError, match="may run outside"):
        resolve(roaming)


@pytest.mark.parametrize(
    "host",
    [
        "localhost.",
        "LOCALHOST",
        "\uff4cocalhost",
        "localhost\u3002",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "\uff11\uff12\uff17.0.0.1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_a_host_has_one_form(host):
    """Dots at the end, capitals, odd numbers and look-alike letters lead to the same place."""
    url = normalised(f"http://{host}:8080/rerank")
    assert url in {f"http://{one}:8080/rerank" for one in ("localhost", "127.0.0.1", "[::1]")}
    assert locate(f"http://{host}:8080/rerank").regions == ("on-prem",)


@pytest.mark.parametrize(
    "host", ["1.2.3.4.5", "256.1.1.1", "[fe80::1%eth0]", "loc%61lhost", "a b", "localhost..", "-a"]
)
def test_a_host_without_a_form_of_its_own_is_refused(host):
    """What two programs could read in two ways is no destination."""
    with pytest.raises(ConfigError, match="no URL of a destination"):
        normalised(f"http://{host}/")


def test_a_refused_url_shows_no_password():
    """Also where the scheme is wrong, before anybody looks for a user."""
    with pytest.raises(ConfigError) as caught:
        locate("ftp://user:s3cret@a.example/")
    assert "s3cret" not in str(caught.value)


PLAIN = ("http://gateway.example", "http://8.8.8.8", "http://134744072", "http://api.cohere.com.")


@pytest.mark.parametrize("base_url", PLAIN)
def test_plain_http_to_a_public_host_is_refused_unless_insecure_is_said(base_url):
    """An attestation says where a host is, not who reads along."""
    attested = RemoteOptions("tei", base_url=base_url, region="eu")
    with pytest.raises(ConfigError, match="insecure = true"):
        resolve(attested)
    resolve(replace(attested, client=ClientOptions(insecure=True)))


@pytest.mark.parametrize("host", ["tei", "localhost", "10.0.0.9", "tei.svc.cluster.local", "a.lan"])
def test_plain_http_inside_a_private_network_is_fine(host):
    """This machine, private addresses, and names that only a private network has."""
    resolve(RemoteOptions("tei", base_url=f"http://{host}:8080"))
