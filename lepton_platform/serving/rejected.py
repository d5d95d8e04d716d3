"""A request that cannot be served, and why, in words for the one who sent it."""

from typing import Any


class Rejected(Exception):
    """``status`` is the HTTP status; ``field`` says where, as in ``texts[3]``; ``retry_after_s`` when to come again."""

    def __init__(self, status: int, message: str, field: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.retry_after_s = status, message, field, retry_after_s

    def as_json(self) -> dict[str, Any]:
        """The body of every refusal."""
        return {"error": {"status": self.status, "message": self.message, "field": self.field}}


def malformed(message: str, field: str | None = None) -> Rejected:
    return Rejected(422, message, field)


def too_large(message: str, field: str | None = None) -> Rejected:
    return Rejected(413, message, field)


def overloaded(message: str, retry_after_s: float = 1.0) -> Rejected:
    return Rejected(503, message, None, max(1, int(retry_after_s + 0.999)))
