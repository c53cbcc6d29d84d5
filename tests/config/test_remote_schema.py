"""Remote stages and policies from settings: what cannot be is refused, and keys stay hidden."""

import json
import logging
import traceback

import pytest

from rerank_plugins import Candidate, Reranker, load
from rerank_plugins.config.read import read_settings
from rerank_plugins.config.schema import Settings
from rerank_plugins.errors import ConfigError, PolicyError
from rerank_plugins.records import Code
from rerank_plugins.remote.client import ClientOptions
from rerank_plugins.remote.options import RemoteOptions
from rerank_plugins.testing import FakeRerankServer, Fault
from tests.remote.serving import PASSAGES, QUERY, SECRET

BEDROCK = "cohere.rerank-v3-5:0"


def settings(server, **policy):
    """Describe a local stage and a remote one behind it."""
    remote = {"provider": "cohere", "base_url": server.url, "api_key_env": "TEST_KEY", "retries": 0}
    return {
        "stages": [{"scorer": remote}, {"scorer": "lexical", "when": "fallback"}],
        "policy": policy,
    }


@pytest.fixture(autouse=True)
def key(monkeypatch):
    """Keep the key in the environment."""
    monkeypatch.setenv("TEST_KEY", SECRET)


def test_a_remote_stage_is_a_table(tmp_path):
    """The settings of the design, as TOML, reach the server with the key in its header."""
    with FakeRerankServer("cohere", key=SECRET) as server:
        path = tmp_path / "rerank.toml"
        path.write_text(f"""
[[stages]]
scorer = {{ provider = "cohere", model = "m", base_url = "{server.url}", api_key_env = "TEST_KEY" }}
[policy]
regions = ["eu", "on-prem"]
""")
        with load(path) as reranker:
            assert reranker.rerank(QUERY, PASSAGES, strict=True).order[0] == 1
            assert reranker.model == "cohere/m"
        assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("remote", "regions"),
    [
        ({"provider": "jina", "model": "m"}, ["eu"]),
        ({"provider": "zeroentropy", "model": "m"}, ["eu"]),
        ({"provider": "bedrock", "model": BEDROCK, "location": "us-east-1"}, ["eu"]),
        ({"provider": "bedrock", "model": BEDROCK, "location": "eu-west-2"}, ["eu"]),
        ({"provider": "bedrock", "model": f"us.{BEDROCK}", "location": "eu-central-1"}, ["eu"]),
        ({"provider": "zeroentropy", "model": "m", "region": "eu"}, ["eu"]),
        ({"provider": "tei", "base_url": "http://rerank.internal"}, ["on-prem"]),
    ],
)
def test_a_stage_that_could_never_run_is_refused_at_start_up(remote, regions):
    """A policy and a stage that contradict each other do not load."""
    remote = {"api_key_env": "TEST_KEY", **remote}
    with pytest.raises(PolicyError, match=r"could never run|proves otherwise"):
        load({"stages": [{"scorer": remote}], "policy": {"regions": regions}})


@pytest.mark.parametrize(
    ("remote", "regions"),
    [
        ({"provider": "cohere", "model": "m", "region": "eu"}, ["eu"]),
        ({"provider": "zeroentropy", "base_url": "https://eu-api.zeroentropy.dev/v1"}, ["eu"]),
        (
            {
                "provider": "bedrock",
                "model": "arn:aws:bedrock:eu-central-1::foundation-model/cohere.rerank-v3-5:0",
                "location": "eu-central-1",
            },
            ["eu"],
        ),
        ({"provider": "tei", "base_url": "http://10.0.0.9"}, ["on-prem"]),
        ({"provider": "jina", "model": "m"}, None),
    ],
)
def test_a_stage_that_may_run_loads(remote, regions):
    """Proven and attested destinations pass; without a policy everything does."""
    remote = {"api_key_env": "TEST_KEY", **remote}
    load({"stages": [{"scorer": remote}], "policy": {"regions": regions}}).close()


def test_the_key_is_nowhere_to_be_seen(caplog, capsys, tmp_path):
    """Not in settings, reprs, errors, results, the audit file, or the logs of any library."""
    caplog.set_level(logging.DEBUG)
    audit = tmp_path / "audit.jsonl"
    with FakeRerankServer("cohere", faults=[Fault.UNAUTHORIZED]) as server:
        source = settings(server, audit=str(audit))
        reranker = load(source)
        with reranker:
            results = [reranker.rerank(QUERY, PASSAGES) for _ in range(2)]
        shown = [
            read_settings(source).model_dump_json(),
            repr(read_settings(source)),
            repr(reranker.setup),
            repr(
                [
                    vars(stage.scorer)
                    for stage in reranker.setup.stages
                    if hasattr(stage.scorer, "__dict__")
                ]
            ),
            repr(results),
            audit.read_text(),
            caplog.text,
            *capsys.readouterr(),
        ]
    assert results[0].degraded
    assert any(SECRET in str(one.headers) for one in server.requests)
    assert not any(SECRET in one for one in shown)


def test_a_key_in_the_settings_is_refused_and_not_repeated():
    """Only the name of a key belongs there."""
    remote = {"provider": "cohere", "api_key": SECRET}
    with pytest.raises(ConfigError, match="api_key_env") as caught:
        load({"stages": [{"scorer": remote}]})
    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.__cause__)


def test_a_missing_key_is_refused_at_start_up(monkeypatch):
    """The name of the variable is in the error."""
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ConfigError, match="TEST_KEY"):
        load({"stages": [{"scorer": {"provider": "cohere", "api_key_env": "TEST_KEY"}}]})


def test_a_key_may_be_kept_in_a_file_and_changed_there(tmp_path):
    """A rotated key is used from the next request on."""
    path = tmp_path / "key"
    path.write_text("first\n")
    with FakeRerankServer("cohere") as server:
        remote = {"provider": "cohere", "base_url": server.url, "api_key_file": str(path)}
        with load({"stages": [{"scorer": remote}]}) as reranker:
            reranker.rerank(QUERY, PASSAGES)
            path.write_text("second\n")
            reranker.rerank(QUERY, PASSAGES)
        sent = [one.headers["authorization"] for one in server.requests]
    assert sent == ["Bearer first", "Bearer second"]


def test_the_audit_file_says_what_left_and_what_was_kept(tmp_path):
    """One line for a sending, one for a refusal; hashes and counts, no text."""
    path = tmp_path / "audit.jsonl"
    with FakeRerankServer("cohere") as server:
        with load(settings(server, regions=["on-prem"], audit=str(path))) as reranker:
            sent = reranker.rerank(QUERY, PASSAGES)
            kept = reranker.rerank(QUERY, [Candidate(PASSAGES[0], metadata={"residency": "de"})])
        assert len(server.requests) == 1
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["allowed"], one["texts"]) for one in lines] == [(True, 5), (False, 1)]
    assert [one["request_id"] for one in lines] == [sent.request_id, kept.request_id]
    assert lines[0]["destination"] == server.url
    assert not any(text in path.read_text() for text in (QUERY, *PASSAGES))
    assert any(one.code is Code.POLICY for one in kept.decisions)
    assert any(one.code is Code.SENT for one in sent.decisions)


def test_without_a_record_nothing_is_sent(tmp_path):
    """An audit file that cannot be written to keeps the text here."""
    with FakeRerankServer("cohere") as server:
        with load(settings(server, audit="/dev/full")) as reranker:
            result = reranker.rerank(QUERY, PASSAGES)
        assert server.bytes_received == 0
    assert {Code.POLICY, Code.FALLBACK} <= {one.code for one in result.decisions}


def test_a_local_model_that_cannot_be_loaded_is_replaced_by_the_fallback(tmp_path):
    """Missing or broken, the model costs a decision on every result, never the service."""
    with FakeRerankServer("cohere") as server:
        remote = {"provider": "cohere", "base_url": server.url, "api_key_env": "TEST_KEY"}
        source = {
            "stages": [
                {"scorer": str(tmp_path / "gone"), "local_files_only": True},
                {"scorer": remote, "when": "fallback"},
            ]
        }
        with load(source) as reranker:
            result = reranker.rerank(QUERY, PASSAGES)
    assert result.order[0] == 1
    assert result.degraded
    assert {Code.STAGE_FAILED, Code.FALLBACK} <= {one.code for one in result.decisions}
    assert all(hit.score is None for hit in result)


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    """Only a proxy that the settings name is used, and for https alone."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with (
        FakeRerankServer("tei") as server,
        load({"stages": [{"scorer": {"provider": "tei", "base_url": server.url}}]}) as reranker,
    ):
        assert not reranker.rerank(QUERY, PASSAGES).degraded
    remote = {"provider": "tei", "base_url": "http://a.example", "proxy": "http://127.0.0.1:9"}
    with pytest.raises(ConfigError, match="must be https"):
        load({"stages": [{"scorer": remote}]})


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "no proxy",
        "ftp://user:s3cret@a:1",
        "http://user:s3cret@",
        "http://user:s3cret@a:99999",
        "http://user:s3cret@a:0",
        "http//user:s3cret@a",
        "socks9://user:s3cret@a:1",
        "http://user:s3cret@a b:1",
    ],
)
def test_a_proxy_that_is_none_is_refused_at_start_up(proxy):
    """Not at the first call, and its password is not repeated."""
    remote = {"provider": "tei", "base_url": "https://a.example", "proxy": proxy}
    with pytest.raises(ConfigError, match="proxy") as caught:
        load({"stages": [{"scorer": remote}]})
    assert "s3cret" not in "".join(traceback.format_exception(caught.value, limit=0))


def test_the_password_of_a_proxy_is_nowhere_to_be_seen():
    """Not in settings, their dumps, options, or the parts of a stage."""
    proxy = "http://user:s3cret@127.0.0.1:9"
    remote = {"provider": "tei", "base_url": "https://a.example", "proxy": proxy}
    source = {"stages": [{"scorer": remote}]}
    found = read_settings(source)
    with load(source) as reranker:
        scorer = reranker.setup.stages[0].scorer
        shown = [
            repr(found),
            str(found.model_dump()),
            found.model_dump_json(),
            repr(ClientOptions(proxy=proxy)),
            repr(RemoteOptions("tei", client=ClientOptions(proxy=proxy))),
            repr(vars(scorer)),
            repr(vars(scorer.client)),
            repr(vars(scorer.calls)),
        ]
    assert not any("s3cret" in one for one in shown)
    assert "127.0.0.1:9" in found.model_dump_json()


def test_plain_http_to_a_public_host_has_to_be_said():
    """`insecure = true` in the stage's table, and nothing else."""
    remote = {"provider": "tei", "base_url": "http://gateway.example", "region": "eu"}
    with pytest.raises(ConfigError, match="insecure = true"):
        load({"stages": [{"scorer": remote}]})
    load({"stages": [{"scorer": {**remote, "insecure": True}}]}).close()


def test_every_remote_setting_has_a_description():
    """The schema documents itself."""
    schema = Settings.model_json_schema()
    for name in ("RemoteSettings", "PolicySettings", "BreakerSettings"):
        for field, facts in schema["$defs"][name]["properties"].items():
            assert "description" in facts or "$ref" in facts or "default" in facts, field


def test_reranker_takes_a_policy():
    """The constructor's policy bounds stages given as objects."""
    assert Reranker("lexical").setup.policy.regions is None
