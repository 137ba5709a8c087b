"""What can be asked of the local cloud at its admin endpoint beside faults: denials, tokens, kills, and how it behaves."""

from dataclasses import dataclass, field

from aiohttp import web

from localcloud import form
from localcloud.admin.denials import Denial, Denials
from localcloud.admin.endpoint import Admin, Missing, answer, body
from localcloud.admin.mishaps import Mishaps
from localcloud.admin.quotas import STRICT, Limits, Quotas
from localcloud.artifacts.registryfront import RegistryFront
from localcloud.form import Unusable
from localcloud.instances.pods import Pods
from localcloud.logs.logstore import LogStore
from localcloud.monitoring.metrics import REAL_SAMPLING, Metrics, Sampling
from localcloud.traffic.identity import Identity


@dataclass(frozen=True)
class Behaviour:
    """What can be switched while it runs; a restart brings back what the command line says."""

    quotas: Limits = field(default_factory=Limits)
    registry_auth: bool = False
    metrics: Sampling = field(default_factory=Sampling)
    log_delay_s: float = form.field(0, least=0, most=600)  # until readers see an entry
    startup_seconds: float = form.field(30, least=0.1, most=86400)  # how long a container may take to listen


LENIENT = Behaviour()
AS_REAL = Behaviour(quotas=STRICT, registry_auth=True, metrics=REAL_SAMPLING, log_delay_s=5, startup_seconds=240)
"""As on Google, as far as the numbers are known [the delay of log entries is "seconds": approximated]."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """An instance to be ended by SIGKILL: any of the service's, or of one of its revisions, or the one with this id."""

    service: str
    revision: str = "*"
    instance: str = "*"


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token that is to be issued: whom it names, for which service (none for an access token), and for how long."""

    email: str
    audience: str = ""
    seconds: float = form.field(3600, least=1, most=86400)


class Control:
    """Serves these routes of the admin endpoint."""

    def __init__(
        self,
        admin: Admin,
        mishaps: Mishaps,
        denials: Denials,
        quotas: Quotas,
        identity: Identity,
        front: RegistryFront,
        metrics: Metrics,
        store: LogStore,
        pods: Pods,
        start: Behaviour,
    ) -> None:
        self._mishaps, self._denials, self._quotas, self._identity, self._front = mishaps, denials, quotas, identity, front
        self._metrics, self._store, self._pods = metrics, store, pods
        self.start = start
        front.doorkeeper = denials
        self.apply(start)
        admin.add("GET", "/behaviour", self._behaviour)
        admin.add("PATCH", "/behaviour", self._behave)
        admin.add("GET", "/denials", self._all)
        admin.add("POST", "/denials", self._deny)
        admin.add("DELETE", "/denials/{id}", self._allow)
        admin.add("POST", "/tokens", self._token)
        admin.add("POST", "/kill", self._kill)

    def apply(self, wanted: Behaviour) -> None:
        """Behave so from now on."""
        self.behaviour = wanted
        self._quotas.limits = wanted.quotas
        self._metrics.sampling = wanted.metrics
        self._front.closed = wanted.registry_auth
        self._store.delay_s = wanted.log_delay_s
        self._pods.startup_s = wanted.startup_seconds

    async def _behaviour(self, _: web.Request) -> web.Response:
        return answer(form.plain(self.behaviour))

    async def _behave(self, request: web.Request) -> web.Response:
        self.apply(form.changed(self.behaviour, await body(request), "PATCH /behaviour"))
        return answer(form.plain(self.behaviour))

    async def _all(self, _: web.Request) -> web.Response:
        return answer({"denials": [{"id": id, **form.plain(each)} for id, each in self._denials.all().items()]})

    async def _deny(self, request: web.Request) -> web.Response:
        denial = form.read(Denial, await body(request), "POST /denials")
        return answer({"id": self._denials.ask(denial), **form.plain(denial)}, status=201)

    async def _allow(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        denial = self._denials.delete(id)
        if denial is None:
            raise Missing(f"There is no denial '{id[:60]}'.", request.path[:100], "GET /denials tells those that there are.")
        return answer({"id": id, **form.plain(denial)})

    async def _token(self, request: web.Request) -> web.Response:
        wanted = form.read(Token, await body(request), "POST /tokens")
        if "@" not in wanted.email:
            raise Unusable(f"'{wanted.email[:60]}' is not an e-mail address.", "POST /tokens: email", "Name a user or a service account.")
        token = self._identity.issue(wanted.email, wanted.audience, wanted.seconds)
        return answer({"token": token, "email": wanted.email, "audience": wanted.audience, "seconds": wanted.seconds}, status=201)

    async def _kill(self, request: web.Request) -> web.Response:
        wanted = form.read(Kill, await body(request), "POST /kill")
        return answer({"killed": await self._mishaps.kill(wanted.service, wanted.revision, wanted.instance)})
