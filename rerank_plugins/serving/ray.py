"""The HTTP routes on a Ray cluster, and reranking of whole Ray datasets.

Serve: `serve run rerank_plugins.ray_app:app model=embedded max_replicas=8`. Ray's own batching is
off, because the engine's scheduler batches better. Needs `pip install 'rerank-plugins[ray]'`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.data import Dataset
from ray.data.expressions import col
from ray.serve import Application
from starlette.applications import Starlette

from ..config.build import build_setup
from ..config.read import read_settings
from ..errors import ConfigError, InvalidRequest
from ..records import Candidate
from ..reranker import Reranker
from ..rules.residency import UNREADABLE, metadata_of
from .http.admission import Limits
from .http.app import Serving, build
from .http.run import TOKENS_VARIABLE, open_tokens


class RayOptions(BaseModel):
    """What `serve run rerank_plugins.ray_app:app KEY=VALUE ...` takes.

    cpus: worker threads of a replica, which is one engine
    open: serve everybody where RERANK_PLUGINS_TOKENS is not set on the nodes
    target_ongoing_requests: replicas are added while more requests than this wait on each
    """

    model_config = ConfigDict(extra="forbid")

    config: str | None = Field(default=None, description="settings file, on every node")
    model: str = Field(default="embedded", description="what to serve without a settings file")
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=4, ge=1)
    target_ongoing_requests: float = Field(default=4.0, gt=0.0)
    max_queued_requests: int = Field(default=512, ge=1)
    cpus: int = Field(default=1, ge=1)
    open: bool = False


class Replica:
    """The HTTP routes over one engine; healthy once its model is warm."""

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        self._app: Starlette | None = None

    def __serve_build_asgi_app__(self) -> Starlette:
        """Return the application; Ray Serve runs its start-up, which loads and warms the model."""
        # Ray has queues of its own, and its proxies are the only clients.
        self._app = build(
            Serving(
                open_reranker=partial(open_reranker, self._options),
                limits=Limits(client_share=1.0),
                tokens=_tokens(self._options),
            )
        )
        return self._app

    async def check_health(self) -> None:
        """Raise `RuntimeError` while this replica must not get requests."""
        reranker = getattr(self._app.state, "reranker", None) if self._app else None
        if reranker is None or not reranker.ready:
            message = "the model is not warm"
            raise RuntimeError(message)


def app(args: RayOptions) -> Application:
    """Return the Ray Serve application."""
    deploy = serve.deployment(
        name="rerank",
        max_ongoing_requests=max(8, int(args.target_ongoing_requests * 4)),
        max_queued_requests=args.max_queued_requests,
        autoscaling_config={
            "min_replicas": args.min_replicas,
            "max_replicas": args.max_replicas,
            "target_ongoing_requests": args.target_ongoing_requests,
        },
        ray_actor_options={"num_cpus": args.cpus},
    )
    application: Application = deploy(serve.ingress()(Replica)).bind(args)
    return application


def _tokens(options: RayOptions) -> Sequence[str]:
    """Return the allowed tokens of this node. Raises `ConfigError` if it has none and is closed."""
    tokens = open_tokens()
    if not tokens and not options.open:
        message = (
            "no tokens are given and Ray's proxies may be reached from elsewhere; set "
            f"{TOKENS_VARIABLE} on every node, or serve everybody with open=true"
        )
        raise ConfigError(message)
    return tokens


def open_reranker(options: RayOptions) -> Reranker:
    """Return a reranker with `cpus` worker threads, unless the settings say otherwise."""
    setup = build_setup(read_settings(options.config or {"stages": [{"scorer": options.model}]}))
    return Reranker(replace(setup, workers=setup.workers or options.cpus))


class _BatchReranker:
    """Reranks batches of rows; each Ray actor holds one."""

    def __init__(self, options: RayOptions, top_k: int | None) -> None:
        self._reranker = open_reranker(options)
        self._reranker.warm_up()
        self._top_k = top_k

    def __call__(self, rows: pa.Table) -> pa.Table:
        key = self._reranker.setup.policy.residency_key
        wanted = {"query", "passages", "metadata", "meta", key}
        results = [
            self._reranker.rerank(row["query"], _candidates(row, key), top_k=self._top_k)
            for row in rows.select([n for n in rows.column_names if n in wanted]).to_pylist()
        ]
        order = [[hit.index for hit in result] for result in results]
        scores = [[hit.score for hit in result] for result in results]
        degraded = [result.degraded for result in results]
        return (
            rows.append_column("order", pa.array(order, pa.list_(pa.int64())))
            .append_column("scores", pa.array(scores, pa.list_(pa.float32())))
            .append_column("degraded", pa.array(degraded, pa.bool_()))
        )


def rerank_dataset(
    dataset: Dataset,
    output: Path,
    *,
    options: RayOptions | None = None,
    top_k: int | None = None,
    actors: int = 1,
    rows_per_batch: int = 16,
) -> Dataset:
    """Rerank every row {id, query, passages} into parquet files under `output`.

    Passages are texts, or objects with `text` and where a label may be: `metadata`, `meta`, or a
    field named as the policy's `residency_key`. Columns of these names serve as well: a list with
    an entry for each passage, or one entry for the whole row. What is there and null keeps its
    text local, as any label does that cannot be read; null `metadata` is none.

    Adds `order` (positions, best first), `scores` and `degraded`. Rows whose id is already under
    `output` are skipped, so that an interrupted job continues. Returns the whole output.
    Raises `ConfigError` for a dataset without those columns.
    """
    names = set(dataset.schema().names)
    if not {"id", "query", "passages"} <= names:
        message = f"the dataset has columns {sorted(names)}; expected id, query and passages"
        raise ConfigError(message)
    done = _done_ids(output)
    if done:
        dataset = dataset.filter(expr=~col("id").is_in(done))
    options = options or RayOptions()
    reranked = dataset.map_batches(
        _BatchReranker,
        fn_constructor_args=(options, top_k),
        batch_size=rows_per_batch,
        batch_format="pyarrow",
        concurrency=actors,
        num_cpus=options.cpus,
    )
    # One file per batch: what is finished is on disk, and only whole files ever are.
    reranked.write_parquet(str(output), min_rows_per_file=rows_per_batch)
    return ray.data.read_parquet(str(output))


def _candidates(row: Mapping[str, object], key: str) -> list[Candidate]:
    """Return a row's passages and where their labels may be. Raises `InvalidRequest`."""
    passages = row["passages"]
    if not isinstance(passages, list):
        message = f"passages is a {type(passages).__name__}; expected a list of texts or objects"
        raise InvalidRequest(message)
    columns = {name: row[name] for name in ("metadata", "meta", key) if name in row}
    beside = {name: _spread(value, len(passages)) for name, value in columns.items()}
    found = []
    for place, passage in enumerate(passages):
        own = metadata_of(passage)
        shared = metadata_of({name: values[place] for name, values in beside.items()})
        text = passage
        if isinstance(passage, Mapping):
            text = passage.get("text")
        if not isinstance(text, str | None):
            message = f"passage {place} is no text; expected one, or an object with a `text`"
            raise InvalidRequest(message)
        found.append(Candidate(text, metadata={"metadata": own, "meta": shared}))
    return found


def _spread(value: object, count: int) -> list[object]:
    """Return a column's entry for each passage; one that does not fit cannot be read."""
    if not isinstance(value, list):
        return [value] * count
    return value if len(value) == count else [UNREADABLE] * count


def _done_ids(output: Path) -> list[object]:
    if not any(output.glob("*.parquet")):
        return []
    done = ray.data.read_parquet(str(output), columns=["id"])
    return [row["id"] for row in done.take_all()]
