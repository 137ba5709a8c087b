"""The Docker Engine, as the local cloud uses it: every call in a thread, with a time limit, and its errors in one place."""

import asyncio
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, InvalidRepository, NotFound
from docker.utils import parse_repository_tag

from localcloud.instances import cgroups, failures, ways
from localcloud.instances.blueprint import Blueprint, Part
from localcloud.instances.ways import Address
from localcloud.wire import Code, Refusal

T = TypeVar("T")
CLONE, SERVICE, REVISION, NAME = "relais.clone", "relais.service", "relais.revision", "relais.name"
UID, INSTANCE, PART = "relais.uid", "relais.instance", "relais.container"
_STREAMS = ("stdout", "stdout", "stderr")  # by the number in a frame's head; 0 is stdin, which nobody writes
_PING_S, _CALL_S, _PULL_S = 5, 30, 600


class EngineDown(Refusal):
    """The Docker Engine does not answer."""

    def __init__(self, error: object) -> None:
        where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        reason = str(error).split("\n", 1)[0][:200]
        text = f"The Docker Engine does not answer at {where} ({reason}). Start it (sudo systemctl start docker, or dockerd) and try again."
        super().__init__(Code.UNAVAILABLE, text)


@dataclass(frozen=True)
class Container:
    """A container of this clone. `ports` are where its own are reached; `instance` is shared by those of one instance."""

    id: str
    service: str
    revision: str
    uid: str
    instance: str
    part: str
    begun: bool
    running: bool
    exit_code: int
    out_of_memory: bool
    ports: dict[int, Address]


@dataclass(frozen=True)
class Usage:
    """What a container has used of the CPU since it started, and how much memory it has now."""

    cpu_seconds: float
    memory_bytes: int


class Engine:
    """The containers of one clone. `published`: they are reached by published ports alone, also where there is a shorter way."""

    def __init__(self, clone: str, *, published: bool = False) -> None:
        self.clone = clone
        self._direct = False if published else None  # found out at the first container
        self.credentials: Callable[[str], dict[str, str] | None] = lambda _: None  # what to show the registry of an image
        self.readable: Callable[[str, str], bool] = lambda *_: True  # whether a project's service agent may read an image
        self._client: Any = None
        self._lock = threading.Lock()
        self._cpus = 0.0
        self._threads = ThreadPoolExecutor(max_workers=24, thread_name_prefix="docker")

    async def check(self) -> None:
        """Raise EngineDown unless the Engine answers."""
        await self._call(lambda api: api.ping(), seconds=_PING_S)

    async def resolve(self, project: str, revision: str, image: str) -> str:
        """Give the image by its digest, as the registry has it now; a Failure if it is missing, closed to us or for another machine."""
        if not self.readable(project, image):
            raise failures.image_denied(revision, project, image)
        try:
            found = await self._call(lambda api: api.inspect_distribution(image, auth_config=self.credentials(image)))
        except NotFound:
            raise failures.image_missing(revision, image) from None
        except InvalidRepository as error:
            raise failures.image_unreachable(revision, image, str(error)) from None
        except APIError as error:
            raise _image_failure(project, revision, image, error) from None
        descriptor, platforms = found["Descriptor"], found.get("Platforms") or []
        if platforms and not any((each.get("architecture"), each.get("os")) == ("amd64", "linux") for each in platforms):
            raise failures.image_architecture(revision, image, descriptor["mediaType"])
        repository, _ = parse_repository_tag(image)
        return f"{repository}@{descriptor['digest']}"

    async def fetch(self, project: str, revision: str, image: str) -> None:
        """Have the image (by digest) on this machine, from the registry if needed."""
        try:
            await self._call(lambda api: api.inspect_image(image))
            return
        except ImageNotFound:
            pass
        try:
            await self._call(lambda api: api.pull(image, platform="linux/amd64", auth_config=self.credentials(image)), seconds=_PULL_S)
        except NotFound:
            raise failures.image_missing(revision, image) from None
        except APIError as error:
            raise _image_failure(project, revision, image, error) from None

    async def create(self, blueprint: Blueprint, part: Part, instance: str, environment: dict[str, str], network: str = "") -> str:
        """Make a container of an instance, not yet started, and give its id; ImageNotFound if the image must be fetched first.

        `network` is the container of the instance whose network it joins; without it, it is the one that has the instance's ports.
        """
        return await self._call(lambda api: self._create(api, blueprint, part, instance, environment, network))

    def _create(self, api: Any, blueprint: Blueprint, part: Part, instance: str, environment: dict[str, str], network: str) -> str:
        self._cpus = self._cpus or float(api.info()["NCPU"])
        shared = {each.name for each in blueprint.volumes if not each.secret}
        host = api.create_host_config(
            port_bindings=None if network else {port: ("127.0.0.1", None) for port in blueprint.ports},
            network_mode=f"container:{network}" if network else None,
            binds=[f"{self._volume(instance, name)}:{path}" for name, path in part.mounts if name in shared],
            mem_limit=part.memory,
            memswap_limit=part.memory,
            nano_cpus=int(min(part.cpu, self._cpus) * 1e9),  # the Engine refuses more than the machine has
            log_config={"type": "json-file", "config": {"max-size": "64m", "max-file": "2"}},
        )
        made = api.create_container(
            part.image,
            command=list(part.args) or None,
            entrypoint=list(part.command) or None,
            working_dir=part.working_dir or None,
            environment=environment,
            ports=None if network else list(blueprint.ports),
            labels=self._labels(blueprint, instance) | {PART: part.name},
            name=f"relais-{self.clone}-{blueprint.revision}-{instance}-{part.index}",
            host_config=host,
        )
        return str(made["Id"])

    def _labels(self, blueprint: Blueprint, instance: str) -> dict[str, str]:
        return {
            CLONE: self.clone,
            SERVICE: blueprint.service.service,
            REVISION: blueprint.revision,
            NAME: blueprint.key,
            UID: blueprint.uid,
            INSTANCE: instance,
        }

    def _volume(self, instance: str, name: str) -> str:
        return f"relais-{self.clone}-{instance}-{name}"

    async def create_volumes(self, blueprint: Blueprint, instance: str) -> None:
        """Make an instance's volumes in memory."""
        labels = self._labels(blueprint, instance)
        for volume in blueprint.volumes:
            if not volume.secret:
                name = self._volume(instance, volume.name)
                options = {"type": "tmpfs", "device": "tmpfs", "o": f"mode=1777,size={volume.size}" if volume.size else "mode=1777"}
                await self._call(functools.partial(_create_volume, name=name, options=options, labels=labels))

    async def instances_of_volumes(self) -> set[str]:
        """The instances that have, or had, a volume."""
        listed = await self._call(lambda api: api.volumes(filters={"label": f"{CLONE}={self.clone}"}))
        return {each["Labels"].get(INSTANCE, "") for each in listed["Volumes"] or []}

    async def remove_all(self, instance: str = "") -> int:
        """Remove the containers and volumes of one instance, or of the whole clone; gives how many containers there were."""
        labels = [f"{CLONE}={self.clone}"] + ([f"{INSTANCE}={instance}"] if instance else [])
        containers = await self._call(lambda api: api.containers(all=True, filters={"label": labels}))
        await asyncio.gather(*(self.remove(each["Id"]) for each in containers))
        volumes = await self._call(lambda api: api.volumes(filters={"label": labels}))
        await asyncio.gather(*(self._remove_volume(each["Name"]) for each in volumes["Volumes"] or []))
        return len(containers)

    async def _remove_volume(self, name: str) -> None:
        try:
            await self._call(lambda api: api.remove_volume(name))
        except NotFound:
            return

    async def unpack(self, container: str, archive: bytes) -> None:
        """Put files into a container that was not started yet."""
        await self._call(lambda api: api.put_archive(container, "/", archive))

    async def usage(self, container: str) -> Usage | None:
        """What a container uses; None when it is gone or does not run."""
        try:
            found = await self._call(lambda api: api.stats(container, stream=False, one_shot=True))
            memory = found["memory_stats"]
            if "usage" in memory:
                reclaimable = memory["stats"].get("inactive_file", memory["stats"].get("total_inactive_file", 0))
                return Usage(found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, max(memory["usage"] - reclaimable, 0))
            pid = (await self._call(lambda api: api.inspect_container(container)))["State"]["Pid"]
        except NotFound:
            return None
        read = cgroups.used(pid) if pid else None  # some Engines answer with nothing, though the machine knows
        return Usage(*read) if read else None

    async def start(self, container: str) -> None:
        """Start a container; APIError when its command cannot be run."""
        await self._call(lambda api: api.start(container))

    async def inspect(self, container: str) -> Container | None:
        """How a container is; None when it is gone."""
        try:
            return await self._call(lambda api: self._container(api, api.inspect_container(container)))
        except NotFound:
            return None

    def _container(self, api: Any, found: Any) -> Container:
        state, labels, network = found["State"], found["Config"]["Labels"] or {}, found["NetworkSettings"]
        if self._direct is None and network.get("Ports"):
            self._direct = ways.direct(api.info(), network)
        return Container(
            id=found["Id"],
            service=labels.get(NAME, "").split("/revisions/")[0],
            revision=labels.get(REVISION, ""),
            uid=labels.get(UID, ""),
            instance=labels.get(INSTANCE, ""),
            part=labels.get(PART, ""),
            begun=state["Status"] != "created",
            running=state["Running"],
            exit_code=state["ExitCode"],
            out_of_memory=state["OOMKilled"],
            ports=ways.addresses(network, own=bool(self._direct)),
        )

    async def containers(self) -> list[Container]:
        """All containers of this clone, running or not."""
        label = f"{CLONE}={self.clone}"
        listed = await self._call(lambda api: api.containers(all=True, filters={"label": label}))
        found = [await self.inspect(each["Id"]) for each in listed]
        return [each for each in found if each is not None]

    async def stop(self, container: str, grace_s: int = 10) -> None:
        """Send SIGTERM, and SIGKILL after the grace time."""
        try:
            await self._call(lambda api: api.stop(container, timeout=grace_s), seconds=grace_s + _CALL_S)
        except NotFound:
            return

    async def kill(self, container: str) -> None:
        """Send SIGKILL; nothing happens to one that does not run."""
        try:
            await self._call(lambda api: api.kill(container, "SIGKILL"))
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # 409: it does not run
                raise

    async def remove(self, container: str) -> None:
        """Remove a container, running or not."""
        try:
            await self._call(lambda api: api.remove_container(container, force=True, v=True))
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # 409: it is already being removed
                raise

    def frames(self, container: str, since: float, *, follow: bool) -> Iterator[tuple[str, bytes]]:
        """What a container prints, with time stamps: (stream, frame); a long line is several frames. Blocks: for threads of their own.

        docker-py either mixes the streams or leaves out the stamps, so the Engine's frames are read here
        [https://docs.docker.com/reference/api/engine/#tag/Container/operation/ContainerAttach, stream format].
        """
        api = self._api()
        wanted = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow), "since": since}
        url = f"{api.base_url}/v{api.api_version}/containers/{container}/logs"
        with api.get(url, params=wanted, stream=True, timeout=(_CALL_S, None)) as answer:
            if answer.status_code == 404:
                raise NotFound(f"No such container: {container}")
            answer.raise_for_status()
            while len(head := answer.raw.read(8)) == 8:
                size = int.from_bytes(head[4:], "big")
                if len(frame := answer.raw.read(size)) == size:
                    yield _STREAMS[head[0]], frame

    def running_now(self, container: str) -> bool:
        """Whether a container runs; blocks: for threads of their own."""
        try:
            return bool(self._do(lambda api: api.inspect_container(container))["State"]["Running"])
        except NotFound:
            return False

    def watch(self, happened: Callable[[str, str], None], lost: Callable[[], None]) -> None:
        """Call `happened` with every container that ends (`die`) or is sent a signal (`kill`), for ever, in a thread.

        `lost` is called whenever events may have been missed.
        """
        threading.Thread(target=self._watch, args=(happened, lost), daemon=True, name="docker-events").start()

    def _watch(self, happened: Callable[[str, str], None], lost: Callable[[], None]) -> None:
        filters = {"label": f"{CLONE}={self.clone}", "event": ["die", "kill"], "type": "container"}
        while True:
            try:
                stream = self._api().events(decode=True, filters=filters)
                lost()
                for event in stream:
                    happened(str(event["Actor"]["ID"]), str(event["Action"]))
            except (DockerException, EngineDown, requests.RequestException, OSError, ValueError):
                pass
            time.sleep(1)

    def _api(self) -> Any:
        with self._lock:
            if self._client is None:
                try:
                    self._client = docker.from_env(timeout=_CALL_S)
                except (DockerException, requests.RequestException, OSError) as error:
                    raise EngineDown(error) from None
            return self._client.api

    def _do(self, work: Callable[[Any], T]) -> T:
        try:
            return work(self._api())
        except APIError:  # it answers; what it says is for whoever asked
            raise
        except requests.RequestException as error:
            raise EngineDown(error) from None

    async def _call(self, work: Callable[[Any], T], seconds: float = _CALL_S) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(self._do, work))
        try:
            return await asyncio.wait_for(running, seconds)
        except TimeoutError:
            raise EngineDown(f"no answer in {seconds:.0f} s") from None

    def close(self) -> None:
        """Let go of the threads; containers go on."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _create_volume(api: Any, name: str, options: dict[str, str], labels: dict[str, str]) -> None:
    api.create_volume(name, driver="local", driver_opts=options, labels=labels)


def _image_failure(project: str, revision: str, image: str, error: APIError) -> failures.Failure:
    text = str(error.explanation or error)
    lower = text.lower()
    if any(word in lower for word in ("manifest unknown", "name unknown", "not found", "does not exist")):
        return failures.image_missing(revision, image)
    if any(word in lower for word in ("unauthorized", "denied", "no basic auth", "authentication required")):
        return failures.image_denied(revision, project, image)
    if "no matching manifest" in lower:
        return failures.image_architecture(revision, image, "application/vnd.oci.image.index.v1+json")
    return failures.image_unreachable(revision, image, text)
