"""`rerank-plugins serve`: the HTTP server."""

from pathlib import Path
from typing import Annotated

import typer

from ..scoring.models.files import EMBEDDED
from .options import Config, Model, one_of


def serve(
    *,
    config: Config = None,
    model: Model = None,
    host: Annotated[str, typer.Option(metavar="H", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="P", min=1, max=65535)] = 8000,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes; each loads the model.")
    ] = 1,
    tokens_file: Annotated[
        Path | None,
        typer.Option(help="Bearer tokens that may call, one a line; or RERANK_PLUGINS_TOKENS."),
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Requests under way in a process before one gets 429; else the file's, or 256.",
        ),
    ] = None,
) -> None:
    """Serve the routes that Cohere, Jina, vLLM, Infinity and TEI clients speak.

    For example:

        rerank-plugins serve --port 8000

        rerank-plugins serve --config rerank.toml --host 0.0.0.0 --workers 4
    """
    one_of(model, config)
    try:
        from ..serving.http import run
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{error}; the server needs: pip install 'rerank-plugins[server]'"
        ) from error
    run.serve(
        run.ServeOptions(
            host=host,
            port=port,
            workers=workers,
            config=None if config is None else str(config.resolve()),
            model=model or EMBEDDED,
            max_requests=max_requests,
            tokens_file=None if tokens_file is None else str(tokens_file),
        )
    )
