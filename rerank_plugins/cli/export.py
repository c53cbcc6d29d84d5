"""`rerank-plugins export`: a checkpoint becomes a folder that the engine opens."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..export import STEPS, Exported, Exporter
from ..export import export as write
from . import console
from .options import Json


def export(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A hub id or a folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="A folder not there yet.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write int8 kernels; their scores differ.")
    ] = False,
    exporter: Annotated[
        Exporter, typer.Option("--exporter", help="Which library writes the graph.")
    ] = "transformers",
    template: Annotated[
        str | None, typer.Option("--template", help="How a decoder is asked, if not known.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit on the hub.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a checkpoint to ONNX and compare the graph's scores with torch on real pairs.

    For example:

        rerank-plugins export cross-encoder/ms-marco-MiniLM-L6-v2 ./minilm

        rerank-plugins export ./my-checkpoint ./my-onnx --int8
    """
    with console.progress("exporting", len(STEPS)) as advance:
        made = write(
            model,
            out,
            exporter=exporter,
            int8=int8,
            template=template,
            revision=revision,
            progress=lambda _: advance(),
        )
    if as_json:
        console.print_json(made)
    else:
        console.stdout().print(_table(made))


def _table(made: Exported) -> Table:
    table = Table(title=f"{made.folder}, written by {made.exporter}")
    for name in ("graph", "pairs", "difference / spread", "same order as torch"):
        table.add_column(name)
    for name, parity in (("fp32", made.parity), ("int8", made.int8_parity)):
        if parity is not None:
            order = "yes" if parity.same_order else "no"
            table.add_row(name, str(parity.pairs), f"{parity.difference:.1e}", order)
    return table
