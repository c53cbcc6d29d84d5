"""`rerank-plugins serve`: the HTTP server."""

from pathlib import Path
from types import ModuleType
from typing import Annotated, TypeAlias

import typer

from ..scoring.models.files import EMBEDDED
from .options import Config, Model, one_of

Workers: TypeAlias = Annotated[
    int, typer.Option(metavar="N", min=1, help="Processes; each loads the model.")
]
TokensFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Bearer tokens that may call, one a line; or RERANK_PLUGINS_TOKENS."),
]
Open: TypeAlias = Annotated[
    bool, typer.Option("--open", help="Without tokens, serve everybody who reaches --host.")
]
AllowHost: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A name in the Host header that is this server's."),
]
MaxRequests: TypeAlias = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Requests under way in a process before one gets 429; else the file's, or 256.",
    ),
]
ClientShare: TypeAlias = Annotated[
    float,
    typer.Option(metavar="F", min=0.001, max=1.0, help="Part of these for a single client."),
]
DefaultBudget: TypeAlias = Annotated[
    float,
    typer.Option(metavar="MS", min=1.0, help="Deadline of a large request that names none."),
]
MaxBodyBytes: TypeAlias = Annotated[int, typer.Option(metavar="N", min=1)]
MaxHeldBytes: TypeAlias = Annotated[
    int, typer.Option(metavar="N", min=1, help="Bodies of all requests under way in a process.")
]
MaxCandidates: TypeAlias = Annotated[
    int, typer.Option(metavar="N", min=1, max=100_000, help="Documents in a request.")
]
MaxTextChars: TypeAlias = Annotated[
    int, typer.Option(metavar="N", min=1, help="Characters of a document.")
]
MaxConnections: TypeAlias = Annotated[
    int, typer.Option(metavar="N", min=2, help="Of a process; fewer under a limit on files.")
]
ConnectionsPerAddress: TypeAlias = Annotated[
    int, typer.Option(metavar="N", min=1, help="Of these, for a single client.")
]


def serve(  # noqa: PLR0913 - every bound of the server, each once
    *,
    config: Config = None,
    model: Model = None,
    host: Annotated[str, typer.Option(metavar="H", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="P", min=1, max=65535)] = 8000,
    workers: Workers = 1,
    tokens_file: TokensFile = None,
    open_to_all: Open = False,
    allow_host: AllowHost = None,
    max_requests: MaxRequests = None,
    client_share: ClientShare = 0.5,
    default_budget_ms: DefaultBudget = 30_000.0,
    max_body_bytes: MaxBodyBytes = 16 * 2**20,
    max_held_bytes: MaxHeldBytes = 128 * 2**20,
    max_candidates: MaxCandidates = 10_000,
    max_text_chars: MaxTextChars = 2_000_000,
    max_connections: MaxConnections = 1024,
    connections_per_address: ConnectionsPerAddress = 256,
) -> None:
    """Serve the routes that Cohere, Jina, vLLM, Infinity and TEI clients speak.

    For example:

        rerank-plugins serve --config rerank.toml --host 0.0.0.0 --tokens-file tokens.txt
    """
    one_of(model, config)
    server = _server()
    options = server.ServeOptions(
        host=host,
        port=port,
        workers=workers,
        config=None if config is None else str(config.resolve()),
        model=model or EMBEDDED,
        max_requests=max_requests,
        tokens_file=None if tokens_file is None else str(tokens_file),
        open=open_to_all,
        allow_hosts=tuple(allow_host or ()),
        client_share=client_share,
        default_budget_ms=default_budget_ms,
        max_body_bytes=max_body_bytes,
        max_held_bytes=max_held_bytes,
        max_candidates=max_candidates,
        max_text_chars=max_text_chars,
        connections=max_connections,
        per_address=connections_per_address,
    )
    server.serve(options)


def _server() -> ModuleType:
    try:
        from ..serving.http import run
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{error}; the server needs: pip install 'rerank-plugins[server]'"
        ) from error
    return run
