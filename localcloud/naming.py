"""Names of resources, revision names, etags and versions, in the formats of the real service."""

import base64
import hashlib
import random
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf import timestamp_pb2

from localcloud.wire import Code, Refusal

_timestamp: Any = timestamp_pb2  # generated modules have no types
_SERVICE = re.compile(r"projects/([^/\s]+)/locations/([^/\s]+)/services/([^/\s]+)")
_PARENT = re.compile(r"projects/([^/\s]+)/locations/([^/\s]+)")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class ServiceName:
    """`projects/P/locations/L/services/S`, taken apart."""

    project: str
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.parent}/services/{self.service}"

    @property
    def parent(self) -> str:
        """`projects/P/locations/L`."""
        return f"projects/{self.project}/locations/{self.region}"

    def revision(self, short: str) -> str:
        """The full name of one of its revisions."""
        return f"{self}/revisions/{short}"

    @staticmethod
    def parse(name: str) -> "ServiceName":
        """Take a name apart; another shape is refused."""
        found = _SERVICE.fullmatch(name)
        if not found:
            raise Refusal(Code.INVALID_ARGUMENT, f"'{name}' is not a service name: use projects/PROJECT/locations/REGION/services/SERVICE.")
        return ServiceName(*found.groups())


def check_place(parent: str) -> None:
    """Refuse what is not one `projects/P/locations/L`, where something can be created."""
    check_parent(parent)
    if "-" in parent.split("/"):
        raise Refusal(Code.INVALID_ARGUMENT, f"'{parent}' is not one location: - stands for all of them, in lists only.")


def check_parent(parent: str) -> None:
    """Refuse what is not `projects/P/locations/L`."""
    if not _PARENT.fullmatch(parent):
        raise Refusal(Code.INVALID_ARGUMENT, f"'{parent}' is not a location: use projects/PROJECT/locations/REGION.")


def short(name: str) -> str:
    """The last part of a resource name."""
    return name.rsplit("/", 1)[-1]


def new_revision(service: str, number: int) -> str:
    """An automatic revision name, such as app-00002-4wm [facts: samples of the real service]."""
    suffix = "".join(random.choice(_LETTERS) for _ in range(3))
    return f"{service}-{number:05d}-{suffix}"


def project_number(project: str) -> str:
    """A project's number: made from its id, since nobody here gives them out [approximated].

    In names it is not another word for the id, as on Google: `projects/123` is a project of its own.
    """
    return project if project.isdigit() else str(10**11 + int(hashlib.sha256(project.encode()).hexdigest(), 16) % (9 * 10**11))


def service_missing(name: ServiceName) -> Refusal:
    """The answer for a service that does not exist."""
    text = f"Resource '{name.service}' of kind 'SERVICE' in region '{name.region}' in project '{name.project}' does not exist."
    return Refusal(Code.NOT_FOUND, text)


def etag(name: str, updated: Any) -> str:
    """The etag of a resource: its update time and its name [decoded from two real samples]."""
    stamp = updated.timestamp_pb()  # proto-plus reads timestamps as DatetimeWithNanoseconds
    return f'"{_base64(stamp.SerializeToString())}/{_base64(name.encode())}"'


def version_of(updated: datetime) -> str:
    """A resource version as conflict texts show it: microseconds since the epoch."""
    return str(round(updated.timestamp() * 1_000_000))


def version_in(etag_given: str) -> str:
    """The version inside an etag that a client gave; the etag itself if it is none of ours."""
    try:
        text = etag_given.strip('"').split("/", 1)[0]
        stamp = _timestamp.Timestamp.FromString(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return str(stamp.seconds * 1_000_000 + stamp.nanos // 1000)
    except Exception:  # whatever a client may have put there
        return etag_given


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
