"""The two forms in which Cloud Run refuses a request's fields, each with its google.rpc.BadRequest (collected from public error reports).

A `Malformed` field breaks its own form: `Violation in CreateServiceRequest.service.template.timeout: maximum allowed time is one hour.`
What is well formed and still makes no sense is `invalid`: `template.containers: Revision template should contain exactly one ...`.
"""

from typing import Any

from google.rpc import error_details_pb2

from localcloud.wire import Code, Refusal

_details: Any = error_details_pb2


class Malformed(Exception):
    """A field of a service that breaks its own form: where (a path below the service), and how."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path}: {text}")
        self.path = path
        self.text = text

    def within(self, request: str) -> Refusal:
        """The refusal of a request of this type, such as `CreateServiceRequest`."""
        field = f"Violation in {request}.service" + (f".{self.path}" if self.path else "")
        return _refusal(f"{field}: {self.text}", field, self.text)


def invalid(message: str) -> Refusal:
    """An INVALID_ARGUMENT; a message that begins with a path tells the field in its details too."""
    path, colon, text = message.partition(": ")
    if colon and " " not in path:
        return _refusal(message, path, text)
    return Refusal(Code.INVALID_ARGUMENT, message)


def _refusal(message: str, field: str, text: str) -> Refusal:
    violation = _details.BadRequest.FieldViolation(field=field, description=text)
    return Refusal(Code.INVALID_ARGUMENT, message, _details.BadRequest(field_violations=[violation]))
