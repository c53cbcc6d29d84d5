"""A tiny real model folder: a BERT of two layers and a tokenizer over the letters a to r."""

import shutil
import string
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from rerank_plugins.scoring.models.files import ModelFiles, find
from tests.scoring.onnx.graph.exported import FOLDER

WORDS = ("badge", "cabbage", "decade", "facade", "hedge", "marble", "noble", "parade", "ridge")


def folder(path: Path, graph: str = "bert-sdpa-script") -> Path:
    """Write a model folder that `find` takes."""
    path.mkdir(parents=True, exist_ok=True)
    shutil.copy(FOLDER / f"{graph}.onnx", path / "model.onnx")
    letters = string.ascii_lowercase[:18]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{one}" for one in letters)]
    vocabulary = {name: place for place, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "config.json").write_text('{"max_position_embeddings": 64}')
    return path


def files(path: Path) -> ModelFiles:
    """Give the files of a tiny model written to `path`."""
    return find(folder(path))


def passages(count: int) -> list[str]:
    """Make distinct passages of one to six words, all within the model's vocabulary."""
    return [" ".join(WORDS[(i * k) % 9] for k in range(1, 2 + i % 6)) for i in range(count)]
