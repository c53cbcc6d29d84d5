"""How an ONNX model is run, checked against what its files say it can take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...errors import ConfigError, ModelError
from ...rules.windows import Fold
from ..models.content import fingerprint
from ..models.files import ModelFiles
from ..text.pairs import MIN_WINDOW_TOKENS, LongPassages, Windowing
from ..text.tokenizer import first_chars
from .decoder import prompt_of
from .session import Provider, relevant_column

# RoBERTa and its relatives do not use the position table's rows up to the padding index.
_OFFSET_FAMILIES = frozenset(
    {
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "camembert",
        "mpnet",
        "longformer",
        "data2vec-text",
    }
)

_FALLBACK_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """How a model is run.

    max_tokens: the most tokens of a pair; None: what the model can take
    long: what happens to passages that do not fit
    fold: how the scores of windows become one
    window_tokens: tokens of the passage in each window after the first, which has all that fit;
        None: as the model's card says, else all that fit
    max_windows: of a passage; None: as many as reach as far as 8 of all that fit
    max_batch_tokens: padded tokens of a batch; None: measured at warm-up
    score_cache_bytes: memory for scores of pairs seen before; 0: none
    score_column: the output column that counts, of a head with more than two
    rewrite: allow rewrites of the graph that are proved to change no score
    graph_cache: keep rewritten graphs and what was measured on disk for the next process
    workers: threads that compute; None: one per usable core
    template: how a decoder is asked; None: as its card or the registry says
    instruction: what a decoder is to look for
    """

    max_tokens: int | None = None
    long: LongPassages = "window"
    fold: Fold = "max"
    window_tokens: int | None = None
    window_overlap: float = 0.5
    max_windows: int | None = None
    provider: Provider = "cpu"
    intra_threads: int = 1
    max_batch_tokens: int | None = None
    token_cache_bytes: int = 64 * 2**20
    score_cache_bytes: int = 0
    score_column: int | None = None
    rewrite: bool = True
    graph_cache: bool = True
    workers: int | None = None
    template: str | None = None
    instruction: str | None = None

    def most_chars(self, max_tokens: int) -> int:
        """Return about how far into a passage is read, for pairs of at most `max_tokens`."""
        return first_chars(self.windowing.most_tokens(max_tokens))

    @property
    def windowing(self) -> Windowing:
        """What happens to passages that do not fit."""
        # FirstP reads the first window alone; the rest is cut, and reported as cut.
        limit = 1 if self.fold == "first" else self.max_windows
        return Windowing(self.long, self.window_overlap, limit, self.window_tokens)


def usable_tokens(files: ModelFiles) -> int:
    """Return the most tokens of a pair: the least of position table, tokenizer limit and card.

    A tokenizer limit beyond 10^6 means "none".
    """
    limits: list[int] = []
    positions = files.config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        offset = 0
        if files.config.get("model_type") in _OFFSET_FAMILIES:
            padding = files.config.get("pad_token_id")
            offset = (padding if isinstance(padding, int) else 1) + 1
        limits.append(positions - offset)
    for source, key in ((files.tokenizer_config, "model_max_length"), (files.card, "max_tokens")):
        value = source.get(key)
        if isinstance(value, int) and 0 < value < 10**6:
            limits.append(value)
    return min(limits) if limits else _FALLBACK_MAX_TOKENS


def checked(options: OnnxOptions, files: ModelFiles) -> OnnxOptions:
    """Return options with the card's window if none is given.

    Raises `ConfigError` for options that the model cannot follow.
    """
    limit = usable_tokens(files)
    if options.max_tokens is not None and not MIN_WINDOW_TOKENS <= options.max_tokens <= limit:
        message = (
            f"max_tokens is {options.max_tokens}; model {files.name!r} takes "
            f"{MIN_WINDOW_TOKENS} to {limit} tokens a pair"
        )
        raise ConfigError(message)
    counts = {
        "max_batch_tokens": (options.max_batch_tokens, 1),
        "max_windows": (options.max_windows, 1),
        "window_tokens": (options.window_tokens, MIN_WINDOW_TOKENS),
        "intra_threads": (options.intra_threads, 0),
        "score_cache_bytes": (options.score_cache_bytes, 0),
    }
    for name, (value, least) in counts.items():
        if value is not None and value < least:
            raise ConfigError(f"{name} is {value}; expected at least {least}")
    return replace(options, window_tokens=options.window_tokens or _card_window(files))


def _card_window(files: ModelFiles) -> int | None:
    """Return the best size of windows by a model's card, in tokens of the passage."""
    value = files.card.get("window_tokens")
    return value if isinstance(value, int) and value >= MIN_WINDOW_TOKENS else None


def score_column(options: OnnxOptions, files: ModelFiles) -> int | None:
    """Return the output column that counts: the caller's, else the card's."""
    if options.score_column is not None:
        return options.score_column
    column = files.card.get("score_column")
    return column if isinstance(column, int) else None


def labels(files: ModelFiles) -> tuple[str, ...]:
    """Return what the model's configuration calls its output columns, () where it does not say."""
    names = files.config.get("id2label")
    if not isinstance(names, Mapping):
        return ()
    return tuple(str(names[key]) for key in map(str, range(len(names))) if key in names)


def identity(options: OnnxOptions, files: ModelFiles) -> str:
    """Hash everything that decides a score: the files and the options that change it."""
    facts = [files.graph_file.sha256(), files.tokenizer_sha256()]
    column, named = score_column(options, files), labels(files)
    facts += [repr(column)]
    # Scores by the first of two columns must not meet scores by the second.
    facts += ["first column"] if column is None and _first_counts(named, files.name) else []
    facts += [repr(options.max_tokens or usable_tokens(files)), options.fold]
    facts += [repr(options.windowing)]
    facts += [repr(prompt_of(files, options.template, options.instruction)), repr(files.int8)]
    return fingerprint(facts)


def _first_counts(named: Sequence[str], model: str) -> bool:
    try:
        return relevant_column(named, model) == 0
    except ModelError:
        return False
