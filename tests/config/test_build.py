"""Settings: what they say, and what is wrong with them."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import Reranker, load
from rerank_plugins.config.build import build_setup
from rerank_plugins.config.read import parse_settings, read_settings
from rerank_plugins.config.schema import Settings
from rerank_plugins.errors import ConfigError
from rerank_plugins.rules.calibration import Calibration
from tests import tiny

TEXTS = ["a hen", "a red fox"]


@pytest.mark.parametrize(
    ("data", "named", "hint"),
    [
        ({"stage": []}, "'stage'", "did you mean 'stages'?"),
        ({"stages": [{"max_token": 5}]}, "'stages.0.max_token'", "did you mean 'max_tokens'?"),
        ({"budget": {"time_sm": 5}}, "'budget.time_sm'", "did you mean 'time_ms'?"),
        ({"service": {"worker": 2}}, "'service.worker'", "did you mean 'workers'?"),
        ({"selection": {"topk": 5}}, "'selection.topk'", "did you mean 'top_k'?"),
        ({"fusion": {"prior": 0.5}}, "'fusion.prior'", "prior_weight"),
        ({"qqq": 1}, "'qqq'", "known keys are"),
    ],
)
def test_an_unknown_key_is_named_with_its_nearest_match(data, named, hint):
    """A typo is an error that says which key and what was probably meant."""
    with pytest.raises(ConfigError) as caught:
        load(data)
    assert named in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"stages": []}, "stages"),
        ({"stages": "embedded"}, "stages"),
        ({"stages": [{"long": "cut"}]}, "stages.0.long"),
        ({"stages": [{"max_tokens": 0}]}, "stages.0.max_tokens"),
        ({"stages": [{"window_overlap": 1.0}]}, "stages.0.window_overlap"),
        ({"budget": {"time_ms": -1}}, "budget.time_ms"),
        ({"selection": {"top_k": 0}}, "selection.top_k"),
        ({"fusion": {"prior_weight": 1.5}}, "fusion.prior_weight"),
        ({"service": {"when_cold": "never"}}, "service.when_cold"),
        ({"strict": "perhaps"}, "strict"),
    ],
)
def test_an_impossible_value_is_named(data, named):
    """A value out of range is an error that names its place."""
    with pytest.raises(ConfigError, match=named):
        load(data)


@pytest.mark.parametrize(
    ("data", "found", "advice"),
    [
        ({"selection": {"stop": {"epsilon": 0.05}}}, "selection.stop", "write depth = 50"),
        ({"selection": {"depth": {"gap": True}}}, "selection.depth.gap", "write depth = N"),
        ({"stages": [{"keep": {"score": 1.0}}]}, "stages.0.keep.score", "write keep = N"),
        ({"stages": [{"keep": {"accept": 0.9}}]}, "stages.0.keep.accept", "write keep = N"),
        ({"stages": [{"exit_keep": {"reject": 0.9}}]}, "exit_keep.reject", "write keep = N"),
        ({"selection": {"cut": {"mass": 0.9}}}, "selection.cut.mass", "write cut = N or top_k = N"),
        ({"selection": {"cut": {"nulls": [0.1]}}}, "selection.cut.nulls", "cut = N or top_k"),
        ({"selection": {"cut": {"null_rate": 0.1}}}, "selection.cut.null_rate", "cut = N or top_k"),
        ({"exit_audit": {"adjust": "both"}}, 'exit_audit.adjust = "both"', '"tighten" or "off"'),
    ],
)
def test_a_removed_option_says_what_to_write_instead(data, found, advice):
    """Settings of an older version are refused with what takes the option's place."""
    with pytest.raises(ConfigError) as caught:
        load(data)
    assert f"{found} was removed: " in str(caught.value)
    assert advice in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_whatever_the_dict_holds_the_error_is_a_config_error(value):
    """No nonsense in a configuration escapes as another exception."""
    for data in ({"stages": value}, {"budget": value}, {"fusion": value}, {"x": value}):
        with contextlib.suppress(ConfigError):
            assert isinstance(parse_settings(data, "test"), Settings)


def test_toml_json_and_a_dict_say_the_same(tmp_path):
    """One configuration, three spellings."""
    data = {"stages": [{"scorer": "lexical"}], "selection": {"top_k": 1}}
    (tmp_path / "a.toml").write_text('[[stages]]\nscorer = "lexical"\n[selection]\ntop_k = 1\n')
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert (
        read_settings(data)
        == read_settings(tmp_path / "a.toml")
        == read_settings(str(tmp_path / "a.json"))
    )
    with load(tmp_path / "a.toml") as reranker:
        assert [hit.index for hit in reranker.rerank("fox", TEXTS)] == [1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.toml", None, "no configuration at"),
        ("broken.toml", b"[stages", "is not valid TOML"),
        ("broken.json", b"{", "is not valid JSON"),
        ("binary.toml", b"\xff\xfe\x00", "is not valid TOML"),
        ("list.json", b"[1]", "list.json"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, name, content, message):
    """A file that is missing, broken, or no table says so with its path."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(path)
    with pytest.raises(ConfigError, match="no configuration at"):
        load(tmp_path)


def test_the_models_card_gives_calibration_and_fusion_unless_told_otherwise(tmp_path):
    """Facts on the card are defaults; settings win."""
    folder = tiny.build(tmp_path / "m")
    card = {"calibration": {"a": 2.0, "b": -1.0}, "fusion": {"prior_weight": 0.25}}
    (folder / "card.json").write_text(json.dumps(card))
    setup = build_setup(read_settings({"stages": [{"scorer": str(folder)}]}))
    assert setup.stages[0].calibration == Calibration(2.0, -1.0)
    assert setup.prior_weight == 0.25
    told = {
        "stages": [{"scorer": str(folder), "calibration": [1.0, 0.0]}],
        "fusion": {"prior_weight": 0.0},
    }
    setup = build_setup(read_settings(told))
    assert setup.stages[0].calibration == Calibration(1.0, 0.0)
    assert setup.prior_weight == 0.0


def test_settings_reach_the_request():
    """Depth, top_k, budget and strictness of a configuration hold for every call."""
    data = {
        "stages": [{"scorer": "lexical"}],
        "selection": {"depth": 1, "top_k": 1},
        "budget": {"time_ms": 60_000},
        "strict": True,
    }
    with load(data) as reranker:
        assert reranker.setup.strict
        assert reranker.setup.budget.time_s == 60.0
        result = reranker.rerank("fox", TEXTS)
        assert [hit.index for hit in result] == [0]
        assert len(reranker.rerank("fox", TEXTS, top_k=2)) == 2


def test_keyword_arguments_are_checked_like_a_file():
    """`Reranker(...)` refuses what a configuration would refuse."""
    for wrong in ({"budget_ms": -1}, {"top_k": 0}, {"prior_weight": 2}, {"long": "cut"}):
        with pytest.raises(ConfigError):
            Reranker("lexical", **wrong)


def test_paths_in_a_settings_file_are_relative_to_it(tmp_path, monkeypatch, tiny_model):
    """Wherever the process runs, a settings file finds what lies beside it."""
    folder = tmp_path / "settings"
    shutil.copytree(tiny_model, folder / "models" / "tiny")
    text = """
        stages = [{ scorer = "models/tiny", cache_dir = "hub" }]
        policy = { audit = "audit.jsonl" }
        guard = { log = "/var/guard.jsonl", snapshot = "~/snapshot.json" }
    """
    (folder / "rerank.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    found = read_settings("settings/rerank.toml")
    stage = found.stages[0]
    assert stage.scorer == str(folder / "models" / "tiny")
    assert stage.cache_dir == folder / "hub"
    assert found.policy.audit == folder / "audit.jsonl"
    assert found.guard.log == Path("/var/guard.jsonl")
    assert found.guard.snapshot == Path("~/snapshot.json")
    as_dict = read_settings({"stages": [{"scorer": "models/tiny", "cache_dir": "hub"}]})
    assert as_dict.stages[0].scorer == "models/tiny"
    assert as_dict.stages[0].cache_dir == Path("hub")
    assert read_settings({"stages": [{"scorer": tiny_model}]}).stages[0].scorer == str(tiny_model)
    for name in ("org/name", "embedded", "lexical"):
        (folder / "rerank.toml").write_text(f'stages = [{{ scorer = "{name}" }}]')
        assert read_settings(folder / "rerank.toml").stages[0].scorer == name


def test_batches_are_cut_for_the_workers_of_the_service(tiny_model):
    """Warm-up and batches reckon with the threads that there will be."""
    settings = {"stages": [{"scorer": str(tiny_model)}], "service": {"workers": 3}}
    with load(settings) as reranker:
        assert reranker.setup.stages[0].scorer.throughput.workers == 3
