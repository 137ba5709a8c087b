"""Access policies of services (google/iam/v1/iam_policy.proto, policy.proto)."""

from typing import Any

from google.iam.v1 import iam_policy_pb2, policy_pb2

from localcloud import clock
from localcloud.wire import Code, Refusal

_policy: Any = policy_pb2
_iam: Any = iam_policy_pb2
_EMPTY = b"\x00 \x01"  # "ACAB" in base64: the etag of a policy that nobody set


def read(stored: bytes) -> Any:
    """The policy as it was stored."""
    policy = _policy.Policy.FromString(stored)
    policy.etag = policy.etag or _EMPTY
    return policy


def changed(stored: bytes, request: Any) -> Any:
    """The policy that a SetIamPolicyRequest makes of the stored one; a stale etag is refused."""
    current = read(stored)
    if request.policy.etag and request.policy.etag != current.etag:
        text = "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff."
        raise Refusal(Code.ABORTED, text)
    policy = _policy.Policy()
    policy.CopyFrom(request.policy)
    policy.etag = b"\x07" + (clock.time_ns() // 1000).to_bytes(7, "big")
    return policy


def permissions(request: Any) -> Any:
    """Everybody here may do everything."""
    return _iam.TestIamPermissionsResponse(permissions=list(request.permissions))


def open_to_all(stored: bytes) -> bool:
    """Whether everybody may call the service."""
    return any(each.role == "roles/run.invoker" and "allUsers" in each.members for each in read(stored).bindings)
