"""Permissions that are denied on request: the refusals of IAM, in the words of each API.

Without a denial everybody may do everything.
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from google.rpc import error_details_pb2

from localcloud import naming
from localcloud.admin import methods
from localcloud.traffic.identity import Identity
from localcloud.wire import Call, Code, Refusal, caller

_details: Any = error_details_pb2
ACT_AS = "iam.serviceaccounts.actAs"


@dataclass(frozen=True, kw_only=True)
class Denial:
    """A permission that is refused: to everybody or to one member (an e-mail address), everywhere or on one resource; `*` is anything."""

    permission: str
    member: str = "*"
    resource: str = "*"


class Denials:
    """What was denied, and the refusals that follow."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._known: dict[str, Denial] = {}

    def ask(self, denial: Denial) -> str:
        """Deny this from now on; gives an id."""
        id = f"denial-{secrets.token_hex(4)}"
        self._known[id] = denial
        return id

    def all(self) -> dict[str, Denial]:
        """Every denial by its id."""
        return dict(self._known)

    def delete(self, id: str) -> Denial | None:
        """Deny it no more; None if there is no such denial."""
        return self._known.pop(id, None)

    def holds(self, member: str, permission: str, resource: str) -> bool:
        """Whether a member (an e-mail address, "" for one who does not say) has a permission on a resource."""
        return not any(
            fnmatchcase(permission.lower(), each.permission.lower())
            and fnmatchcase(member, each.member.rpartition(":")[2])
            and fnmatchcase(resource, each.resource)
            for each in self._known.values()
        )

    # the registry's doorkeeper

    def holder(self, token: str) -> str | None:
        """Whom an access token belongs to; None if it is none of ours."""
        found = self._identity.caller(token)
        return found.email if found else None

    def permits(self, holder: str, permission: str, resource: str) -> bool:
        """Whether the holder of a token may do this with images."""
        return self.holds(holder, permission, resource)

    async def gate(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Stand in front of every handler."""
        if self._known:
            member, permission = caller(call.context), methods.PERMISSIONS.get(call.method, "")
            for each in methods.resources(call) if permission else ():
                if not self.holds(member, permission, each):
                    raise refusal(permission, each)
            account = _acts_as(call)
            if account and not self.holds(member, ACT_AS, account):
                text = f"Permission '{ACT_AS}' denied on service account {account} (or it may not exist)."
                raise Refusal(Code.PERMISSION_DENIED, text, _info(ACT_AS, account))
        return await proceed()


def refusal(permission: str, resource: str) -> Refusal:
    """How an API says that a permission is missing [Cloud Run: facts of real calls; the others from memory]."""
    match permission.split(".", maxsplit=1)[0]:
        case "run":
            text = f"Permission '{permission}' denied on resource '{resource}' (or resource may not exist)."
        case "artifactregistry":
            text = f'Permission "{permission}" denied on resource "{resource}" (or it may not exist)'
        case "logging":
            text = f"Permission '{permission}' denied on resource (or it may not exist)."
        case "monitoring":
            text = f"Permission {permission} denied (or the resource may not exist)."
        case _:
            text = f"Permission '{permission}' denied for resource '{resource}' (or it may not exist)."
    return Refusal(Code.PERMISSION_DENIED, text, _info(permission, resource))


def _info(permission: str, resource: str) -> Any:
    metadata = {"permission": permission, "resource": resource}
    return _details.ErrorInfo(reason="IAM_PERMISSION_DENIED", domain="iam.googleapis.com", metadata=metadata)


def _acts_as(call: Call) -> str:
    """The service account that a deployment would run as; "" if the call deploys nothing."""
    if call.method not in {"Services/CreateService", "Services/UpdateService"}:
        return ""
    project = methods.resource(call).split("/")[1:2]
    default = f"{naming.project_number(project[0])}-compute@developer.gserviceaccount.com" if project else ""
    return str(call.request.service.template.service_account or default)
