"""Access policies of services (google/iam/v1/iam_policy.proto, policy.proto).

The texts on members, roles and concurrent changes are written from memory of the real ones [approximated].
"""

import re
from collections.abc import Callable
from typing import Any

from google.iam.v1 import iam_policy_pb2, policy_pb2

from localcloud import clock
from localcloud.run.violations import invalid
from localcloud.wire import Code, Refusal

_policy: Any = policy_pb2
_iam: Any = iam_policy_pb2
_EMPTY = b"\x00 \x01"  # "ACAB" in base64: the etag of a policy that nobody set
_ROLE = re.compile(r"(roles|projects/[^/\s]+/roles|organizations/\d+/roles)/[A-Za-z][\w.]*", re.ASCII)
_EMAIL = re.compile(r"[^@\s:]+@[^@\s:]+\.[^@\s:]+")
_DOMAIN = re.compile(r"[^@\s:/]+\.[^@\s:/]+")
_EVERYBODY = ("allUsers", "allAuthenticatedUsers")
_BY_EMAIL = ("user", "serviceAccount", "group")
_ELSEWHERE = ("principal", "principalSet", "deleted", "projectOwner", "projectEditor", "projectViewer")
_MOST_MEMBERS = 1500
_WITH_CONDITIONS = 3


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
    paths = set(request.update_mask.paths) or {"bindings", "etag"}
    unknown = paths - {"bindings", "etag", "version"}
    if unknown:
        raise invalid(f"update_mask: a policy of a service has no {', '.join(sorted(unknown))} to be set.")  # [approximated]
    if "bindings" not in paths:
        del policy.bindings[:]
        policy.bindings.extend(current.bindings)
    _check(policy)
    policy.etag = b"\x07" + (clock.time_ns() // 1000).to_bytes(7, "big")
    return policy


def permissions(request: Any, holds: Callable[[str], bool] = lambda _: True) -> Any:
    """Those of the permissions asked for that the caller has."""
    asked = list(request.permissions)
    wrong = [each for each in asked if "*" in each or each.count(".") < 2]
    if wrong:
        raise invalid(f"Permission {wrong[0]} is not valid for this resource.")  # [approximated]
    return _iam.TestIamPermissionsResponse(permissions=[each for each in asked if holds(each)])


def _check(policy: Any) -> None:
    """[policy.proto Binding]"""
    if policy.version not in (0, 1, _WITH_CONDITIONS):
        raise invalid(f"policy.version: {policy.version} is not one of 0, 1 and 3.")  # [approximated]
    if policy.audit_configs:
        raise invalid("policy.audit_configs: a service has none.")  # [approximated]
    if sum(len(each.members) for each in policy.bindings) > _MOST_MEMBERS:
        raise invalid(f"The number of members in the policy is larger than the maximum allowed size {_MOST_MEMBERS}.")  # [approximated]
    for binding in policy.bindings:
        if not _ROLE.fullmatch(binding.role):
            raise invalid(f"Role {binding.role} is not supported for this resource.")
        if binding.HasField("condition") and policy.version != _WITH_CONDITIONS:
            raise invalid("policy.version: must be 3 with a conditional role binding.")  # [approximated]
        for member in binding.members:
            _member(member)


def _member(member: str) -> None:
    if member in _EVERYBODY:
        return
    kind, colon, value = member.partition(":")
    if not colon or not value:
        raise invalid('Policy members must be of the form "<type>:<value>".')
    if kind not in (*_BY_EMAIL, *_ELSEWHERE, "domain"):
        raise invalid(f"The member {value} is of an unknown type. Please set a valid type prefix for the member.")
    if (kind in _BY_EMAIL and not _EMAIL.fullmatch(value)) or (kind == "domain" and not _DOMAIN.fullmatch(value)):
        raise invalid(f"Invalid {kind} member: {value}.")  # [approximated]
