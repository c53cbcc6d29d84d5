"""The OpenAPI description of the server, made from the body models, and an HTML page of it."""

import html
import json
from collections.abc import Iterable, Mapping

import msgspec

from .admission import BUDGET_HEADER, Limits
from .dialects import Document, RerankBody, TeiBody

_ROUTES: Mapping[str, tuple[str, tuple[type[msgspec.Struct], ...]]] = {
    "/v2/rerank": ("Rerank, as Cohere v2 clients ask", (RerankBody,)),
    "/v1/rerank": ("Rerank, as Cohere v1, Jina, vLLM and Infinity clients ask", (RerankBody,)),
    "/rerank": ("Rerank, as Jina, vLLM, Infinity and TEI clients ask", (RerankBody, TeiBody)),
}

_GETS: Mapping[str, str] = {
    "/healthz": "The process is alive",
    "/readyz": "The model is loaded and warm",
    "/health": "The same, as TEI clients ask",
    "/info": "The model and its limits, as TEI clients ask",
    "/metrics": "Prometheus metrics",
}

_ERRORS: Mapping[str, str] = {
    "400": "Malformed header",
    "401": "Missing or unknown bearer token",
    "403": "Sent by a page of another site",
    "404": "Not available on this server",
    "408": "The body took too long to arrive",
    "413": "The body is too large",
    "415": "The content type is a form's",
    "421": "Sent to an unknown Host",
    "422": "The body does not describe a request",
    "429": "The queue, or the client's share of it, is full; Retry-After says when to come back",
    "503": "Not ready, or shutting down",
}


def description(limits: Limits) -> dict[str, object]:
    """Return the OpenAPI 3.1 description of every route, on a server with these limits."""
    template = "#/components/schemas/{name}"
    _, schemas = msgspec.json.schema_components(
        (Document, RerankBody, TeiBody), ref_template=template
    )
    _set_limits(schemas, limits)
    paths: dict[str, object] = {path: {"get": _get(text)} for path, text in _GETS.items()}
    paths |= {path: {"post": _post(text, kinds)} for path, (text, kinds) in _ROUTES.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "rerank-plugins", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],
    }


def html_page(limits: Limits) -> str:
    """Return a page that shows the description and loads nothing from elsewhere."""
    described = description(limits)
    rows = "".join(
        f"<tr><td><code>{'GET' if path in _GETS else 'POST'} {html.escape(path)}</code></td>"
        f"<td>{html.escape(_GETS.get(path) or _ROUTES[path][0])}</td></tr>"
        for path in (*_ROUTES, *_GETS)
    )
    body = html.escape(json.dumps(described["components"], indent=2))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>rerank-plugins</title>'
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td{padding:.2rem 1rem .2rem 0}pre{background:#f4f4f4;padding:1rem;overflow:auto}</style>"
        f"<h1>rerank-plugins</h1><table>{rows}</table>"
        f"<p>A deadline for one request goes into the header <code>{BUDGET_HEADER}</code>. "
        'The whole description: <a href="/openapi.json">/openapi.json</a></p>'
        f"<h2>Bodies</h2><pre>{body}</pre></html>"
    )


def _set_limits(schema: object, limits: Limits) -> None:
    """Write this server's limits over the defaults."""
    found = schema.values() if isinstance(schema, dict) else schema
    if isinstance(schema, dict) and "maxItems" in schema:
        schema["maxItems"] = limits.max_candidates
    if isinstance(schema, dict) and schema.get("maxLength") == Limits().max_text_chars:
        schema["maxLength"] = limits.max_text_chars
    if isinstance(found, Iterable) and not isinstance(found, str):
        for part in found:
            _set_limits(part, limits)


def _get(summary: str) -> dict[str, object]:
    codes = {"200": summary, "404": _ERRORS["404"], "503": _ERRORS["503"]}
    return {
        "summary": summary,
        "responses": {code: {"description": text} for code, text in codes.items()},
    }


def _post(summary: str, kinds: tuple[type[msgspec.Struct], ...]) -> dict[str, object]:
    refs = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in kinds]
    schema: dict[str, object] = {"anyOf": refs} if len(refs) > 1 else dict(refs[0])
    answers = {"200": "The order, best first", **_ERRORS}
    return {
        "summary": summary,
        "parameters": [
            {
                "name": BUDGET_HEADER,
                "in": "header",
                "required": False,
                "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 1e8},
            }
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {code: {"description": text} for code, text in answers.items()},
    }
