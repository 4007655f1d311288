"""The OpenAPI document of the API, made of the table of endpoints and the models of what they take and give."""

import re
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gansmith.web.answers import Error

_REFERENCE = "#/components/schemas/{model}"
_REFUSALS = {
    "400": "The request cannot be met; the message says what is allowed.",
    "401": "The token is missing.",
    "403": "The request comes from a page of another site.",
    "404": "There is no such run, file or training.",
    "408": "The body did not arrive in time.",
    "409": "It cannot be done now (a full disk, a directory that is gone, a process that ended).",
    "413": "The body is too large.",
    "415": "The body has another content type.",
    "421": "The Host is not a name of this server.",
    "422": "A value is out of range or of the wrong type.",
    "429": "Too many requests at once.",
}


def describe_api(endpoints: Sequence[Any], prefix: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a table of `Endpoint` rows."""
    found = {model for endpoint in endpoints for model in (endpoint.body, endpoint.answer) if model is not None}
    models = sorted({*found, Error}, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        paths.setdefault(f"{prefix}{endpoint.path}", {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Gansmith studio", "version": metadata.version("gansmith")},
        "paths": paths,
        "components": {"schemas": definitions["$defs"]},
    }


def _operation(endpoint: Any) -> dict[str, Any]:
    error, answer = {"content": _as_json(Error)}, {kind.split(";")[0]: dict[str, Any]() for kind in endpoint.kinds}
    if endpoint.answer is not None:
        answer = _as_json(endpoint.answer) | answer
    found: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint.path), *_query_parameters(endpoint.query)],
        "responses": {
            "200": {"description": "Done.", "content": answer},
            **{status: {"description": why, **error} for status, why in _REFUSALS.items()},
        },
    }
    if endpoint.body is not None:
        found["requestBody"] = {"required": True, "content": _as_json(endpoint.body)}
    elif endpoint.method == "PUT":
        found["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string"}}},
        }
    return found


def _as_json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in re.findall(r"{(\w+)}", path)
    ]


def _query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": rule}
        for name, rule in schema.get("properties", {}).items()
    ]
