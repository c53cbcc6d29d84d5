"""`rerank-plugins export`: a checkpoint becomes a folder that the engine, or Triton, opens."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..errors import ConfigError
from ..scoring.export.export import STEPS, Exported, Exporter
from ..scoring.export.export import export as write
from ..scoring.export.triton import Repository, repository
from ..scoring.models.hub import Hub
from . import console
from .options import Json, whole_numbers

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A hub id or a folder.")]
OutArgument = Annotated[
    Path | None, typer.Argument(metavar="[OUT_DIR]", help="A folder not there yet.")
]
Int8 = Annotated[bool, typer.Option("--int8", help="Also write int8 kernels; their scores differ.")]
ExporterOption = Annotated[Exporter, typer.Option(help="Which library writes the graph.")]
ExitLayers = Annotated[
    str | None, typer.Option(metavar="L,L", help="Layers after which it can be left early.")
]
Template = Annotated[str | None, typer.Option(help="How a decoder is asked, if not known.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Triton = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write a Triton model repository; without OUT_DIR, of a model that is ONNX.",
    ),
]


def export(
    *,
    model: ModelArgument,
    out: OutArgument = None,
    int8: Int8 = False,
    exporter: ExporterOption = "transformers",
    exits: ExitLayers = None,
    template: Template = None,
    revision: Revision = None,
    triton: Triton = None,
    as_json: Json = False,
) -> None:
    """Export a checkpoint to ONNX and compare the graph's scores with torch on real pairs.

    For example:

        rerank-plugins export cross-encoder/ms-marco-MiniLM-L6-v2 ./minilm

        rerank-plugins export ./my-checkpoint ./my-onnx --int8

        rerank-plugins export ./my-onnx ./my-exits --exits 2,4

        rerank-plugins export embedded --triton ./models
    """
    if out is None and triton is None:
        raise ConfigError("nothing to write: give OUT_DIR, --triton DIR, or both")
    if out is None and exits is not None:
        raise ConfigError(
            "--exits needs OUT_DIR, the folder that the model with exits is written to"
        )
    made = None
    if out is not None:
        with console.progress("exporting", len(STEPS)) as advance:
            made = write(
                model,
                out,
                exporter=exporter,
                int8=int8,
                template=template,
                revision=revision,
                exits=whole_numbers(exits) or (),
                progress=lambda _: advance(),
            )
    served = None
    if triton is not None:
        served = repository(model if out is None else str(out), triton, hub=Hub(revision))
    _show(made, served, as_json=as_json)


def _show(made: Exported | None, served: Repository | None, *, as_json: bool) -> None:
    if as_json:
        both = {"exported": made, "triton": served}
        console.print_json(made if served is None else served if made is None else both)
        return
    out = console.stdout()
    if made is not None:
        out.print(_table(made))
    if served is not None:
        out.print(f"{served.folder}: model {served.model}; a stage that asks it:")
        stage = ", ".join(f"{name} = {_toml(value)}" for name, value in served.stage.items())
        out.print(f"scorer = {{ {stage} }}", soft_wrap=True, markup=False, highlight=False)


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


def _table(made: Exported) -> Table:
    by = "copied" if made.exporter is None else f"written by {made.exporter}"
    table = Table(title=f"{made.folder}, {by}")
    for name in ("compared", "pairs", "difference / spread", "same order"):
        table.add_column(name)
    rows = (
        ("fp32 with torch", made.parity),
        ("int8 with torch", made.int8_parity),
        ("cut at the exits with whole", made.exits_parity),
    )
    for name, parity in rows:
        if parity is not None:
            order = "yes" if parity.same_order else "no"
            table.add_row(name, str(parity.pairs), f"{parity.difference:.1e}", order)
    return table
