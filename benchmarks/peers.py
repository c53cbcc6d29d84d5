"""How each library is used for reranking, as its own documentation shows it."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Score = Callable[[str, Sequence[str]], Sequence[float]]


def ours(folder: Path, **options: object) -> Score:
    """rerank-plugins, cutting passages as others do; scores come back in the passages' order."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from rerank_plugins import Reranker, load

    workers = options.pop("workers", None)
    model = str(folder / "onnx" / "model.onnx")
    # The others cut what is over 512 tokens, which a passage of 512 may be by one.
    stage = {"scorer": model, "long": "truncate", "token_cache_bytes": 0, **options}
    reranker: Reranker = load({"stages": [stage], "service": {"workers": workers}})
    reranker.warm_up()

    def score(query: str, passages: Sequence[str]) -> Sequence[float]:
        result = reranker.rerank(query, passages)
        score.reading_s = sum(one.seconds for one in result.timings if one.step == "tokenise")
        scores = np.zeros(len(passages))
        for hit in result:
            scores[hit.index] = hit.score
        return scores

    return score


def thread_per_request(folder: Path) -> Score:
    """The same rewritten graph and batches, each request's run one by one in its own thread."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from rerank_plugins.rules.batching import plan
    from rerank_plugins.scoring.models.files import find
    from rerank_plugins.scoring.onnx.options import OnnxOptions
    from rerank_plugins.scoring.onnx.scorer import OnnxScorer
    from rerank_plugins.scoring.onnx.session import single_column
    from rerank_plugins.scoring.text import pairs

    scorer = OnnxScorer(find(folder / "onnx" / "model.onnx"), OnnxOptions(token_cache_bytes=0))
    scorer.warm_up()

    def score(query: str, passages: Sequence[str]) -> Sequence[float]:
        laid, _ = pairs.read(
            scorer.tokenizer,
            query,
            passages,
            room=lambda asked: scorer.tokenizer.room(asked, scorer.max_tokens),
            windowing=scorer.options.windowing,
        )
        batches = plan(laid.lengths, max_batch_tokens=scorer.batch_tokens, max_padding=0.03)
        # Its steps, without its queue.
        logits = [
            single_column(
                scorer.graph.run(
                    scorer.tokenizer.assemble(
                        laid.query, [laid.ids[i] for i in batch.pairs], batch.length_tokens
                    )
                ),
                None,
                scorer.name,
            )
            for batch in batches
        ]
        return pairs.candidate_scores(laid, batches, logits, "max")[0]

    return score


def sentence_transformers(folder: Path, *, backend: str, batch_size: int) -> Score:
    """CrossEncoder.predict; raw logits instead of its sigmoid."""
    import torch
    from sentence_transformers import CrossEncoder

    settings: dict[str, object] = {}
    if backend == "onnx":
        settings = {"file_name": "onnx/model.onnx"}
    if backend.startswith("openvino"):
        settings = {"file_name": "openvino/openvino_model.xml"}
        if backend == "openvino f32":
            # Its default computes in bfloat16 where the CPU can: faster, and other scores.
            settings["ov_config"] = {"INFERENCE_PRECISION_HINT": "f32"}
        backend = "openvino"
        _to_openvino(folder)
    model = CrossEncoder(str(folder), backend=backend, model_kwargs=settings, device="cpu")

    def score(query: str, passages: Sequence[str]) -> Sequence[float]:
        pairs = [(query, passage) for passage in passages]
        return model.predict(pairs, batch_size=batch_size, activation_fn=torch.nn.Identity())

    return score


def transformers(folder: Path, *, batch_size: int = 32) -> Score:
    """The model card's recipe: tokenise with padding, run, read the logits."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    @torch.no_grad()
    def score(query: str, passages: Sequence[str]) -> Sequence[float]:
        scores: list[float] = []
        for start in range(0, len(passages), batch_size):
            part = list(passages[start : start + batch_size])
            batch = tokenizer(
                [query] * len(part), part, padding=True, truncation=True, return_tensors="pt"
            )
            scores += model(**batch).logits[:, 0].tolist()
        return scores

    return score


def plain_onnxruntime(folder: Path) -> Score:
    """The usual recipe: one padded call for all passages, ONNX Runtime's defaults."""
    import onnxruntime as ort
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()
    session = ort.InferenceSession(str(folder / "onnx" / "model.onnx"))

    def score(query: str, passages: Sequence[str]) -> Sequence[float]:
        encoded = tokenizer.encode_batch([(query, passage) for passage in passages])
        feeds = {
            "input_ids": np.array([one.ids for one in encoded]),
            "attention_mask": np.array([one.attention_mask for one in encoded]),
            "token_type_ids": np.array([one.type_ids for one in encoded]),
        }
        return session.run(None, feeds)[0][:, 0]

    return score


def openvino_our_batching(folder: Path) -> Score:
    """OpenVINO's runtime on the exported graph, pairs sorted and batched as we do it."""
    import openvino
    from tokenizers import Tokenizer

    sys.path.insert(0, str(Path(__file__).parent.parent))
    from rerank_plugins.rules.batching import plan

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    core = openvino.Core()
    # Left to itself it computes in bfloat16 where the CPU can: faster, and other scores.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(str(folder / "onnx" / "model.onnx"), "CPU", settings)

    def score(query: str, passages: Sequence[str]) -> Sequence[float]:
        encoded = tokenizer.encode_batch([(query, passage) for passage in passages])
        scores = np.zeros(len(passages))
        for batch in plan([len(one.ids) for one in encoded], max_batch_tokens=512):
            arrays = np.zeros((3, len(batch.pairs), batch.length_tokens), dtype=np.int64)
            for row, i in enumerate(batch.pairs):
                one = encoded[i]
                arrays[:, row, : len(one.ids)] = one.ids, one.attention_mask, one.type_ids
            scores[list(batch.pairs)] = model(list(arrays))[0][:, 0]
        return scores

    return score


def flashrank(folder: Path) -> Score:
    """Ranker.rerank; its sigmoid is undone."""
    from flashrank import Ranker, RerankRequest
    from flashrank.Config import model_file_map

    # It loads by name from a cache folder: our files under a name that it knows.
    name = "ms-marco-MiniLM-L-12-v2"
    home = folder.with_name(f"{folder.name}-flashrank")
    (home / name).mkdir(parents=True, exist_ok=True)
    files = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    for source, target in (
        *((folder / one, home / name / one) for one in files),
        (folder / "onnx" / "model.onnx", home / name / model_file_map[name]),
    ):
        if not target.exists():
            target.symlink_to(source)
    ranker = Ranker(model_name=name, cache_dir=str(home), max_length=512)
    logging.disable()

    def score(query: str, passages: Sequence[str]) -> Sequence[float]:
        request = RerankRequest(query, [{"id": i, "text": p} for i, p in enumerate(passages)])
        scores = np.zeros(len(passages))
        for one in ranker.rerank(request):
            scores[one["id"]] = np.log(one["score"]) - np.log1p(-np.float64(one["score"]))
        return scores

    return score


def fastembed(folder: Path) -> Score:
    """TextCrossEncoder.rerank."""
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    model = TextCrossEncoder("Xenova/ms-marco-MiniLM-L-6-v2", specific_model_path=str(folder))
    return lambda query, passages: list(model.rerank(query, list(passages)))


def infinity(folder: Path) -> Score:
    """AsyncEmbeddingEngine in this process; raw scores.

    Its torch engine: its ONNX engine does not find the graph of a local folder.
    """
    import asyncio

    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    engine = AsyncEmbeddingEngine.from_args(
        EngineArgs(
            model_name_or_path=str(folder),
            engine="torch",
            device="cpu",
            dtype="float32",
            bettertransformer=False,
        )
    )
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.astart())

    def score(query: str, passages: Sequence[str]) -> Sequence[float]:
        answer, _ = loop.run_until_complete(
            engine.rerank(query=query, docs=list(passages), raw_scores=True)
        )
        scores = np.zeros(len(passages))
        for one in answer:
            scores[one.index] = one.relevance_score
        return scores

    return score


def _to_openvino(folder: Path) -> None:
    import openvino

    target = folder / "openvino" / "openvino_model.xml"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        openvino.save_model(
            openvino.convert_model(str(folder / "onnx" / "model.onnx")),
            str(target),
            compress_to_fp16=False,
        )


VARIANTS: dict[str, Callable[[Path], Score]] = {
    "rerank-plugins": ours,
    "rerank-plugins, graph as exported": lambda folder: ours(folder, rewrite=False),
    "rerank-plugins, one worker with all cores": lambda folder: ours(
        folder, workers=1, intra_threads=os.cpu_count()
    ),
    "rerank-plugins' graph, thread per request": thread_per_request,
    "rerank-plugins, warm passage cache": lambda folder: ours(folder, token_cache_bytes=2**26),
    "transformers": transformers,
    **{
        f"sentence-transformers {backend}, batch {size}": (
            lambda folder, backend=backend, size=size: sentence_transformers(
                folder, backend=backend, batch_size=size
            )
        )
        for backend in ("torch", "onnx", "openvino", "openvino f32")
        for size in (32, 8, 4, 1)
    },
    "onnxruntime, one padded call": plain_onnxruntime,
    "openvino, our batching": openvino_our_batching,
    "flashrank": flashrank,
    "fastembed": fastembed,
    "infinity": infinity,
}
