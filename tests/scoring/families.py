"""Random checkpoints of the cross-encoder families, as their publishers would ship them.

Each is built by transformers, saved as a Hugging Face folder with a tokenizer of its family's kind,
and exported to ONNX by torch. Everything is tiny and seeded.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tests import tiny

VOCABULARY = 300
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SHAPE = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@dataclass(frozen=True, slots=True)
class Family:
    """One family: its classes, what its configuration adds, its tokenizer, its usable length."""

    name: str
    config: type
    model: type
    tokenizer: str
    usable_tokens: int
    more: Mapping[str, object] = field(default_factory=dict)
    inputs: tuple[str, ...] = INPUTS
    labels: int = 1
    dynamo: bool = False


DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "max_position_embeddings": 64,
    "max_relative_positions": -1,
    "pooler_hidden_size": 24,
    "pad_token_id": 0,
}
FAMILIES = (
    Family(
        "bert",
        hf.BertConfig,
        hf.BertForSequenceClassification,
        "wordpiece",
        64,
        {"max_position_embeddings": 64},
    ),
    Family(
        "bert-two-columns",
        hf.BertConfig,
        hf.BertForSequenceClassification,
        "wordpiece",
        64,
        {"max_position_embeddings": 64},
        labels=2,
    ),
    Family(
        "electra",
        hf.ElectraConfig,
        hf.ElectraForSequenceClassification,
        "wordpiece",
        64,
        {"max_position_embeddings": 64, "embedding_size": 8},
    ),
    Family(
        "roberta",
        hf.RobertaConfig,
        hf.RobertaForSequenceClassification,
        "bytes",
        64,
        {"max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1},
        INPUTS[:2],
    ),
    Family(
        "xlm-roberta",
        hf.XLMRobertaConfig,
        hf.XLMRobertaForSequenceClassification,
        "unigram",
        64,
        {"max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1},
        INPUTS[:2],
    ),
    Family(
        "xlm-roberta-two-columns",
        hf.XLMRobertaConfig,
        hf.XLMRobertaForSequenceClassification,
        "unigram",
        64,
        {"max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1},
        INPUTS[:2],
        labels=2,
    ),
    Family(
        "deberta-v2",
        hf.DebertaV2Config,
        hf.DebertaV2ForSequenceClassification,
        "unigram-typed",
        64,
        {**DEBERTA, "type_vocab_size": 2, "conv_kernel_size": 3, "conv_act": "gelu"},
    ),
    Family(
        "deberta-v3",
        hf.DebertaV2Config,
        hf.DebertaV2ForSequenceClassification,
        "unigram-typed",
        64,
        {
            **DEBERTA,
            "type_vocab_size": 0,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        },
        INPUTS[:2],
    ),
    Family(
        "modernbert",
        hf.ModernBertConfig,
        hf.ModernBertForSequenceClassification,
        "bytes-bracketed",
        96,
        {
            "max_position_embeddings": 96,
            "local_attention": 16,
            "pad_token_id": 0,
            "cls_token_id": 2,
            "bos_token_id": 2,
            "sep_token_id": 3,
            "eos_token_id": 3,
        },
        INPUTS[:2],
        dynamo=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder and the torch model it was exported from."""

    family: Family
    folder: Path
    model: torch.nn.Module
    tokenizer: hf.PreTrainedTokenizerFast

    def logits(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """Score pairs as transformers does, in one padded batch, passages cut at the end."""
        batch = self.tokenizer(
            [query] * len(passages),
            list(passages),
            padding=True,
            truncation="only_second",
            max_length=self.family.usable_tokens,
            return_tensors="pt",
        )
        with torch.inference_mode():
            columns = self.model(**{name: batch[name] for name in self.family.inputs}).logits
        if self.family.labels == 2:
            return (columns[:, 1] - columns[:, 0]).numpy()
        return columns[:, 0].numpy()


def build(family: Family, folder: Path, *, graph: str = "onnx/model.onnx") -> Checkpoint:
    """Make a random checkpoint of a family, its folder and its graph."""
    torch.manual_seed(sum(map(ord, family.name)))
    config = family.config(vocab_size=VOCABULARY, num_labels=family.labels, **SHAPE, **family.more)
    model = family.model(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            # Fresh weights give scores that are all but equal; an order needs a spread.
            weight.add_(torch.randn_like(weight) * 0.3)
    model.set_attn_implementation("eager")
    model.save_pretrained(folder)
    tokenizer = _tokenizer(family)
    tokenizer.save_pretrained(folder)
    path = folder / graph
    path.parent.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(family, model, path)
    return Checkpoint(family, folder, model, tokenizer)


class _Logits(torch.nn.Module):
    """A model as a function of positional inputs, which both of torch's exporters take."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Give the logits, [batch, columns]."""
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def export(family: Family, model: torch.nn.Module, path: Path) -> None:
    """Write a model's graph with dynamic batch and length."""
    ids, mask = torch.randint(5, 40, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    inputs = (ids, mask, torch.zeros_like(ids))[: len(family.inputs)]
    if family.dynamo:
        any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        shapes = {"dynamic_shapes": [tuple(any_size for _ in inputs)], "external_data": False}
    else:
        axes = {name: {0: "batch", 1: "length"} for name in family.inputs}
        shapes = {"dynamic_axes": axes | {"logits": {0: "batch"}}, "opset_version": 17}
    torch.onnx.export(
        # Exporters put the mode back: of the wrapper, and with it of the model.
        _Logits(model, family.inputs).eval(),
        inputs,
        str(path),
        input_names=list(family.inputs),
        output_names=["logits"],
        dynamo=family.dynamo,
        **shapes,
    )


def _tokenizer(family: Family) -> hf.PreTrainedTokenizerFast:
    make = {
        "wordpiece": _wordpiece,
        "bytes": lambda: _bytes(("<s>", "<pad>", "</s>", "<unk>", "<mask>"), doubled=True),
        "bytes-bracketed": lambda: _bytes(tiny.SPECIAL, doubled=False),
        "unigram": lambda: _unigram(("<s>", "<pad>", "</s>", "<unk>", "<mask>"), typed=False),
        "unigram-typed": lambda: _unigram(tiny.SPECIAL, typed=True),
    }[family.tokenizer]
    made = make()
    pad = "<pad>" if made.token_to_id("<pad>") is not None else "[PAD]"
    assert made.token_to_id(pad) == family.more.get("pad_token_id", 0)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=pad,
        model_max_length=family.usable_tokens,
        model_input_names=list(INPUTS),
    )


def _wordpiece() -> Tokenizer:
    return Tokenizer.from_str(tiny.tokenizer().to_str())


def _pair(first: str, last: str, *, doubled: bool, typed: bool) -> processors.TemplateProcessing:
    kind = ":1" if typed else ""
    between = f"{last} {last}" if doubled else last
    return {
        "single": f"{first} $A {last}",
        "pair": f"{first} $A {between} $B{kind} {last}{kind}",
    }


def _bytes(special: Sequence[str], *, doubled: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tiny.passages(50), trainer)
    return _finish(tokenizer, special, doubled=doubled, typed=False)


def _unigram(special: Sequence[str], *, typed: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    unknown = special[3] if "<unk>" in special else special[1]
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=list(special), unk_token=unknown, show_progress=False
    )
    tokenizer.train_from_iterator(tiny.passages(200), trainer)
    return _finish(tokenizer, special, doubled=not typed, typed=typed)


def _finish(
    tokenizer: Tokenizer, special: Sequence[str], *, doubled: bool, typed: bool
) -> Tokenizer:
    first, last = ("<s>", "</s>") if "<s>" in special else ("[CLS]", "[SEP]")
    ids = [(name, tokenizer.token_to_id(name)) for name in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(
        **_pair(first, last, doubled=doubled, typed=typed), special_tokens=ids
    )
    return tokenizer
