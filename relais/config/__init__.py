"""The release file: what may be in it, how it is read, and what one run may change."""

from relais.config.canary import Canary, JudgeSettings, Noise, TrafficProbes
from relais.config.changes import Changes
from relais.config.contract import (
    METHODS,
    Counter,
    Endpoint,
    Header,
    HttpCheck,
    HttpRequest,
    LogExpectation,
    MetricGroup,
    Smoke,
    Validation,
    Verify,
    VersionCheck,
    WebSocketCheck,
)
from relais.config.deploy import Deploy, EnvRules, Hook, Hooks, Probe, Probes, Scaling, SecretVersion, Volume, Vpc
from relais.config.file import BUILD_TAG, DocumentCommit, Documents, Escalate, ReleaseFile, SyncPage, json_schema
from relais.config.image import Build, Push, SizeLimits
from relais.config.preflight import Check, Git, Preflight, Reading, Waiver
from relais.config.problems import Problem
from relais.config.reading import check, load, load_env_file, parse
from relais.config.reference import reference
from relais.config.release import Change, Release, slug_of
from relais.config.scalars import Cpu, Size, duration, duration_text, fill, found_in, placeholders, size
from relais.config.section import FACTS, NAMES
from relais.config.settings import emulator_host, home, who

__all__ = [
    "BUILD_TAG",
    "FACTS",
    "METHODS",
    "NAMES",
    "Build",
    "Canary",
    "Change",
    "Changes",
    "Check",
    "Counter",
    "Cpu",
    "Deploy",
    "DocumentCommit",
    "Documents",
    "Endpoint",
    "EnvRules",
    "Escalate",
    "Git",
    "Header",
    "Hook",
    "Hooks",
    "HttpCheck",
    "HttpRequest",
    "JudgeSettings",
    "LogExpectation",
    "MetricGroup",
    "Noise",
    "Preflight",
    "Probe",
    "Probes",
    "Problem",
    "Push",
    "Reading",
    "Release",
    "ReleaseFile",
    "Scaling",
    "SecretVersion",
    "Size",
    "SizeLimits",
    "Smoke",
    "SyncPage",
    "TrafficProbes",
    "Validation",
    "Verify",
    "VersionCheck",
    "Volume",
    "Vpc",
    "Waiver",
    "WebSocketCheck",
    "check",
    "duration",
    "duration_text",
    "emulator_host",
    "fill",
    "found_in",
    "home",
    "json_schema",
    "load",
    "load_env_file",
    "parse",
    "placeholders",
    "reference",
    "size",
    "slug_of",
    "who",
]
