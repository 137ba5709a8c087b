"""Who may call a service, by which way, and what their tokens must be made for (service.proto; the roles with run.routes.invoke)."""

from dataclasses import dataclass

from google.cloud import run_v2

from localcloud.run import iam

_INVOKERS = {"roles/run.invoker", "roles/run.servicesInvoker", "roles/run.admin"}
_INTERNAL = {run_v2.IngressTraffic.INGRESS_TRAFFIC_INTERNAL_ONLY, run_v2.IngressTraffic.INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER}


@dataclass(frozen=True)
class Access:
    """A service's doors: `open` to everybody, else to `members` with a token for one of the `audiences`; `to_outside`, `to_inside` by
    its ingress."""

    open: bool = False
    members: frozenset[str] = frozenset()
    audiences: frozenset[str] = frozenset()
    to_outside: bool = True
    to_inside: bool = True

    def reaches(self, source: str) -> bool:
        """Whether a caller at this address may come in at all.

        Inside is who calls from a loopback address other than 127.0.0.1, which a client chooses by binding it; every other caller is
        outside [approximated: there is no VPC network and no load balancer here].
        """
        return self.to_inside if source.startswith("127.") and source != "127.0.0.1" else self.to_outside

    def admits(self, email: str) -> bool:
        """Whether a caller with this identity may invoke the service; groups have no members here."""
        machine = email.endswith(".gserviceaccount.com")
        names = {"allAuthenticatedUsers", f"{'serviceAccount' if machine else 'user'}:{email}"}
        if not machine:
            names.add(f"domain:{email.rpartition('@')[2]}")
        return bool(names & self.members)

    def meant(self, audience: str) -> bool:
        """Whether a token for this audience is for this service: its URL (not a tag's), or one of the custom audiences, to the letter."""
        return audience in self.audiences or audience.removesuffix("/") in self.audiences


def read(service: run_v2.Service, policy: bytes) -> Access:
    """Read a service and its policy; a binding with a condition admits nobody [approximated]."""
    bindings = [each for each in iam.read(policy).bindings if each.role in _INVOKERS and not each.HasField("condition")]
    members = frozenset(_member(member) for each in bindings for member in each.members)
    closed = service.default_uri_disabled or service.ingress == run_v2.IngressTraffic.INGRESS_TRAFFIC_NONE
    return Access(
        open=service.invoker_iam_disabled or "allUsers" in members,
        members=members,
        audiences=frozenset((service.uri, *service.urls, *service.custom_audiences)) - {""},
        to_outside=not closed and service.ingress not in _INTERNAL,
        to_inside=not closed,
    )


def _member(name: str) -> str:
    kind, colon, email = name.partition(":")
    return f"{kind}:{email.lower()}" if colon else name
