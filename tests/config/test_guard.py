"""The [guard] table, and snapshots that belong to one model."""

import json

import pytest

from rerank_plugins import load
from rerank_plugins.config.guard import subject
from rerank_plugins.errors import ConfigError, ModelError
from rerank_plugins.quality.drift.snapshot import load as read
from rerank_plugins.quality.drift.snapshot import save, snapshot
from tests.tiny import build


def test_nothing_is_watched_unless_the_table_is_there():
    """Without [guard] there is no guard; an empty table is one that learns."""
    with load({"stages": [{"scorer": "lexical"}]}) as plain:
        assert plain.setup.guard is None
    with load({"stages": [{"scorer": "lexical"}], "guard": {"window": 30}}) as watched:
        assert watched.setup.guard is not None
        assert watched.setup.guard.options.window == 30
        assert watched.setup.guard.options.do_no_harm


def test_a_snapshot_of_another_model_is_refused(tmp_path):
    """The hash of what runs must be the snapshot's; the error says what to do."""
    path = tmp_path / "snapshot.json"
    with load({"stages": [{"scorer": "lexical"}]}) as reranker:
        own = subject(reranker.setup.stages)
    save(snapshot([], subject=own, model="lexical"), path)
    settings = {"stages": [{"scorer": "lexical"}], "guard": {"snapshot": str(path)}}
    load(settings).close()
    save(snapshot([], subject="0" * 64, model="another"), path)
    with pytest.raises(ModelError, match="make another with"):
        load(settings)


def test_other_weights_are_another_subject(tmp_path):
    """The same file name with other contents has another hash."""
    hashes = []
    for number in range(2):
        folder = build(tmp_path / str(number))
        with load({"stages": [{"scorer": str(folder), "max_tokens": 64 + number}]}) as reranker:
            hashes.append(subject(reranker.setup.stages))
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "values": 3}'])
def test_what_is_no_snapshot_is_refused(tmp_path, text):
    """A broken file is named, and how to make one."""
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="no drift snapshot"):
        read(path)


def test_a_snapshot_on_disk_is_json(tmp_path):
    """Reading gives what was saved, and anybody can look at it."""
    before = snapshot([], subject="s", model="m", canaries=[2.0])
    path = tmp_path / "new" / "snapshot.json"
    save(before, path)
    assert read(path) == before
    assert json.loads(path.read_text(encoding="utf-8"))["canaries"] == [2.0]


@pytest.mark.parametrize(
    ("action", "missing"), [("fallback", "when = "), ("disable_exits", "has exits")]
)
def test_an_action_that_nothing_could_follow_is_refused(action, missing):
    """Actions that need fallback stages or exits are checked at the start."""
    with pytest.raises(ConfigError, match=missing):
        load({"stages": [{"scorer": "lexical"}], "guard": {"action": action}})


def test_disabling_exits_lets_every_candidate_through():
    """With embedded exits the full stages keep everybody."""
    settings = {
        "stages": [{"scorer": "embedded", "exits": [2], "exit_keep": 5}],
        "guard": {"action": "disable_exits"},
    }
    with load(settings) as reranker:
        setup = reranker.setup
        assert [stage.keep for stage in setup.stages] == [5, None]
        assert [stage.keep for stage in setup.full] == [None, None]
