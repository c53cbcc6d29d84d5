"""Where a URL leads is proven by its host, attested by the operator, or unknown."""

import pytest

from rerank_plugins.errors import ConfigError, PolicyError
from rerank_plugins.remote.destination import (
    Attestation,
    check_attestation,
    check_model,
    locate,
    origin_of,
)
from rerank_plugins.rules.residency import Policy

EU = Policy(("eu",))


@pytest.mark.parametrize(
    ("url", "regions"),
    [
        ("https://bedrock-agent-runtime.eu-central-1.amazonaws.com/rerank", ("eu-central-1",)),
        ("https://bedrock-runtime-fips.us-east-1.amazonaws.com/x", ("us-east-1",)),
        ("https://bedrock-agent-runtime.eu-west-2.api.aws/rerank", ("eu-west-2",)),
        ("https://eu-api.zeroentropy.dev/v1/models/rerank", ("eu",)),
        ("https://api.zeroentropy.dev/v1/models/rerank", ("us",)),
        (
            "https://eu-discoveryengine.googleapis.com/v1/projects/p/locations/eu/rankingConfigs/d",
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
    "model",
    [
        "arn:aws:bedrock:us-east-1::foundation-model/cohere.rerank-v3-5:0",
        "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.cohere.rerank",
    ],
)
def test_a_model_that_may_run_elsewhere_is_refused(model):
    """A Bedrock ARN has to be a foundation model of the host's own region."""
    url = "https://bedrock-agent-runtime.eu-central-1.amazonaws.com/rerank"
    with pytest.raises(PolicyError, match="outside the region"):
        check_model(url, model)
    check_model(url, "arn:aws:bedrock:eu-central-1::foundation-model/cohere.rerank-v3-5:0")


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "https://", "no url", "https://user:pw@a.example/", "https://a:99999/"]
)
def test_what_is_no_url_of_a_destination_is_refused(url):
    """Other schemes, no host, and keys in URLs are refused, and the password is not repeated."""
    with pytest.raises(ConfigError) as caught:
        locate(url)
    assert "pw" not in str(caught.value)
