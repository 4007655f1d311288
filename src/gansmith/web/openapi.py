"""The OpenAPI document of the API, made of the table of endpoints and the models of what they take."""

import re
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_REFERENCE = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["kind", "message"],
            "properties": {"kind": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
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
    bodies = {endpoint.body for endpoint in endpoints if endpoint.body is not None}
    _, definitions = models_json_schema(
        [(model, "validation") for model in sorted(bodies, key=lambda model: model.__name__)], ref_template=_REFERENCE
    )
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        paths.setdefault(f"{prefix}{endpoint.path}", {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Gansmith studio", "version": metadata.version("gansmith")},
        "paths": paths,
        "components": {"schemas": {**definitions.get("$defs", {}), "Error": _ERROR}},
    }


def _operation(endpoint: Any) -> dict[str, Any]:
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    answer = (
        {"application/json": {"schema": {"type": "object"}}}
        if endpoint.answer.endswith("json")
        else {endpoint.answer: {}}
    )
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
        schema = {"$ref": _REFERENCE.format(model=endpoint.body.__name__)}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif endpoint.method == "PUT":
        found["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string"}}},
        }
    return found


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
