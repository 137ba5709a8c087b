"""Writes of every kind through the official clients, and what each of them makes of what the clients see."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clouds import PARENT, Cloud, pinned
from google.api_core.exceptions import NotFound
from google.cloud import artifactregistry_v1, run_v2, secretmanager_v1
from google.iam.v1 import iam_policy_pb2, policy_pb2

SERVICES = ("one", "two")
SECRET, REPOSITORY = "projects/test-project/secrets/key", f"{PARENT}/repositories/apps"
INVOKER = "roles/run.invoker"
KINDS = (
    "create", "deploy", "traffic", "policy", "secret", "secret version", "repository", "delete revision", "delete secret",
    "delete repository", "delete",
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """What the writes of this test change of a service."""

    template: str
    traffic: tuple[tuple[str, int], ...]
    revisions: frozenset[str]
    members: frozenset[str] = frozenset()


Seen = Mapping[str, Any]
"""By service a View, of the secret its versions' payloads, of the repository its description; None is what is not there."""


@dataclass(frozen=True)
class Write:
    """One call, and how what it writes is seen afterwards."""

    kind: str
    key: str
    call: Callable[[], Any]
    after: Any


def _or_none(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except NotFound:
        return None


@dataclass
class Writer:
    """Makes one write after the other, and sees what became of them."""

    cloud: Cloud
    chance: random.Random
    made: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def secrets(self) -> secretmanager_v1.SecretManagerServiceClient:
        client = secretmanager_v1.SecretManagerServiceClient
        return client(transport=client.get_transport_class("grpc")(channel=self.cloud.channel))

    @property
    def repositories(self) -> artifactregistry_v1.ArtifactRegistryClient:
        client = artifactregistry_v1.ArtifactRegistryClient
        return client(transport=client.get_transport_class("grpc")(channel=self.cloud.channel))

    # what is seen

    def seen(self) -> dict[str, Any]:
        services = {name: _or_none(lambda name=name: self._service(name)) for name in SERVICES}
        repository = _or_none(lambda: self.repositories.get_repository(name=REPOSITORY).description)
        return {**services, SECRET: _or_none(self._payloads), REPOSITORY: repository}

    def _service(self, name: str) -> View:
        service = self.cloud.get(name)
        revisions = frozenset(each.name.rsplit("/", 1)[1] for each in self.cloud.revisions.list_revisions(parent=service.name))
        policy = self.cloud.services.get_iam_policy(iam_policy_pb2.GetIamPolicyRequest(resource=service.name))
        members = frozenset(member for binding in policy.bindings for member in binding.members)
        return View(service.template.revision, tuple((each.revision, each.percent) for each in service.traffic), revisions, members)

    def _payloads(self) -> tuple[bytes, ...]:
        self.secrets.get_secret(name=SECRET)
        versions = [each.name for each in self.secrets.list_secret_versions(parent=SECRET)]
        return tuple(self.secrets.access_secret_version(name=each).payload.data for each in versions)

    # what is written

    def possible(self, seen: Seen) -> dict[str, Callable[[], Write]]:
        """The kinds of writes that can be made now."""
        there = [name for name in SERVICES if seen[name]]
        missing = [name for name in SERVICES if not seen[name]]
        idle = [(name, each) for name in there for each in sorted(self._idle(seen[name]))]
        found: dict[str, Callable[[], Write]] = {}
        if missing:
            found["create"] = lambda: self._create(self.chance.choice(missing))
        if there:
            found |= {
                "deploy": lambda: self._deploy(name := self.chance.choice(there), seen[name]),
                "traffic": lambda: self._shift(name := self.chance.choice(there), seen[name]),
                "policy": lambda: self._policy(name := self.chance.choice(there), seen[name]),
                "delete": lambda: self._delete(self.chance.choice(there)),
            }
        if idle:
            found["delete revision"] = lambda: self._delete_revision(*(chosen := self.chance.choice(idle)), seen[chosen[0]])
        if seen[SECRET] is None:
            found["secret"] = lambda: Write("secret", SECRET, self._make_secret, ())
        else:
            found["secret version"] = lambda: self._add_version(seen[SECRET])
            found["delete secret"] = lambda: Write("delete secret", SECRET, lambda: self.secrets.delete_secret(name=SECRET), None)
        if seen[REPOSITORY] is None:
            found["repository"] = self._make_repository
        else:
            remove = REPOSITORY
            found["delete repository"] = lambda: Write(
                "delete repository", REPOSITORY, lambda: self.repositories.delete_repository(name=remove), None
            )
        return found

    def next(self, seen: Seen, kind: str = "") -> Write:
        """A write of this kind, or of one chosen by chance."""
        found = self.possible(seen)
        chosen = kind or self.chance.choice([*found, *({"deploy", "traffic"} & found.keys())])
        self.kinds[chosen] = self.kinds.get(chosen, 0) + 1
        return found[chosen]()

    @staticmethod
    def _idle(view: View) -> frozenset[str]:
        return view.revisions - {view.template} - {revision for revision, _ in view.traffic}

    def _revision(self, name: str) -> str:
        self.made += 1
        return f"{name}-r{self.made}"

    def _create(self, name: str) -> Write:
        revision = self._revision(name)
        service = self.cloud.service(name, revision=revision, traffic=[pinned(revision, 100)])
        call = lambda: self.cloud.services.create_service(parent=PARENT, service=service, service_id=name)  # noqa: E731
        return Write("create", name, call, View(revision, ((revision, 100),), frozenset({revision})))

    def _update(self, service: run_v2.Service, *paths: str) -> Any:
        request = run_v2.UpdateServiceRequest(service=service, update_mask={"paths": list(paths)})
        return lambda: self.cloud.services.update_service(request)

    def _deploy(self, name: str, now: View) -> Write:
        revision = self._revision(name)
        service = run_v2.Service(name=f"{PARENT}/services/{name}", template=self.cloud.template({}, revision))
        after = replace(now, template=revision, revisions=now.revisions | {revision})
        return Write("deploy", name, self._update(service, "template"), after)

    def _shift(self, name: str, now: View) -> Write:
        ready = [
            each.name.rsplit("/", 1)[1]
            for each in self.cloud.revisions.list_revisions(parent=f"{PARENT}/services/{name}")
            if any(one.type_ == "Ready" and one.state == run_v2.Condition.State.CONDITION_SUCCEEDED for one in each.conditions)
        ]
        chosen, share = self.chance.sample(ready, k=min(len(ready), 2)), self.chance.randrange(1, 100)
        split = ((chosen[0], share), (chosen[1], 100 - share)) if len(chosen) == 2 else ((chosen[0], 100),)
        service = run_v2.Service(name=f"{PARENT}/services/{name}", traffic=[pinned(*each) for each in split])
        return Write("traffic", name, self._update(service, "traffic"), replace(now, traffic=split))

    def _policy(self, name: str, now: View) -> Write:
        self.made += 1
        members = frozenset({f"user:u{self.made}@example.com"})
        policy = policy_pb2.Policy(bindings=[policy_pb2.Binding(role=INVOKER, members=sorted(members))])
        request = iam_policy_pb2.SetIamPolicyRequest(resource=f"{PARENT}/services/{name}", policy=policy)
        return Write("policy", name, lambda: self.cloud.services.set_iam_policy(request), replace(now, members=members))

    def _delete(self, name: str) -> Write:
        return Write("delete", name, lambda: self.cloud.services.delete_service(name=f"{PARENT}/services/{name}"), None)

    def _delete_revision(self, name: str, revision: str, now: View) -> Write:
        full = f"{PARENT}/services/{name}/revisions/{revision}"
        after = replace(now, revisions=now.revisions - {revision})
        return Write("delete revision", name, lambda: self.cloud.revisions.delete_revision(name=full), after)

    def _make_secret(self) -> Any:
        secret = secretmanager_v1.Secret(replication={"automatic": {}})
        return self.secrets.create_secret(parent="projects/test-project", secret_id="key", secret=secret)

    def _add_version(self, now: tuple[bytes, ...]) -> Write:
        self.made += 1
        payload = f"payload {self.made}".encode()
        call = lambda: self.secrets.add_secret_version(parent=SECRET, payload={"data": payload})  # noqa: E731
        return Write("secret version", SECRET, call, (payload, *now))

    def _make_repository(self) -> Write:
        self.made += 1
        repository = artifactregistry_v1.Repository(format_=artifactregistry_v1.Repository.Format.DOCKER, description=f"made {self.made}")
        call = lambda: self.repositories.create_repository(parent=PARENT, repository=repository, repository_id="apps")  # noqa: E731
        return Write("repository", REPOSITORY, call, f"made {self.made}")
