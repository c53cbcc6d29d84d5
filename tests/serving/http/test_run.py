"""What a server process opens: the settings file, and what the command line says beside it."""

import os

import pytest

from rerank_plugins.serving.http.run import ServeOptions, open_reranker


@pytest.fixture
def config(tmp_path):
    """Write settings that name a bound of their own."""
    path = tmp_path / "rerank.toml"
    path.write_text('[[stages]]\nscorer = "lexical"\n[service]\nmax_requests = 5\n')
    return str(path)


@pytest.mark.parametrize(("given", "holds"), [(3, 3), (None, 5)])
def test_the_bound_on_requests_holds_with_a_file_too(config, given, holds):
    """What the command line says comes first, then the file."""
    with open_reranker(ServeOptions(config=config, max_requests=given)) as reranker:
        assert reranker.setup.max_requests == holds


@pytest.mark.parametrize(("given", "holds"), [(3, 3), (None, 256)])
def test_without_a_file_the_bound_has_a_default(given, holds):
    """A server takes fewer requests at once than an engine in process."""
    with open_reranker(ServeOptions(model="lexical", max_requests=given)) as reranker:
        assert reranker.setup.max_requests == holds


def test_workers_share_the_cores_with_a_file_too(config, tmp_path):
    """Each takes its share, unless the file or the options say otherwise."""
    many = 2 * (os.cpu_count() or 1)
    with open_reranker(ServeOptions(config=config, workers=many)) as reranker:
        assert reranker.setup.workers == 1
    with open_reranker(ServeOptions(config=config, workers=many, threads=2)) as reranker:
        assert reranker.setup.workers == 2
    told = tmp_path / "told.toml"
    told.write_text('[[stages]]\nscorer = "lexical"\n[service]\nworkers = 3\n')
    with open_reranker(ServeOptions(config=str(told), workers=many)) as reranker:
        assert reranker.setup.workers == 3


def test_a_worker_computes_on_the_cores_that_the_process_was_given(monkeypatch):
    """Affinity and limits of a container count, not the cores of the machine."""
    monkeypatch.setattr("rerank_plugins.scoring.runtime.process.cores", lambda: 1)
    with open_reranker(ServeOptions(model="lexical")) as reranker:
        assert reranker.setup.workers == 1
