"""The HTTP routes on a Ray cluster, and reranking of whole Ray datasets.

Serve: `serve run rerank_plugins.ray_app:app model=embedded max_replicas=8`. Ray's own batching is
off, because the engine's scheduler batches better. Needs `pip install 'rerank-plugins[ray]'`.
"""

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
from ..errors import ConfigError
from ..reranker import Reranker
from .http.app import Serving, build


class RayOptions(BaseModel):
    """What `serve run rerank_plugins.ray_app:app KEY=VALUE ...` takes.

    cpus: worker threads of a replica, which is one engine
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


class Replica:
    """The HTTP routes over one engine; healthy once its model is warm."""

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        self._app: Starlette | None = None

    def __serve_build_asgi_app__(self) -> Starlette:
        """Return the application; Ray Serve runs its start-up, which loads and warms the model."""
        self._app = build(Serving(open_reranker=partial(open_reranker, self._options)))
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
        results = [
            self._reranker.rerank(query, passages, top_k=self._top_k)
            for query, passages in zip(
                rows["query"].to_pylist(), rows["passages"].to_pylist(), strict=True
            )
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


def _done_ids(output: Path) -> list[object]:
    if not any(output.glob("*.parquet")):
        return []
    done = ray.data.read_parquet(str(output), columns=["id"])
    return [row["id"] for row in done.take_all()]
