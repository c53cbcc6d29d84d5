"""Settings of remote stages."""

from pydantic import Field, field_serializer, model_validator

from ..scoring import Scorer
from ..scoring.models.hub import Hub
from ..scoring.onnx.options import OnnxOptions
from .tables import Count, LocalPath, ModelName, Positive, Seconds, Table, record


class BreakerSettings(Table):
    """When no calls are made to a destination that keeps failing."""

    failures: Positive = Field(default=5, description="failed calls in a row that open the breaker")
    rest_s: Seconds = Field(default=2.0, description="seconds until the first probe")
    longest_rest_s: Seconds = Field(default=60.0, description="seconds between probes, at most")


class RemoteSettings(Table):
    """A remote reranker: `scorer = { provider = "cohere", model = "rerank-v3.5", ... }`."""

    provider: str = Field(description="a row of the provider table, such as cohere, tei, vllm")
    model: str = Field(default="", description="the provider's name of the model")
    base_url: str | None = Field(default=None, description="None: the provider's own")
    path: str | None = Field(default=None, description="path under base_url; None: the usual one")
    region: str | None = Field(
        default=None, description="where the destination processes text, if you can vouch for that"
    )
    project: str | None = Field(default=None, description="Google Cloud project")
    location: str | None = Field(default=None, description="region in the URL: AWS, Google")
    api_key_env: str | None = Field(
        default=None, description="environment variable of the key; None: the provider's usual one"
    )
    api_key_file: LocalPath | None = Field(default=None, description="file that holds the key")
    extra: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="fields to put into the body as they are"
    )
    accept_models: tuple[str, ...] = Field(
        default_factory=tuple, description="other names the model may answer under"
    )
    timeout_s: Seconds = Field(default=10.0, description="seconds an attempt may take, at most")
    retries: Count = Field(default=2, description="attempts after the first")
    per_minute: Seconds | None = Field(default=None, description="calls a minute; None: no limit")
    concurrency: Positive = Field(default=16, description="calls under way at once")
    hedge_ms: Seconds | None = Field(
        default=None, description="milliseconds until an equal, second call; None: never"
    )
    max_documents: Positive | None = Field(
        default=None, description="documents a call; None: what the provider takes"
    )
    breaker: BreakerSettings = BreakerSettings()
    tokenizer: ModelName | None = Field(
        default=None,
        description="for triton: the model's tokenizer, a folder, a hub id or embedded; keys of "
        "the stage, such as max_tokens, say how long passages are read",
    )
    token_types: bool | None = Field(
        default=None, description="send token_type_ids; None: where the tokenizer has any"
    )
    binary_tensors: bool = Field(default=True, description="send tensors as bytes, not as JSON")
    proxy: str | None = Field(
        default=None, repr=False, description="proxy to go through; never the system's"
    )
    ca_file: LocalPath | None = Field(
        default=None, description="certificate authorities of your own, PEM"
    )
    insecure: bool = Field(
        default=False, description="allow plain http out of this machine and private networks"
    )

    @field_serializer("proxy")
    def _without_password(self, proxy: str | None) -> str | None:
        head, at, host = (proxy or "").rpartition("@")
        return f"{head.partition('//')[0]}//<hidden>@{host}" if at else proxy

    @model_validator(mode="after")
    def _one_key(self) -> "RemoteSettings":
        if self.api_key_env is not None and self.api_key_file is not None:
            message = "give api_key_env or api_key_file, not both"
            raise ValueError(message)
        return self

    def scorer(self, reading: OnnxOptions, hub: Hub) -> Scorer:
        """Return the scorer. Raises `ConfigError` and `PolicyError`.

        `reading` and `hub` are used where a tokenizer is named, so that texts are read here; else
        only the instruction of `reading` counts.
        """
        # Here, because most configurations are local and need no HTTP client.
        from ..remote.auth import from_env, from_file
        from ..remote.client import ClientOptions
        from ..remote.dialects.kserve import KServeDialect
        from ..remote.options import RemoteOptions
        from ..remote.payload import ReadingOptions
        from ..remote.resilience import BreakerOptions
        from ..remote.scorer import RemoteScorer

        given: dict[str, object] = {
            "breaker": record(BreakerOptions, self.breaker),
            "client": record(ClientOptions, self),
        }
        if self.api_key_file is not None:
            given["key"] = from_file(self.api_key_file)
        elif self.api_key_env is not None:
            given["key"] = from_env(self.api_key_env)
        if self.tokenizer is None:
            given["instruction"] = reading.instruction
        else:
            given["reading"] = ReadingOptions(self.tokenizer, self.token_types, reading, hub)
            given["dialect"] = KServeDialect(reading.score_column, self.binary_tensors)
        return RemoteScorer(record(RemoteOptions, self, given))
