"""Specification of `rerank_plugins.config.arguments`: no option is ignored in silence."""

import inspect
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from rerank_plugins import Policy, Reranker, Stage
from rerank_plugins.core.setup import Setup
from rerank_plugins.errors import ConfigError
from rerank_plugins.scoring.lexical import LexicalScorer

OF_A_MODEL = {
    "max_tokens": 64,
    "long": "truncate",
    "fold": "mean",
    "instruction": "Prefer primary sources",
    "precision": "int8",
    "provider": "cuda",
    "revision": "main",
    "local_files_only": True,
    "cache_dir": Path("models"),
}
OF_A_REQUEST = {
    "policy": Policy(("eu",)),
    "prior_weight": 0.5,
    "depth": 3,
    "top_k": 2,
    "budget_ms": 50.0,
    "strict": True,
    "when_cold": "pass_through",
    "workers": 1,
}
HEARD = {"tracer_provider", "meter_provider", "redact", "clock"}


def stages():
    """Give stages of one's own."""
    return (Stage(LexicalScorer()),)


@pytest.mark.parametrize(
    ("name", "value"), [*OF_A_MODEL.items(), *OF_A_REQUEST.items(), ("stages", stages())]
)
def test_options_beside_a_setup_are_refused_by_name(name, value):
    """A Setup says everything itself."""
    with pytest.raises(ConfigError, match=f"a Setup and {name} are given"):
        Reranker(Setup(stages()), **{name: value})


@pytest.mark.parametrize(("name", "value"), [*OF_A_MODEL.items(), ("model", "lexical")])
def test_options_of_a_model_beside_stages_are_refused_by_name(name, value):
    """The stages' scorers are made already."""
    with pytest.raises(ConfigError, match=f"stages and {name} are given"):
        Reranker(stages=stages(), **{name: value})


def test_several_are_named_together():
    """One message for all."""
    with pytest.raises(ConfigError, match="depth, budget_ms are given"):
        Reranker(Setup(stages()), budget_ms=50, depth=3)


def test_what_has_an_effect_is_accepted():
    """Options of requests beside stages, and who observes beside anything."""
    with Reranker(stages=stages(), depth=1, workers=1) as reranker:
        assert reranker.setup.depth == 1
    provider = TracerProvider()
    with Reranker(Setup(stages(), workers=1), tracer_provider=provider) as reranker:
        assert reranker.rerank("red fox", ["a blue hen", "a red fox"]).order == (1, 0)
    provider.shutdown()


def test_every_option_is_in_one_of_these_lists():
    """A new option is refused beside a Setup until somebody decides otherwise."""
    options = set(inspect.signature(Reranker).parameters)
    assert options == {"model", "stages"} | OF_A_MODEL.keys() | OF_A_REQUEST.keys() | HEARD
