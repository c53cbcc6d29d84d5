"""Forks: a reranker made before one says so after it, and its parent goes on undisturbed."""

import subprocess
import sys
from textwrap import dedent

import pytest

HEAD = """
    import os, sys
    from rerank_plugins import Candidate, Policy, Reranker, Stage
    from rerank_plugins.errors import ClosedError
    from rerank_plugins.scoring.lexical import LexicalScorer
    from rerank_plugins.remote.options import RemoteOptions
    from rerank_plugins.remote.scorer import RemoteScorer
    from rerank_plugins.serving.shared_engine import SharedReranker
    from rerank_plugins.testing import FakeRerankServer

    TEXTS = ["a blue hen", "a red fox"]

    def in_a_fork(what):
        process = os.fork()
        if process == 0:
            what()
            sys.exit(7)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert status == 7, status

    def refused(call):
        try:
            call()
        except ClosedError as error:
            assert "fork" in str(error), error
        else:
            raise AssertionError("was not refused")
"""


def run(program: str) -> None:
    """Run a program in an interpreter of its own; forks with threads are its very subject."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", dedent(HEAD) + dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.parametrize("call", ["rerank('red fox', TEXTS)", "warm_up()", "feedback('id', 1.0)"])
def test_a_reranker_from_before_a_fork_refuses_at_once(call):
    """Its workers are in the parent: it says so instead of waiting for ever; the parent goes on."""
    run(
        f"""
        with Reranker("lexical") as reranker:
            in_a_fork(lambda: refused(lambda: reranker.{call}))
            assert reranker.rerank("red fox", TEXTS).order == (1, 0)
        """
    )


def test_a_reranker_can_be_made_after_a_fork():
    """Whatever the parent holds."""
    run(
        """
        parents = Reranker("lexical")
        def serve():
            with Reranker("lexical") as own:
                assert own.rerank("red fox", TEXTS).order == (1, 0)
        in_a_fork(serve)
        in_a_fork(parents.close)
        assert parents.rerank("red fox", TEXTS).order == (1, 0)
        """
    )


def test_a_remote_scorer_from_before_a_fork_fails_over_at_once_and_its_parents_calls_go_on():
    """Its connections are the parent's: a fork uses none of them, and in ending breaks none."""
    run(
        """
        with FakeRerankServer("compatible") as server:
            scorer = RemoteScorer(RemoteOptions("compatible", "m", base_url=server.url))
            stages = [Stage(scorer), Stage(LexicalScorer(), when="fallback")]
            parents = Reranker(stages=stages, policy=Policy(("on-prem",)))
            assert not parents.rerank("red fox", TEXTS).degraded

            def serve():
                with Reranker(stages=stages, policy=Policy(("on-prem",))) as own:
                    result = own.rerank("red fox", TEXTS)
                assert result.degraded and result.order == (1, 0)
                assert any("the fork" in one.detail for one in result.decisions)
            in_a_fork(serve)
            assert not parents.rerank("red fox", TEXTS).degraded
            assert len(server.requests) == 2
            parents.close()
        """
    )


def test_what_adapters_share_is_made_again_after_a_fork():
    """A component warmed up before the workers were forked works in each of them."""
    run(
        """
        shared = SharedReranker({"stages": [{"scorer": "lexical"}]})
        shared.warm_up()
        texts = [Candidate(one) for one in TEXTS]
        in_a_fork(lambda: shared.rerank("red fox", texts).order == (1, 0) or sys.exit(1))
        assert shared.rerank("red fox", texts).order == (1, 0)
        """
    )


def test_a_guard_from_before_a_fork_neither_waits_nor_writes_in_it(tmp_path):
    """Its thread, its log and whoever holds its locks are the parent's, and they go on."""
    run(
        f"""
        import threading
        from dataclasses import replace
        from pathlib import Path
        from rerank_plugins.core.setup import Setup
        from rerank_plugins.quality.guard.guard import Guard
        from rerank_plugins.quality.guard.stance import GuardOptions

        log = Path({str(tmp_path / "guard.jsonl")!r})
        guard = Guard(GuardOptions(null_every=0, log=log))
        setup = Setup((Stage(LexicalScorer()),), guard=guard)
        parents = Reranker(setup)
        asked = parents.rerank("red fox", TEXTS)
        guard.settle()
        held = guard._notes.mutex

        def end():
            refused(lambda: parents.feedback(asked.request_id, 1.0))
            refused(lambda: Reranker(setup))
            guard.feedback(asked.request_id, 1.0)
            guard.settle()
            parents.close()
            with Reranker(replace(setup, guard=Guard(GuardOptions(null_every=0)))) as own:
                assert own.rerank("red fox", TEXTS).order == (1, 0)
                own.setup.guard.settle()

        with held:
            in_a_fork(end)
        parents.rerank("red fox", TEXTS)
        guard.settle()
        parents.feedback(asked.request_id, 1.0)
        parents.close()
        assert len(log.read_text().splitlines()) == 2, log.read_text()
        """
    )
