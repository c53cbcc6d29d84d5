"""A decoder that is asked about a pair: the logits of two answers, after the pair's last token."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, ModelError
from .. import Floats
from ..models.content import GraphFile
from ..models.files import ModelFiles
from ..models.registry import KNOWN, PROMPTS, Prompt
from ..text.tokenizer import PairArrays
from .session import Provider, open_session, score_columns, score_output

if TYPE_CHECKING:
    import onnxruntime as ort


_KNOWN_INPUTS = frozenset({"input_ids", "attention_mask", "position_ids", "token_type_ids"})
_PAST = "past_key_values."
# Logits of the whole vocabulary for every token: [pairs, length, vocabulary].
_EVERY_TOKEN = 3
# With such an output a micro-batch must stay small: 512 tokens of 150,000 logits are 300 MB.
MOST_BATCH_TOKENS = 512

_DTYPES: Mapping[str, type[np.floating]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


@dataclass(frozen=True, slots=True)
class Decoder:
    """A session that gives the logits of two answers for each pair.

    Pairs are padded at the end: tokens see only what comes before them, so that padding changes
    nothing.

    past: heads, their size and type of the empty key-value caches that the graph asks for
    answers: the token ids of "irrelevant" and "relevant"
    every_token: the output has logits of the whole vocabulary after each token
    """

    session: "ort.InferenceSession"
    inputs: frozenset[str]
    past: Mapping[str, tuple[tuple[int, int], type[np.floating]]]
    output: str
    answers: tuple[int, int]
    every_token: bool
    provider: str

    def run(self, pairs: PairArrays) -> Floats:
        """Run a batch and return float32 [pairs, 2], or the columns of a scoring head."""
        count, length = pairs.input_ids.shape
        feeds: dict[str, NDArray[np.generic]] = {
            "input_ids": pairs.input_ids,
            "attention_mask": pairs.attention_mask,
            "token_type_ids": pairs.token_type_ids,
            "position_ids": np.broadcast_to(np.arange(length, dtype=np.int64), (count, length)),
        }
        feeds = {name: value for name, value in feeds.items() if name in self.inputs}
        for name, ((heads, size), dtype) in self.past.items():
            feeds[name] = np.zeros((count, heads, 0, size), dtype=dtype)
        (logits,) = self.session.run([self.output], feeds)
        if self.every_token:
            last = pairs.attention_mask.sum(axis=1) - 1
            logits = np.asarray(logits)[np.arange(count), last][:, list(self.answers)]
        return score_columns(logits, count)


def prompt_of(
    files: ModelFiles, template: str | None = None, instruction: str | None = None
) -> Prompt | None:
    """Return a model's prompt: by `template`, else by its card, else by its name.

    None for encoders, which take none. Raises `ConfigError` for an unknown template and for an
    instruction to a model that takes none, `ModelError` for a decoder whose prompt is unknown.
    """
    known = KNOWN.get(files.name)
    on_card = files.card.get("prompt")
    name = template or (on_card if isinstance(on_card, str) else None)
    if name is None and known is not None:
        name = known.template
    if name is None:
        if instruction is not None:
            message = (
                f"model {files.name!r} takes no instruction; leave instruction out, or name the "
                f"template it was trained with, one of {', '.join(PROMPTS)}"
            )
            raise ConfigError(message)
        _refuse_decoder(files)
        return None
    if name not in PROMPTS:
        message = f"template {name!r} is unknown; known are {', '.join(PROMPTS)}"
        raise ConfigError(message)
    prompt = PROMPTS[name]
    return prompt if instruction is None else replace(prompt, instruction=instruction)


def open_decoder(
    graph: Path | GraphFile,
    answers: tuple[int, int],
    *,
    provider: Provider = "cpu",
    intra_threads: int = 1,
) -> Decoder:
    """Load a decoder's graph, with or without inputs for a cache. Raises `ModelError`."""
    session = open_session(graph, provider=provider, intra_threads=intra_threads)
    inputs = {value.name: value for value in session.get_inputs()}
    past = {name: value for name, value in inputs.items() if name.startswith(_PAST)}
    foreign = sorted(set(inputs) - set(past) - _KNOWN_INPUTS)
    if "input_ids" not in inputs or foreign:
        message = (
            f"{GraphFile.of(graph).path} takes {sorted(inputs)}; expected input_ids, and at most "
            "attention_mask, position_ids and past_key_values.* beside it. Export the model again "
            "with: rerank-plugins export MODEL OUT_DIR"
        )
        raise ModelError(message)
    axes = {value.name: len(value.shape) for value in session.get_outputs()}
    output = score_output(list(axes))
    return Decoder(
        session,
        frozenset(inputs) & _KNOWN_INPUTS,
        {name: _cache(name, value.shape, value.type) for name, value in past.items()},
        output,
        answers,
        axes[output] == _EVERY_TOKEN,
        session.get_providers()[0],
    )


def _cache(name: str, shape: list[object], dtype: str) -> tuple[tuple[int, int], type[np.floating]]:
    """Return number, size and type of the heads of an input [pairs, heads, tokens, size]."""
    sizes = [shape[1], shape[3]] if len(shape) == 4 else []  # noqa: PLR2004 - as said above
    heads, size = [number for number in sizes if isinstance(number, int)] or (0, 0)
    if not heads or dtype not in _DTYPES:
        message = (
            f"input {name} is {dtype} {shape}; expected floats [pairs, heads, tokens, size] with "
            "fixed heads and size"
        )
        raise ModelError(message)
    return (heads, size), _DTYPES[dtype]


def _refuse_decoder(files: ModelFiles) -> None:
    built = files.config.get("architectures")
    name = str(built[0]) if isinstance(built, list) and built else ""
    if name.endswith("ForCausalLM"):
        message = (
            f"model {files.name!r} is a decoder ({name}) and nothing says how to ask it; give the "
            f"template it was trained with, one of {', '.join(PROMPTS)}"
        )
        raise ModelError(message)
