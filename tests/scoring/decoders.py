"""A random Qwen3 decoder of a few kB, with a tokenizer that splits text as Qwen's does."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from numpy.typing import NDArray
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from rerank_plugins.scoring.models.registry import PROMPTS
from tests import tiny

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MAX_TOKENS = 512
# As the model card spells them.
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The folder of a checkpoint, its torch model and its tokenizer."""

    folder: Path
    model: torch.nn.Module
    tokenizer: hf.PreTrainedTokenizerFast

    def pair(
        self, query: str, passage: str, instruction: str = INSTRUCTION, most: int = MAX_TOKENS
    ) -> list[int]:
        """Tokenise a pair as the model card does: the middle in one piece, cut at its end."""
        middle = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {passage}"
        before, ids, after = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (PREFIX, middle, SUFFIX)
        )
        return [*before, *ids[: most - len(before) - len(after)], *after]

    def scores(
        self, query: str, passages: Sequence[str], instruction: str = INSTRUCTION
    ) -> NDArray[np.float32]:
        """Score as the model card does: one batch, padded in front, yes less no."""
        pairs = [self.pair(query, passage, instruction) for passage in passages]
        batch = self.tokenizer.pad({"input_ids": pairs}, padding_side="left", return_tensors="pt")
        no, yes = (self.tokenizer.convert_tokens_to_ids(one) for one in ("no", "yes"))
        with torch.inference_mode():
            last = self.model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits[:, -1]
        return (last[:, yes] - last[:, no]).numpy()


def build(folder: Path) -> Checkpoint:
    """Write a random checkpoint as transformers saves one."""
    tokenizer = _tokenizer()
    torch.manual_seed(3)
    config = hf.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = hf.Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            # Fresh weights give scores that are all but equal; an order needs a spread.
            weight.add_(torch.randn_like(weight) * 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Checkpoint(folder, model, tokenizer)


class _WithCache(torch.nn.Module):
    """A decoder as text generation exports it: positions and a cache in, every logit out."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        *past: torch.Tensor,
    ) -> torch.Tensor:
        """Give logits [pairs, length, vocabulary]."""
        cache = hf.DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        return self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
        ).logits


def export_for_generation(checkpoint: Checkpoint, path: Path) -> None:
    """Write the graph that a generation export gives, in the hub's layout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = torch.randint(5, 40, (2, 9))
    past = [torch.zeros(2, 2, 3, 8) for _ in range(4)]
    names = [f"past_key_values.{layer}.{kind}" for layer in range(2) for kind in ("key", "value")]
    inputs = ["input_ids", "attention_mask", "position_ids", *names]
    mask = torch.ones(2, 12, dtype=torch.long)
    places = torch.arange(3, 12).expand(2, 9)
    axes = {name: {0: "pairs", 1: "length"} for name in inputs[:3]}
    axes["attention_mask"] = {0: "pairs", 1: "all"}
    axes |= {name: {0: "pairs", 2: "past"} for name in names}
    checkpoint.model.set_attn_implementation("eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _WithCache(checkpoint.model).eval(),
            (ids, mask, places, *past),
            str(path),
            input_names=inputs,
            output_names=["logits"],
            dynamic_axes=axes | {"logits": {0: "pairs", 1: "length"}},
            opset_version=17,
            dynamo=False,
        )


def _tokenizer() -> hf.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = [
        part
        for prompt in PROMPTS.values()
        for part in (*prompt.before, *prompt.instruction_parts, *prompt.after)
    ]
    tokenizer.train_from_iterator([*tiny.passages(50), *["yes\nno\n"] * 50, *prompts], trainer)
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in special])
    tokenizer.add_tokens([AddedToken(one, special=False) for one in ("<think>", "</think>")])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", model_max_length=131072
    )
