"""Write docs/embedded-model.md from card.json, so that the page can say nothing else than the card."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = """# The embedded model

`Reranker()` works offline because a model is inside the package: a cross-encoder of six BERT layers (384 wide) with a head after
layers 2, 4 and 6, int8 weights, {megabytes:.1f} MB, English. This page is generated from the model's card (`card.json`, beside the
model) by `python -m training.page`; every number was measured by `training/`, and the bad ones are here too.

## How good it is

nDCG@10 (linear gain, as trec_eval) when it reorders BM25's top 100, passages cut at {cap} tokens, at most {most} queries per set
drawn with a fixed seed. **default** is what `Reranker()` does: (1 - w) z(score) + w z(first-stage score) with w = {weight},
z over the request's candidates. *cosine* is the starting encoder's own ranking, *cosine + BM25* the same fusion of it, for comparison.

| set | queries | BM25 | cosine | cosine + BM25 | exit 2 | exit 4 | last layer | **default** | default - BM25, 95 % |
|---|---|---|---|---|---|---|---|---|---|
"""


def _row(name: str, row: dict[str, Any]) -> str:
    keys = ("bm25", "encoder_cosine", "cosine_fused", "exit_2", "exit_4", "final")
    cells = " | ".join(f"{row[key]:.3f}" for key in keys)
    low, high = row.get("fused_minus_bm25_95", (None, None))
    interval = "" if low is None else f"{low:+.3f} to {high:+.3f}"
    return f"| {name} | {row.get('queries', '')} | {cells} | **{row['fused']:.3f}** | {interval} |"


def page(card: dict[str, Any], megabytes: float) -> str:
    """Return the page."""
    table, means = card["measures"], card["means"]
    most = max(row["queries"] for row in table.values())
    parts = [
        HEAD.format(
            megabytes=megabytes,
            cap=card["measured_tokens"],
            most=most,
            weight=card["fusion"]["prior_weight"],
        ).rstrip()
    ]
    parts += [_row(name, row) for name, row in table.items()]
    parts += [_row("**mean**", means), "", f"Verdict: {card['verdict']}", ""]
    parts += _fusion(card) + _exits(card) + _probability(card) + _probes(card) + _origin(card)
    return "\n".join(parts) + "\n"


def _fusion(card: dict[str, Any]) -> list[str]:
    fusion = card["fusion"]
    weights = fusion["mean_by_weight"]
    return [
        "## Fusion with the first stage", "",
        f"`{fusion['rule']}`. The weight was chosen on all sets together as the best mean that costs no set more than .01 against",
        f"BM25; chosen without each set in turn, the left-out sets reach {fusion['left_one_set_out']['mean']:.3f} on average.",
        f"Worst set against BM25: {fusion['worst_against_bm25']:+.3f}.", "",
        "| w | " + " | ".join(weights) + " |", "|---" * (len(weights) + 1) + "|",
        "| mean | " + " | ".join(f"{value:.3f}" for value in weights.values()) + " |", "",
    ]  # fmt: skip


def _exits(card: dict[str, Any]) -> list[str]:
    means, rank = card["means"], card["spearman_to_final"]
    return [
        "## Exits", "",
        "| | exit 2 | exit 4 | last layer |", "|---|---|---|---|",
        f"| mean nDCG@10 alone | {means['exit_2']:.3f} | {means['exit_4']:.3f} | {means['final']:.3f} |",
        f"| mean nDCG@10 fused | {means['fused_exit_2']:.3f} | {means['fused_exit_4']:.3f} | {means['fused']:.3f} |",
        f"| Spearman with the last layer, within queries | {rank['exit_2']:.2f} | {rank['exit_4']:.2f} | 1 |", "",
        f"int8 against fp32 weights, same queries (per set {card['same_queries']}): {means['final_int8']:.4f} against {means['final_fp32']:.4f}.", "",
    ]  # fmt: skip


def _probability(card: dict[str, Any]) -> list[str]:
    cal = card["calibration"]
    rows = [
        f"| {name} | {cal[name]['a']} | {cal[name]['b']} | {cal[name]['ece_before']:.3f} | {cal[name]['ece_after']:.3f} |"
        for name in ("exit_2", "exit_4", "final")
    ]
    judged = [
        f"| {name} | {row['mean_probability']:.3f} | {row['share_relevant']:.3f} | {row['ece']:.3f} |"
        for name, row in cal["judged_sets"].items()
    ]
    return [
        "## Probability", "", f"`{cal['formula']}`, from {cal['pairs']}.", "",
        "| exit | a | b | error before | after |", "|---|---|---|---|---|", *rows, "",
        "On the judged sets the same parameters are off: whether a passage counts as relevant differs from collection to collection.",
        "Fit your own with `rerank-plugins calibrate` before thresholds matter.", "",
        "| set | mean probability | share judged relevant | error |", "|---|---|---|---|", *judged, "",
    ]  # fmt: skip


def _probes(card: dict[str, Any]) -> list[str]:
    found = card["probes"]
    traps = ", ".join(f"{trap} {count}" for trap, count in found["passed_by_trap"].items())
    failed = "; ".join(f"“{query}”" for query in found["failed"])
    return [
        "## Hand-written cases and where it fails", "",
        f"{found['passed']['final']} of {found['cases']} (exit 2: {found['passed']['exit_2']}, exit 4: {found['passed']['exit_4']}): {traps}.",
        f"Failed: {failed or 'none'}.", "",
        *[f"* {line}" for line in card["failures"]], "",
    ]  # fmt: skip


def _origin(card: dict[str, Any]) -> list[str]:
    start = card["starting_weights"]
    return [
        "## Where it comes from", "",
        f"* Licence of the weights: {card['licence']}. Starting weights: {start['name']} ({start['licence']}). {start['own_data']}.",
        *[f"* Teacher: {t['name']} ({t['licence']})." for t in card["teachers"]],
        *[f"* Text: {t['name']} ({t['licence']})." for t in card["training_text"]],
        f"* Inputs `{'`, `'.join(card['inputs'])}`, at most {card['max_tokens']} tokens (trained at up to {card['trained_tokens']}); behind that passages are read in windows of {card['window_tokens']}; outputs `{'`, `'.join(card['outputs'])}`.", "",
    ]  # fmt: skip


def main() -> None:
    """Read the card, write the page."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(card, (folder / "model.onnx").stat().st_size / 1e6), encoding="utf-8")


if __name__ == "__main__":
    main()
