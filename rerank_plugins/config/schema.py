"""The settings as pydantic models: every table and key that a configuration may have."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import BaseModel, Discriminator, Field, Tag

from ..adaptive.exit_audit import Adjust
from ..core.setup import WhenCold
from ..core.stage import When
from ..quality.guard.stance import Action
from ..rules.fusion import Method
from ..rules.plans import PROFILES
from ..rules.residency import Per, Policy, Unlabelled
from ..rules.windows import Fold
from ..scoring.models.files import EMBEDDED, Precision
from ..scoring.onnx.session import Provider
from ..scoring.text.pairs import LongPassages
from .remote_schema import RemoteSettings
from .selection_schema import KeepValue, SelectionSettings
from .tables import Chance, Count, LocalPath, ModelName, Positive, Share, Table, record
from .vector_schema import EncoderSettings


def _kind_of_scorer(value: object) -> Literal["local", "encoder", "remote"]:
    if isinstance(value, str | Path):
        return "local"
    if isinstance(value, EncoderSettings) or (isinstance(value, Mapping) and "encoder" in value):
        return "encoder"
    return "remote"


ScorerSettings: TypeAlias = Annotated[
    Annotated[ModelName, Tag("local")]
    | Annotated[EncoderSettings, Tag("encoder")]
    | Annotated[RemoteSettings, Tag("remote")],
    Discriminator(_kind_of_scorer),
]
"""A local model by name, or the table of an encoder or of a remote model."""


class StageSettings(Table):
    """A stage: its scorer, how the scorer runs, and which candidates go on to the next stage."""

    scorer: ScorerSettings = Field(
        default=EMBEDDED,
        description='"embedded", "lexical", a hub id, a folder, an .onnx file, or a remote table',
    )
    keep: KeepValue | None = Field(
        default=None, description="candidates that go on to the next stage: a number, or a rule"
    )
    exits: list[Positive] | LocalPath | None = Field(
        default=None,
        description="layers to stop at that the model has heads for, or a folder of calibrated "
        "exits; None: all layers for all candidates",
    )
    exit_keep: KeepValue | None = Field(
        default=None, description="candidates that go on after each of the model's own exits"
    )
    exit_method: Literal["ucb", "crc", "ltt"] = Field(
        default="ucb", description="how keep = {risk = ...} is certified"
    )
    exit_delta: Chance = Field(
        default=0.1, description="chance that the certificate fails (ucb, ltt)"
    )
    when: When = Field(default="always", description="always, or only as a fallback")
    max_tokens: Positive | None = Field(
        default=None, description="tokens a pair; None: what the model takes"
    )
    long: LongPassages = Field(
        default="window", description="what happens to passages over max_tokens"
    )
    fold: Fold = Field(
        default="max", description="how the scores of a passage's windows are combined"
    )
    window_tokens: Positive | None = Field(
        default=None,
        description="passage tokens a window after the first; None: the card's, or all that fit",
    )
    window_overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.5, description="share of a window that the next window repeats"
    )
    max_windows: Positive | None = Field(
        default=None,
        description="windows a passage, at most; None: what 8 windows of max_tokens would reach",
    )
    precision: Precision = Field(
        default="auto",
        description="which kernels to prefer; int8: from a file of them, or made at load from "
        "weights stored as int8; auto: int8 where the model's card vouches for it and it is "
        "faster here, else fp32",
    )
    provider: Provider = Field(default="cpu", description="ONNX Runtime execution provider")
    intra_threads: Count = Field(default=1, description="threads inside an operator")
    max_batch_tokens: Positive | None = Field(
        default=None, description="padded tokens a micro-batch, at most; None: measured at warm-up"
    )
    token_cache_bytes: Count = Field(
        default=64 * 2**20, description="memory for passage token ids; 0: no cache"
    )
    score_cache_bytes: Count = Field(
        default=0, description="memory for scores of pairs seen before; 0: no cache"
    )
    score_column: int | None = Field(
        default=None, description="output column that holds the score, if there are several"
    )
    template: str | None = Field(
        default=None, description="prompt of a decoder; None: the card's or the registry's"
    )
    instruction: str | None = Field(
        default=None, description="what a model that takes instructions is to look for"
    )
    rewrite: bool = Field(
        default=True, description="rewrite the graph where that is proved to change no score"
    )
    graph_cache: bool = Field(
        default=True,
        description="keep rewritten graphs, and what was measured of them, in the platform's "
        "cache folder",
    )
    revision: str | None = Field(default=None, description="hub revision; pin a commit")
    local_files_only: bool = Field(default=False, description="never ask the hub")
    cache_dir: LocalPath | None = Field(
        default=None, description="hub cache; None: huggingface-hub's own"
    )
    token_env: str | None = Field(
        default=None, description="environment variable with a hub token; None: the hub's own"
    )
    calibration: tuple[float, float] | None = Field(
        default=None, description="Platt parameters [a, b]; None: the model card's, if any"
    )


class BudgetSettings(Table):
    """How long a request may take."""

    time_ms: Annotated[float, Field(gt=0.0)] | None = Field(
        default=None, description="milliseconds from the call to the answer; None: no limit"
    )
    profile: Literal["search-as-you-type", "interactive-chat", "agent-step", "report"] | None = (
        Field(default=None, description="a named budget, where time_ms is not given")
    )

    @property
    def time_s(self) -> float | None:
        """The budget in seconds, None for no limit."""
        if self.time_ms is not None:
            return self.time_ms / 1e3
        return None if self.profile is None else PROFILES[self.profile]


class FusionSettings(Table):
    """How the retriever's score, the prior, is combined with the model's score."""

    prior_weight: Share | None = Field(
        default=None, description="0: model only, 1: prior only; None: the model card's, or 0"
    )
    method: Method = Field(
        default="convex",
        description="by weighted scores, or by ranks (which needs neither weight nor priors)",
    )


class PolicySettings(Table):
    """Where text may be processed."""

    regions: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, description="regions that text may be sent to; None: anywhere"
    )
    residency_key: str = Field(
        default="residency", description="metadata key under which a document narrows the regions"
    )
    unlabelled: Unlabelled = Field(
        default="allow", description="whether documents without that key may leave"
    )
    per: Per = Field(
        default="request",
        description="what is not sent where a document may not leave: its whole request, or only "
        "that document",
    )
    inside: dict[str, str] = Field(
        default_factory=dict, description="names of your own, and the region each lies in"
    )
    audit: LocalPath | None = Field(
        default=None, description="file that gets a JSON line for each sending and each refusal"
    )

    def policy(self) -> Policy:
        """Return the policy. Raises `PolicyError`."""
        return record(Policy, self)


class ServiceSettings(Table):
    """Threads and readiness."""

    workers: Positive | None = Field(default=None, description="worker threads; None: one per core")
    max_requests: Positive = Field(
        default=1024, description="requests under way at once; more are refused"
    )
    when_cold: WhenCold = Field(
        default="wait", description="what a request does while the model warms up"
    )


class ExitAuditSettings(Table):
    """Score some requests a second time without exits, to measure what the exits lose."""

    share: Share = Field(
        default=0.0, description="share of requests, when workers are idle; 0: none"
    )
    adjust: Adjust = Field(
        default="tighten",
        description="whether margins grow where exits lose more than was promised (never below the "
        "certified ones)",
    )


class TelemetrySettings(Table):
    """What traces and logs contain; see the telemetry page for spans and metrics."""

    enabled: bool = Field(default=True, description="whether spans and metrics are recorded")
    content: bool | None = Field(
        default=None,
        description="query and documents on spans; None: as the GenAI environment variable says",
    )
    max_documents: Positive = Field(
        default=10, description="documents on a span: of the input, and of the output"
    )
    max_chars: Positive = Field(default=2000, description="characters of a text on a span")
    slow_ms: Annotated[float, Field(ge=0.0)] | None = Field(
        default=None, description="log requests that take this long, without text; None: never"
    )


class GuardSettings(Table):
    """What happens when reranking starts to hurt; the table turns the guard on."""

    do_no_harm: bool = Field(
        default=True, description="act on harm; false only watches, logs and measures"
    )
    snapshot: LocalPath | None = Field(
        default=None,
        description="what requests should look like, from `rerank-plugins drift snapshot`; "
        "None: the first `learn` requests",
    )
    action: Action = Field(
        default="first_stage",
        description="what is done on harm: answer in first-stage order, raise the prior's weight, "
        "let every candidate pass all exits, or serve by the fallback stages",
    )
    prior_weight: Share = Field(default=0.7, description='the weight that "raise_prior" raises to')
    window: Annotated[int, Field(ge=20)] = Field(
        default=100, description="requests judged together"
    )
    learn: Annotated[int, Field(ge=50)] = Field(
        default=300, description="requests that make a snapshot, where none is given"
    )
    patience: Positive = Field(
        default=2, description="harmful windows in a row before the guard acts"
    )
    relief: Positive = Field(
        default=3, description="harmless windows in a row before the guard stops acting"
    )
    alpha: Annotated[float, Field(gt=0.0, le=0.1)] = Field(
        default=0.005, description="chance of an alarm in a window without drift"
    )
    probe_every: Positive = Field(
        default=10,
        description="while the model is not used, a request in this many is still scored",
    )
    control_share: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        default=0.0, description="requests answered in first-stage order, to compare feedback with"
    )
    null_every: Count = Field(
        default=4,
        description="for a request in this many, a passage of an earlier request is scored too, "
        "after the answer and never where text is sent; up to 32 passages are kept in memory for "
        "that; 0: never, and nothing is kept",
    )
    canary_every: Count = Field(
        default=10,
        description="windows after which the sixteen fixed pairs are scored again, by idle workers "
        "and never where text is sent; 0: only at warm-up",
    )
    log: LocalPath | None = Field(
        default=None, description="JSON lines of numbers, per request and window; None: none"
    )


class Settings(Table):
    """A whole configuration; every table may be left out."""

    stages: Annotated[list[StageSettings], Field(min_length=1)] = Field(
        default_factory=lambda: [StageSettings()]
    )
    budget: BudgetSettings = BudgetSettings()
    selection: SelectionSettings = SelectionSettings()
    fusion: FusionSettings = FusionSettings()
    service: ServiceSettings = ServiceSettings()
    policy: PolicySettings = PolicySettings()
    exit_audit: ExitAuditSettings = ExitAuditSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    guard: GuardSettings | None = Field(default=None, description="None: nothing is watched")
    strict: bool = Field(default=False, description="raise where a result would be degraded")


def keys_at(place: Iterable[int | str]) -> set[str]:
    """Return the keys that the table at a place in the settings may have."""
    table: type[BaseModel] = Settings
    held: object = None
    for part in place:
        field = table.model_fields.get(str(part))
        if field is not None:
            held = field.annotation
            table = _table_in(held) or table
        elif (tagged := _tagged(held, str(part))) is not None:
            table = _table_in(tagged) or table
    return set(table.model_fields)


def _tagged(annotation: object, tag: str) -> object | None:
    """Return the alternative of a union that has a tag, such as "remote"."""
    parts: tuple[object, ...] = get_args(annotation)
    return next((part for part in parts if Tag(tag) in get_args(part)), None)


def _table_in(annotation: object) -> type[BaseModel] | None:
    """Return the table that a field holds, alone, in a list, or as an alternative."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    tables = map(_table_in, get_args(annotation))
    return next((table for table in tables if table is not None), None)
