"""The gateway's own description, OpenAPI 3.1: the services' documents under one address, with keys."""

import json
from collections.abc import Mapping
from typing import Any

from lepton_platform import __version__
from lepton_platform.gateway.predict_route import MOST_KEY_CHARACTERS

Json = dict[str, Any]
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key: lep_…"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_REFUSED = {
    "401": "No key, or none that holds.",
    "403": "The key has not the scope.",
    "429": "Over the key's rate; come again after `Retry-After` seconds.",
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "status": {"type": "integer"},
                "message": {"type": "string"},
                "field": {"type": ["string", "null"]},
            },
            "required": ["status", "message", "field"],
        }
    },
    "required": ["error"],
}


def describe(services: Mapping[str, bytes], authentication: bool) -> Json:
    """``services``: a task's name → what its service answers at ``/schema.json``."""
    paths: Json = {}
    schemas: Json = {"Error": _ERROR}
    for task, document in services.items():
        told = json.loads(_prefixed(document.decode(), task))
        for name, schema in told["components"]["schemas"].items():
            schemas[f"{task}-{name}"] = schema
        for route in ("/predict", "/feedback"):
            operation = told["paths"][route]["post"]
            operation |= {"operationId": f"{task}_{operation['operationId']}", "tags": [task]}
            if route == "/predict":
                _with_routing(operation)
            paths[f"/v1/{task}{route}"] = {"post": operation}
        paths[f"/v1/{task}/lineage/{{id}}"] = {"get": _lineage(f"{task}_lineage", task)}
        paths[f"/v1/{task}/schema"] = {"get": _get("The service's own description.", task, f"{task}_schema")}
    paths["/v1/lineage/{id}"] = {"get": _lineage("lineage", None)}
    paths["/v1"] = {"get": _get("The tasks, and what answers for them.", None, "tasks")}
    paths["/openapi.json"] = {"get": _get("This document.", None, "openapi")}
    paths["/v1/overview"] = {"get": _get("The page /overview in figures; scope admin.", None, "overview")}
    paths["/metrics"] = {"get": _get("Prometheus metrics; scope admin.", None, "metrics", "text/plain")}
    for item in paths.values():
        for operation in item.values():
            _with_keys(operation, authentication)
    paths["/livez"] = {"get": _get("Does the process answer?", None, "livez")}
    paths["/readyz"] = {"get": _get("Does every task answer?", None, "readyz", "application/json", "503")}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lepton gateway", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, **({"securitySchemes": _KEYS} if authentication else {})},
    }


def _with_routing(operation: Json) -> None:
    """Headers that only the gateway has."""
    key = {"type": "string", "minLength": 1, "maxLength": MOST_KEY_CHARACTERS, "pattern": "^[!-~]+$"}
    sticky = {"name": "X-Request-Key", "in": "header", "schema": key}
    sticky["description"] = "Anything that stands for a user, who then keeps the same of champion and canary."
    operation.setdefault("parameters", []).append(sticky)
    answered = {"schema": {"type": "integer"}, "description": "The deployment that answered."}
    operation["responses"]["200"].setdefault("headers", {})["X-Deployment"] = answered


def _prefixed(document: str, task: str) -> str:
    """Names of schemas are a task's own: several services share one document."""
    return document.replace('"#/components/schemas/', f'"#/components/schemas/{task}-')


def _with_keys(operation: Json, authentication: bool) -> None:
    if authentication:
        operation["security"] = [{"bearer": []}, {"header": []}]
        for status, text in _REFUSED.items():
            operation["responses"].setdefault(status, _error(text))
    else:
        operation["responses"].setdefault("403", _error("Asked by another site's page, or by another name or machine."))
    operation["responses"].setdefault("404", _error("There is no such task here."))
    operation["responses"].setdefault("503", _error("Overloaded or starting; come again after `Retry-After` seconds."))


def _error(text: str) -> Json:
    return {"description": text, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}


def _get(summary: str, tag: str | None, name: str, kind: str = "application/json", *errors: str) -> Json:
    responses = {"200": {"description": "Fine.", "content": {kind: {}}}}
    responses |= {status: _error("Not now.") for status in errors}
    return {"summary": summary, "operationId": name, "tags": [tag] if tag else [], "responses": responses}


def _lineage(name: str, task: str | None) -> Json:
    made = _get("From a prediction to everything that made it.", task, name)
    made["parameters"] = [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "rows", "in": "query", "schema": {"enum": ["some", "all"]}, "description": "Of the training rows."},
    ]
    made["responses"]["404"] = _error("No prediction, or none of this task, has that id.")
    made["responses"]["422"] = _error("Malformed; the answer names the field.")
    made["responses"]["500"] = _error("What made it is gone, or cannot be read; the message says what.")
    return made
