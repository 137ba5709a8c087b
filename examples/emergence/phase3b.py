"""Puts the revision of Phase 3 on the local cloud: built, pushed, created, and pinned to all the traffic, as the runbook finds it."""

import datetime
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import docker
import grpc
import yaml
from docker.errors import DockerException, ImageNotFound
from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError
from google.cloud import artifactregistry_v1, run_v2
from trouble import Trouble

REVISION = "emergence-app-phase3b"
TAG = "cockpit-phase3-20251009-093500"
REACHED = 5.0
CALL = 15.0
DEPLOYMENT = 180.0


@dataclass(frozen=True)
class Place:
    """Where the service lives, as its release file says."""

    project: str
    region: str
    repository: str
    service: str

    @property
    def location(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"


class Cloud:
    """The two clients that are needed, on the local cloud's port."""

    def __init__(self, endpoint: str) -> None:
        channel = grpc.insecure_channel(endpoint)
        try:
            grpc.channel_ready_future(channel).result(timeout=REACHED)
        except grpc.FutureTimeoutError:
            raise Trouble(f"no local cloud answers at {endpoint} within {REACHED:.0f} s", "Start it: make up") from None
        self.services = run_v2.ServicesClient(transport=run_v2.ServicesClient.get_transport_class("grpc")(channel=channel))
        registry = artifactregistry_v1.ArtifactRegistryClient
        self.registry = registry(transport=registry.get_transport_class("grpc")(channel=channel))


def serve(directory: Path, commit: str) -> str:
    """Says who serves; if nobody did, the revision of Phase 3 does now."""
    endpoint = os.environ.get("CLOUDRUN_EMULATOR_HOST")
    if not endpoint:
        raise Trouble("CLOUDRUN_EMULATOR_HOST is not set", "Set it to the local cloud's host:port; make up writes it to .relais/env.")
    release = yaml.safe_load((directory / "release.yaml").read_text(encoding="utf-8"))
    place = Place(release["project"], release["region"], release["repository"], release["service"])
    try:
        cloud = Cloud(endpoint)
        service = _service(cloud, place)
        if service is None:
            image = f"{_registry_uri(cloud, place)}/{place.service}"
            digest = _pushed(directory, commit, image)
            service = _created(cloud, place, _template(directory, commit, f"{image}@{digest}"))
        if service.latest_created_revision.endswith(f"/{REVISION}") and any(not target.revision for target in service.traffic):
            service = _pinned(cloud, service)
    except DockerException as error:
        raise Trouble(f"the Docker Engine: {error}", "See that it runs: docker version") from None
    except (GoogleAPICallError, RetryError, TimeoutError) as error:
        raise Trouble(f"the local cloud at {endpoint}: {error}", "See its log, and the revision's.") from None
    latest = service.latest_ready_revision  # what a target that follows LATEST means
    shares = [f"{(s.revision or latest).rpartition('/')[2]} {s.percent} %" for s in service.traffic_statuses if s.percent]
    if not shares:
        raise Trouble(f"{place.service} is there, and no revision of it serves", "See the local cloud's log; then delete the service.")
    return f"{place.service} at {service.uri}: {', '.join(shares)}"


def _service(cloud: Cloud, place: Place) -> run_v2.Service | None:
    try:
        return cloud.services.get_service(name=f"{place.location}/services/{place.service}", timeout=CALL)
    except NotFound:
        return None


def _registry_uri(cloud: Cloud, place: Place) -> str:
    name = f"{place.location}/repositories/{place.repository}"
    try:
        return cloud.registry.get_repository(name=name, timeout=CALL).registry_uri
    except NotFound:
        docker_format = artifactregistry_v1.Repository(format_=artifactregistry_v1.Repository.Format.DOCKER)
        wanted = {"parent": place.location, "repository_id": place.repository, "repository": docker_format}
        _ended(cloud.registry.create_repository(request=wanted, timeout=CALL))
        return cloud.registry.get_repository(name=name, timeout=CALL).registry_uri


def _ended(operation: Any) -> object:
    """What a long-running operation came to."""
    return operation.result(timeout=DEPLOYMENT)


def _archived(directory: Path, commit: str, *paths: str) -> bytes:
    """A tar of the commit, or of some of its files."""
    command = ["git", "-C", str(directory), "archive", "--format=tar", commit, *paths]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise Trouble(f"git archive {commit[:7]} failed in {directory}: {done.stderr.decode().strip()}", "See git status there.")
    return done.stdout


def _pushed(directory: Path, commit: str, image: str) -> str:
    """Builds the commit and pushes it; the digest."""
    engine = docker.from_env(timeout=120)
    with tempfile.TemporaryDirectory(prefix="emergence-phase3b-") as scratch:
        with tarfile.open(fileobj=io.BytesIO(_archived(directory, commit))) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)  # not there before Python 3.11.4
            archive.extractall(scratch)
        base_image(engine, Path(scratch))
        _front_end(Path(scratch))
        labels = {"org.opencontainers.image.revision": commit, "relais.clone": os.environ.get("RELAIS_CLONE", "")}
        _each(engine.api.build(path=scratch, tag=f"{image}:{TAG}", labels=labels, rm=True, forcerm=True, decode=True), "build")
    digests = [item["aux"]["Digest"] for item in _each(engine.api.push(image, tag=TAG, stream=True, decode=True), "push") if "aux" in item]
    if not digests:
        raise Trouble(f"the push of {image}:{TAG} told no digest", "See the registry's log.")
    return str(digests[-1])


def base_image(engine: docker.DockerClient, tree: Path) -> None:
    """What the Dockerfile begins from must be here; if the set-up has made it anew under another name, it gets this one too."""
    dockerfile = (tree / "Dockerfile").read_text(encoding="utf-8")
    name = dockerfile.partition("ARG BASE=")[2].split()[0]
    made = os.environ.get("RELAIS_BASE_IMAGE") or name
    try:
        engine.images.get(name)
    except ImageNotFound:
        try:
            engine.images.get(made).tag(name)
        except ImageNotFound:
            raise Trouble(f"the base image {made} is not there", "Run the set-up: make up") from None


def _front_end(tree: Path) -> None:
    try:
        done = subprocess.run(["npm", "run", "build"], cwd=tree, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise Trouble("npm is not installed", "Run the set-up: make up") from None
    except subprocess.TimeoutExpired:
        raise Trouble("npm run build did not end within 120 s", "Run it by hand in the sample's repository.") from None
    if done.returncode:
        raise Trouble(f"npm run build failed: {done.stderr.strip()}", "Run it by hand in the sample's repository.")


def _each(stream: Iterable[Mapping[str, Any]], what: str) -> list[Mapping[str, Any]]:
    """All items of a Docker stream; errors come as items there."""
    items = list(stream)
    for item in items:
        if "error" in item:
            raise Trouble(f"docker {what} failed: {item['error'].strip()}", "Read the message; then run this again.")
    return items


def _template(directory: Path, commit: str, image: str) -> run_v2.RevisionTemplate:
    """What the runbook deploys with, from the release file; the variables are those of the commit."""
    deploy = yaml.safe_load((directory / "release.yaml").read_text(encoding="utf-8"))["deploy"]
    with tarfile.open(fileobj=io.BytesIO(_archived(directory, commit, "env.yaml"))) as archive:
        file = archive.extractfile("env.yaml")
        variables = yaml.safe_load(file.read()) if file else {}
    container = run_v2.Container(
        image=image,
        env=[run_v2.EnvVar(name=name, value=str(value)) for name, value in variables.items()],
        ports=[run_v2.ContainerPort(container_port=8080)],
        resources=run_v2.ResourceRequirements(limits={"memory": str(deploy["memory"]), "cpu": str(deploy["cpu"])}, cpu_idle=True),
    )
    return run_v2.RevisionTemplate(
        revision=REVISION,
        annotations={"relais.dev/commit": commit},  # as a release stamps its revisions
        containers=[container],
        timeout=datetime.timedelta(seconds=int(deploy["timeout"].removesuffix("s"))),
        scaling=run_v2.RevisionScaling(max_instance_count=deploy["max_instances"]),
    )


def _created(cloud: Cloud, place: Place, template: run_v2.RevisionTemplate) -> run_v2.Service:
    service = run_v2.Service(template=template, invoker_iam_disabled=True)
    operation = cloud.services.create_service(parent=place.location, service_id=place.service, service=service, timeout=CALL)
    return cast(run_v2.Service, _ended(operation))


def _pinned(cloud: Cloud, service: run_v2.Service) -> run_v2.Service:
    """As `gcloud run services update-traffic --to-revisions emergence-app-phase3b=100` leaves it."""
    by_name = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
    pin = run_v2.TrafficTarget(type_=by_name, revision=REVISION, percent=100)
    wanted = run_v2.Service(name=service.name, etag=service.etag, traffic=[pin])
    operation = cloud.services.update_service(request={"service": wanted, "update_mask": {"paths": ["traffic"]}}, timeout=CALL)
    return cast(run_v2.Service, _ended(operation))
