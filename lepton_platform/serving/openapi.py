"""The service's own description, OpenAPI 3.1."""

from collections.abc import Sequence

from lepton_platform.serving.feedback import feedback_schema
from lepton_platform.serving.protocols import Json, TaskApi

_ERRORS = {
    "408": "The body did not arrive in time.",
    "413": "More than a limit allows: inputs, their size, the body's size.",
    "415": "The content type or the encoding is not accepted.",
    "422": "Malformed; the answer names the field.",
    "503": "Overloaded or stopping; come again after `Retry-After` seconds.",
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


def _reference(name: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _responses(name: str, *extra: tuple[str, str]) -> Json:
    errors = {**_ERRORS, **dict(extra)}
    retry = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    answers: Json = {"200": {"description": "Answered.", "content": _reference(name)}}
    for status, text in sorted(errors.items()):
        answers[status] = {"description": text, "content": _reference("Error")}
        if status == "503":
            answers[status]["headers"] = retry
    return answers


def _post(summary: str, request: str, answer: str, content_type: str, *extra: tuple[str, str]) -> Json:
    content = {content_type: {"schema": {"$ref": f"#/components/schemas/{request}"}}}
    body = {"required": True, "content": content}
    name = request.removesuffix("Request")
    return {
        "post": {
            "summary": summary,
            "operationId": name[0].lower() + name[1:],
            "requestBody": body,
            "responses": _responses(answer, *extra),
        }
    }


def _get(summary: str, content_type: str, *statuses: tuple[str, str]) -> Json:
    answers = {"200": {"description": "Fine.", "content": {content_type: {}}}}
    answers |= {status: {"description": text, "content": _reference("Error")} for status, text in statuses}
    return {"get": {"summary": summary, "responses": answers}}


def describe(task: str, model: str, api: TaskApi, labels: Sequence[str]) -> Json:
    """The document that ``GET /schema.json`` answers with."""
    answer = api.answer_schema(labels)
    answer["properties"] = {"id": {"type": "string", "format": "uuid"}, **answer["properties"]}
    answer["required"] = ["id", *answer["required"]]
    predictions = {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": answer}, "model": {"type": "string"}},
        "required": ["predictions", "model"],
    }
    accepted = {"type": "object", "properties": {"accepted": {"type": "integer"}}, "required": ["accepted"]}
    return {
        "openapi": "3.1.0",
        "info": {"title": task, "version": model, "description": f"Answers of the task {task}."},
        "paths": {
            "/predict": _post("Answer inputs, in order.", "PredictRequest", "Predictions", api.CONTENT_TYPE),
            "/feedback": _post(
                "Say what an answer should have been.",
                "FeedbackRequest",
                "Accepted",
                "application/json",
                ("404", "No prediction has that id."),
            ),
            "/livez": _get("Does the process answer?", "application/json"),
            "/readyz": _get("May it be sent requests?", "application/json", ("503", "Starting or stopping.")),
            "/metrics": _get("Prometheus metrics.", "text/plain"),
            "/schema.json": _get("This document.", "application/json"),
            "/": _get("The model that answers.", "application/json"),
        },
        "components": {
            "schemas": {
                "PredictRequest": {**api.request_schema(), "examples": [api.EXAMPLE]},
                "Predictions": predictions,
                "FeedbackRequest": feedback_schema(labels),
                "Accepted": accepted,
                "Error": _ERROR,
            }
        },
    }
