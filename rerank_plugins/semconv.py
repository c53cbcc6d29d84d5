"""Every name that traces and metrics use. The documentation is generated from this table.

A span follows two conventions at once: OpenTelemetry's GenAI conventions (`gen_ai.*`; an operation
`rerank` is proposed there, not yet adopted) and OpenInference (`reranker.*`), which trace viewers
for RAG understand. Our own `rerank.*` adds what neither has.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

SCOPE = "rerank_plugins"
OPERATION = "rerank"
# Key of OpenTelemetry's context: the span of a framework around us is the RERANKER already.
COUNTED = "rerank_plugins.counted"
WhenSet: TypeAlias = Literal["start", "end", "content"]
Instrument: TypeAlias = Literal["counter", "histogram", "gauge"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of spans.

    when: set at the "start", where a sampler can read it, at the "end", or with "content" only
    spans: the spans that have it: root, score, steps, remote
    """

    name: str
    type: str
    when: WhenSet
    meaning: str
    spans: str = "root"


@dataclass(frozen=True, slots=True)
class Metric:
    """An instrument, the attributes of its series, and upper bounds of a histogram's buckets."""

    name: str
    kind: Instrument
    unit: str
    meaning: str
    attributes: tuple[str, ...]
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A kind of span, by its name pattern."""

    name: str
    meaning: str


OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
CANDIDATE_COUNT = "gen_ai.rerank.candidate.count"
TOP_N = "gen_ai.rerank.top_n"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
OI_KIND = "openinference.span.kind"
OI_MODEL = "reranker.model_name"
OI_TOP_K = "reranker.top_k"
OI_QUERY = "reranker.query"
OI_INPUT = "input.value"
OI_INPUTS = "reranker.input_documents"
OI_OUTPUTS = "reranker.output_documents"
CANDIDATES = "rerank.candidates"
STAGES = "rerank.stages"
BUDGET = "rerank.budget_s"
REGIONS = "rerank.policy.regions"
DESTINATIONS = "rerank.destinations"
REQUEST_ID = "rerank.request_id"
OUTCOME = "rerank.outcome"
DEGRADED = "rerank.degraded"
DEPTH = "rerank.depth"
RETURNED = "rerank.returned"
PAIRS = "rerank.pairs"
TOKENS = "rerank.tokens"
TRUNCATED = "rerank.truncated_tokens"
PADDING = "rerank.padding_share"
BATCHES = "rerank.batches"
CACHED_PASSAGES = "rerank.cache.passage_hits"
CACHED_PAIRS = "rerank.cache.pair_hits"
REMOTE_CALLS = "rerank.remote_calls"
BILLED = "rerank.billed_units"
QUEUE_WAIT = "rerank.queue_wait_s"
PREDICTED = "rerank.predicted_s"
DECISIONS = "rerank.decisions"
DOCUMENTS_LEFT_OUT = "rerank.documents_left_out"
HTTP_STATUS = "http.response.status_code"
REMOTE_SPAN = "rerank.remote"
REMOTE_TIMING = "rerank.remote.timing"

# Response headers with the server's own timings: TEI's, Voyage's, and the standard one.
TIMING_HEADERS = (
    "x-total-time",
    "x-queue-time",
    "x-tokenization-time",
    "x-inference-time",
    "x-compute-time",
    "voyage-processing-ms",
    "server-timing",
)

STAGE = "rerank.stage"
STEP = "rerank.step"
STAGE_CANDIDATES = "rerank.stage.candidates"
STAGE_SCORED = "rerank.stage.scored"
CANDIDATES_BUCKET = "rerank.candidates.bucket"
TOKENS_BUCKET = "rerank.tokens.bucket"
CODE = "rerank.decision"
CACHE = "rerank.cache"
DESTINATION = "rerank.destination"
DESTINATION_REGIONS = "rerank.destination.regions"
DESTINATION_PROOF = "rerank.destination.proof"
FEATURE = "rerank.drift.feature"
TEST = "rerank.drift.test"

SPANS = (
    Span("rerank {model}", "A request, from its submission to its result."),
    Span("rerank.select", "The choice of the candidates to score."),
    Span("rerank.tokenise", "From texts to token ids, windows and batches, per stage."),
    Span("rerank.score", "All micro-batches of a stage, with their counts instead of a span each."),
    Span(REMOTE_SPAN, "An HTTP call to a remote reranker; the server can continue the trace."),
    Span("rerank.fold", "From window scores to candidate scores, per stage."),
    Span("rerank.fuse", "Merging the stages and the prior into one order."),
)

ATTRIBUTES = (
    Attribute(OPERATION_NAME, "string", "start", "Always `rerank`.", "root, remote"),
    Attribute(
        PROVIDER_NAME, "string", "start", "`rerank_plugins`, or the provider.", "root, remote"
    ),
    Attribute(REQUEST_MODEL, "string", "start", "The stages' models.", "root, remote"),
    Attribute(CANDIDATE_COUNT, "int", "start", "Candidates given."),
    Attribute(TOP_N, "int", "start", "Hits asked for, at most all candidates."),
    Attribute(OI_KIND, "string", "start", "`RERANKER`; `CHAIN` inside a `RERANKER` span."),
    Attribute(OI_MODEL, "string", "start", "The stages' models, in order."),
    Attribute(OI_TOP_K, "int", "start", "Hits asked for, at most all candidates."),
    Attribute(CANDIDATES, "int", "start", "Candidates given.", "root, remote"),
    Attribute(STAGES, "string[]", "start", "The configured stages, in order."),
    Attribute(BUDGET, "double", "start", "Seconds granted, if there is a limit."),
    Attribute(DESTINATIONS, "string[]", "start", "Destinations that remote stages send text to."),
    Attribute(REGIONS, "string[]", "start", "Regions the residency policy allows, if any."),
    Attribute(REQUEST_ID, "string", "end", "The result's `request_id`."),
    Attribute(OUTCOME, "string", "end", "`ok`, `degraded`, `error` or `cancelled`."),
    Attribute(DEGRADED, "boolean", "end", "True if the result is not by all configured stages."),
    Attribute(DEPTH, "int", "end", "Candidates the first stage was given."),
    Attribute(RETURNED, "int", "end", "Hits returned."),
    Attribute(PAIRS, "int", "end", "Model inputs computed.", "root, score"),
    Attribute(TOKENS, "int", "end", "Real tokens computed.", "root, score"),
    Attribute(INPUT_TOKENS, "int", "end", "The same, under the name of the conventions."),
    Attribute(TRUNCATED, "int", "end", "Tokens the model did not read.", "root, score"),
    Attribute(PADDING, "double", "end", "Share of padding in all tokens.", "root, score"),
    Attribute(BATCHES, "int", "end", "Micro-batches computed.", "root, score"),
    Attribute(
        CACHED_PASSAGES, "int", "end", "Passages whose token ids were cached.", "root, score"
    ),
    Attribute(CACHED_PAIRS, "int", "end", "Pairs whose score was cached.", "root, score"),
    Attribute(REMOTE_CALLS, "int", "end", "Calls to remote destinations.", "root, score"),
    Attribute(BILLED, "double", "end", "Units billed by destinations.", "root, score"),
    Attribute(QUEUE_WAIT, "double", "end", "Seconds until a worker started the request."),
    Attribute(PREDICTED, "double", "end", "Seconds predicted for the stages, if planned."),
    Attribute(DECISIONS, "string[]", "end", "Every decision as `step:code:count`."),
    Attribute(
        ERROR_TYPE, "string", "end", "Class of the error that ended it, if any.", "root, score"
    ),
    Attribute(SERVER_ADDRESS, "string", "start", "The host that was called.", "remote"),
    Attribute(SERVER_PORT, "int", "start", "Its port, if not the standard one.", "remote"),
    Attribute(DESTINATION, "string", "start", "Scheme, host and port of the call.", "remote"),
    Attribute(DESTINATION_REGIONS, "string[]", "start", "Its regions, if known.", "remote"),
    Attribute(
        DESTINATION_PROOF, "string", "start", "How known: `url`, `attested`, `unknown`.", "remote"
    ),
    Attribute(HTTP_STATUS, "int", "end", "Status of the response.", "remote"),
    Attribute(REMOTE_TIMING, "string", "end", "`.{header}`: the server's own timings.", "remote"),
    Attribute(STAGE, "string", "end", "The stage's model.", "steps"),
    Attribute(STAGE_CANDIDATES, "int", "end", "Candidates the stage was given.", "score"),
    Attribute(STAGE_SCORED, "int", "end", "Candidates the stage scored.", "score"),
    Attribute(OI_QUERY, "string", "content", "The query."),
    Attribute(OI_INPUT, "string", "content", "The query."),
    Attribute(
        OI_INPUTS, "string, double", "content", "`.{i}.document.id|content|score`, candidates."
    ),
    Attribute(OI_OUTPUTS, "string, double", "content", "The same, hits returned."),
    Attribute(DOCUMENTS_LEFT_OUT, "int", "content", "Documents over the limit of either list."),
)

SECONDS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05),
    *(0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0),
)

_STEP_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_SHARES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
_BATCH_TOKENS = (16.0, 32.0, 64.0, 128.0, 256.0, 384.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)

DURATION = Metric(
    "rerank.request.duration",
    "histogram",
    "s",
    "Time from submission to result.",
    (REQUEST_MODEL, OUTCOME, CANDIDATES_BUCKET, TOKENS_BUCKET, ERROR_TYPE),
    SECONDS,
)
STEP_DURATION = Metric(
    "rerank.step.duration",
    "histogram",
    "s",
    "Time of a step of a request, with the stage if it belongs to a stage.",
    (STEP, STAGE),
    _STEP_SECONDS,
)
QUEUE_DURATION = Metric(
    "rerank.queue.wait",
    "histogram",
    "s",
    "Time until a worker started the request.",
    (REQUEST_MODEL,),
    _STEP_SECONDS,
)
BATCH_TOKENS = Metric(
    "rerank.batch.tokens",
    "histogram",
    "{token}",
    "Tokens of a micro-batch with padding: the mean over a stage of a request.",
    (STAGE,),
    _BATCH_TOKENS,
)
BATCH_PADDING = Metric(
    "rerank.batch.padding",
    "histogram",
    "1",
    "Share of padding in a stage's tokens, in [0, 1].",
    (STAGE,),
    _SHARES,
)
PAIR_COUNT = Metric("rerank.pairs", "counter", "{pair}", "Model inputs computed.", (STAGE,))
TOKEN_COUNT = Metric("rerank.tokens", "counter", "{token}", "Real tokens computed.", (STAGE,))
TRUNCATED_COUNT = Metric(
    "rerank.truncated_tokens", "counter", "{token}", "Tokens the model did not read.", (STAGE,)
)
CACHE_HITS = Metric(
    "rerank.cache.hits",
    "counter",
    "{hit}",
    "Passages (`tokens`) or pairs (`scores`) found in a cache.",
    (CACHE, STAGE),
)
EXITS = Metric(
    "rerank.exits",
    "counter",
    "{candidate}",
    "Candidates that a stage scored and no later stage was given.",
    (STAGE,),
)
DECISION_COUNT = Metric(
    "rerank.decisions",
    "counter",
    "{candidate}",
    "Candidates that a decision affected, by its code: fallbacks, deadlines, cuts, truncations.",
    (CODE,),
)
FAILURES = Metric(
    "rerank.stage.failures",
    "counter",
    "{failure}",
    "Stages that failed; their candidates keep the order they came in.",
    (STAGE, ERROR_TYPE),
)
BUDGET_MISSES = Metric(
    "rerank.budget.misses",
    "counter",
    "{request}",
    "Requests that ended after their budget, or left candidates unscored because of it.",
    (REQUEST_MODEL,),
)
PREDICTION_RATIO = Metric(
    "rerank.budget.prediction_ratio",
    "histogram",
    "1",
    "Time that a plan predicted for its stages, divided by the time they took.",
    (REQUEST_MODEL,),
    (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.5, 2.0, 4.0),
)
AGREEMENT = Metric(
    "rerank.first_stage.agreement",
    "histogram",
    "1",
    "Share in [0, 1] of the first 10 hits that were in the first stage's first 10. It moves when "
    "queries, passages or scores drift.",
    (REQUEST_MODEL,),
    (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
TOP_PROBABILITY = Metric(
    "rerank.top.probability",
    "histogram",
    "1",
    "Calibrated probability of the first hit. It moves when queries, passages or scores drift.",
    (REQUEST_MODEL,),
    (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
)
AUDIT_LOSS = Metric(
    "rerank.exit_audit.loss",
    "histogram",
    "1",
    "What an audited request lost by early exit, compared with the full model.",
    (REQUEST_MODEL,),
    (0.0, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0),
)
AUDIT_CARE = Metric(
    "rerank.exit_audit.care",
    "gauge",
    "1",
    "Factor on the margins of exits, set by audits: 1 as certified; larger exits later.",
    (REQUEST_MODEL,),
)
BREAKER = Metric(
    "rerank.breaker.state",
    "gauge",
    "{state}",
    "0: closed; 1: half-open, a probe decides; 2: open, nothing is sent. Set by each request.",
    (DESTINATION,),
)
FALLBACK = Metric(
    "rerank.fallback.state",
    "gauge",
    "{state}",
    "0: the regular stages answer; 1: a fallback does; 2: nothing is scored, and the first-stage "
    "order is returned. Set by each request.",
    (REQUEST_MODEL,),
)
GUARD_STATE = Metric(
    "rerank.guard.state",
    "gauge",
    "{state}",
    "0: requests look as before; 1: they changed; 2: reranking hurts.",
    (REQUEST_MODEL,),
)
GUARD_ACTING = Metric(
    "rerank.guard.acting",
    "gauge",
    "{state}",
    "1 while the guard changes how requests are served.",
    (REQUEST_MODEL,),
)
DRIFT = Metric(
    "rerank.drift",
    "gauge",
    "1",
    "Distance of the last window from the snapshot, divided by the critical value of the test: "
    "above 1 it is significant. By feature and test (`ks`, `psi`, `mean`; `canaries` for the fixed "
    "pairs).",
    (FEATURE, TEST),
)
DRIFT_SHIFT = Metric(
    "rerank.drift.shift",
    "gauge",
    "1",
    "Change of a feature's mean in the last window, in standard deviations of the snapshot.",
    (FEATURE,),
)
FEEDBACK = Metric(
    "rerank.feedback",
    "histogram",
    "1",
    "Scores that an evaluator gave to answers, through `feedback`.",
    (REQUEST_MODEL,),
    (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)

METRICS = tuple(value for value in globals().values() if isinstance(value, Metric))
"""All of them, in the order of this file."""
