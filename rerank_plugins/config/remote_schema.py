"""Settings of remote stages."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from ..scoring import Scorer
from ..scoring.models.hub import Hub
from ..scoring.onnx.options import OnnxOptions
from .tables import Positive, Seconds, Table


class BreakerSettings(Table):
    """When a destination that keeps failing is left alone."""

    failures: Positive = Field(default=5, description="bad calls in a row that open it")
    rest_s: Seconds = Field(default=2.0, description="seconds until the first probe")
    longest_rest_s: Seconds = Field(default=60.0, description="seconds between probes, at most")


class RemoteSettings(Table):
    """A remote reranker: `scorer = { provider = "cohere", model = "rerank-v3.5", ... }`."""

    provider: str = Field(description="a row of the provider table, such as cohere, tei, vllm")
    model: str = Field(default="", description="the provider's name of the model")
    base_url: str | None = Field(default=None, description="None: the provider's own")
    path: str | None = Field(default=None, description="path under base_url; None: the usual one")
    region: str | None = Field(
        default=None, description="where the destination processes text, if you answer for it"
    )
    project: str | None = Field(default=None, description="Google Cloud project")
    location: str | None = Field(default=None, description="region in the URL: AWS, Google")
    api_key_env: str | None = Field(
        default=None, description="environment variable of the key; None: the provider's usual one"
    )
    api_key_file: Path | None = Field(default=None, description="file that holds the key")
    extra: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="fields to put into the body as they are"
    )
    accept_models: list[str] = Field(
        default_factory=list, description="other names the model may answer under"
    )
    timeout_s: Seconds = Field(default=10.0, description="seconds an attempt may take, at most")
    retries: Annotated[int, Field(ge=0)] = Field(default=2, description="attempts after the first")
    per_minute: Seconds | None = Field(default=None, description="calls a minute; None: no limit")
    concurrency: Positive = Field(default=16, description="calls under way at once")
    hedge_ms: Seconds | None = Field(
        default=None, description="milliseconds until an equal, second call; None: never"
    )
    max_documents: Positive | None = Field(
        default=None, description="documents a call; None: what the provider takes"
    )
    breaker: BreakerSettings = BreakerSettings()
    tokenizer: str | None = Field(
        default=None,
        description="for triton: the model's tokenizer, a folder, a hub id or embedded; how long "
        "passages are read is said by the stage's own keys",
    )
    token_types: bool | None = Field(
        default=None, description="send token_type_ids; None: where the tokenizer has any"
    )
    binary_tensors: bool = Field(default=True, description="send tensors as bytes, not as JSON")
    proxy: str | None = Field(default=None, description="proxy to go through; never the system's")
    ca_file: Path | None = Field(default=None, description="authorities of your own, PEM")

    @model_validator(mode="after")
    def _one_key(self) -> "RemoteSettings":
        if self.api_key_env is not None and self.api_key_file is not None:
            message = "give api_key_env or api_key_file, not both"
            raise ValueError(message)
        return self

    def scorer(self, how: OnnxOptions, hub: Hub) -> Scorer:
        """Give the scorer; of `how`, all but the instruction counts only where texts are read here.

        Raises `ConfigError` and `PolicyError`.
        """
        # Here, because most configurations are local and need no HTTP client.
        from ..remote.auth import from_env, from_file
        from ..remote.client import ClientOptions
        from ..remote.dialects.kserve import KServe
        from ..remote.options import RemoteOptions
        from ..remote.payload import ReadingOptions
        from ..remote.resilience import BreakerOptions
        from ..remote.scorer import RemoteScorer

        reading = None
        if self.tokenizer is not None:
            reading = ReadingOptions(self.tokenizer, self.token_types, how, hub)
        key = None if self.api_key_env is None else from_env(self.api_key_env)
        options = RemoteOptions(
            provider=self.provider,
            model=self.model,
            base_url=self.base_url,
            path=self.path,
            region=self.region,
            project=self.project,
            location=self.location,
            key=key if self.api_key_file is None else from_file(self.api_key_file),
            extra=self.extra,
            accept_models=tuple(self.accept_models),
            instruction=how.instruction if reading is None else None,
            timeout_s=self.timeout_s,
            retries=self.retries,
            per_minute=self.per_minute,
            concurrency=self.concurrency,
            hedge_s=None if self.hedge_ms is None else self.hedge_ms / 1e3,
            max_documents=self.max_documents,
            reading=reading,
            dialect=None if reading is None else KServe(how.score_column, self.binary_tensors),
            breaker=BreakerOptions(
                self.breaker.failures, self.breaker.rest_s, self.breaker.longest_rest_s
            ),
            client=ClientOptions(proxy=self.proxy, ca_file=self.ca_file),
        )
        return RemoteScorer(options)


def _which(value: object) -> Literal["local", "remote"]:
    return "local" if isinstance(value, str) else "remote"


ScorerSettings = Annotated[
    Annotated[str, Tag("local")] | Annotated[RemoteSettings, Tag("remote")], Discriminator(_which)
]
"""A local model by name, or a table that says how to reach a remote one."""
