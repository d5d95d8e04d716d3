"""The service's own description, OpenAPI 3.1."""

from collections.abc import Sequence

from lepton_platform.serving.feedback import feedback_schema, truth_of
from lepton_platform.serving.protocols import Json, TaskApi

JSON = "application/json"

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


def _post(summary: str, name: str, answer: str, content: Json, *extra: tuple[str, str]) -> Json:
    return {
        "post": {
            "summary": summary,
            "operationId": name,
            "requestBody": {"required": True, "content": content},
            "responses": _responses(answer, *extra),
        }
    }


def _predict(api: TaskApi) -> Json:
    """The first content type's schema has the plain name, others add theirs: a document of one reads as it always did."""
    content = {kind: {"schema": {"$ref": f"#/components/schemas/{_request(api, kind)}"}} for kind in api.CONTENT_TYPES}
    route = _post("Answer inputs, in order.", "predict", "Predictions", content)
    if hasattr(api, "annotated"):
        about = "Answer one input with itself, the answer drawn on it; id and model are in X-Prediction-Id and X-Model."
        parameter = {"name": "annotate", "in": "query", "schema": {"type": "boolean"}, "description": about}
        route["post"]["parameters"] = [parameter]
        route["post"]["responses"]["200"]["content"]["image/*"] = {"schema": {"type": "string", "format": "binary"}}
    return route


def _request(api: TaskApi, content_type: str) -> str:
    """The name of a request's schema."""
    return (
        "PredictRequest" if content_type == api.CONTENT_TYPES[0] else f"PredictRequest-{content_type.replace('/', '-')}"
    )


def _requests(api: TaskApi) -> Json:
    found = {_request(api, kind): api.request_schema(kind) for kind in api.CONTENT_TYPES}
    if JSON in api.CONTENT_TYPES:
        found[_request(api, JSON)]["examples"] = [api.EXAMPLE]
    return found


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
            "/predict": _predict(api),
            "/feedback": _post(
                "Say what an answer should have been.",
                "feedback",
                "Accepted",
                _reference("FeedbackRequest"),
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
                **_requests(api),
                "Predictions": predictions,
                "FeedbackRequest": feedback_schema(labels, truth_of(api)),
                "Accepted": accepted,
                "Error": _ERROR,
            }
        },
    }
