"""`python -m localcloud` serves the local cloud; `down` removes a clone's containers, `import` and `export` move states by file."""

import argparse
import asyncio
import ipaddress
import logging
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from localcloud import httplog, snapshot
from localcloud.admin.control import AS_REAL, LENIENT
from localcloud.form import Unusable
from localcloud.instances.engine import Engine
from localcloud.server import LOG_MEGABYTES, CannotServe, Settings, offline, remove_containers, serve
from localcloud.wire import Refusal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        os.umask(0o077)  # the state holds values of environment variables: it is for this user alone
        if given and given[0] in _COMMANDS:
            return _COMMANDS[given[0]](given[1:])
        settings = _settings(given)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
        httplog.shorten()
        asyncio.run(serve(settings))
    except (CannotServe, OSError) as error:
        print(f"localcloud: {error}", file=sys.stderr)
        return 1
    except Refusal as refusal:
        print(f"localcloud: {refusal.message}", file=sys.stderr)
        return 1
    except Unusable as error:
        print(f"localcloud: nothing was {given[0]}ed: {error}", file=sys.stderr)
        return 1
    except sqlite3.Error as error:
        print(f"localcloud: a file of the state cannot be used ({error}): make room on the disk, or move the state away.", file=sys.stderr)
        return 1
    return 0


def _settings(arguments: Sequence[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="localcloud", description="Serve Cloud Run, and what a service there needs, on this machine.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on: a loopback one (127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8800, help="the gRPC port (8800)")
    parser.add_argument("--admin-port", type=_port_or_any, default=0, help="the admin endpoint's port (0: as before, or a free one)")
    parser.add_argument("--state", type=Path, required=True, help="the folder for the state and the logs")
    parser.add_argument("--registry", required=True, help="host:port of the image registry behind Artifact Registry")
    where = "the port that Docker pushes to and pulls from (0: the one it always had, else a free one)"
    parser.add_argument("--registry-port", type=_port, default=0, help=where)
    parser.add_argument("--log-megabytes", type=_megabytes, default=LOG_MEGABYTES, help="how much of log entries is kept, the newest (256)")
    parser.add_argument("--clone", required=True, type=_clone, help="the label of this clone's containers")
    parser.add_argument("--startup-seconds", type=_seconds, help="how long a container may take to listen (30; 240 if --strict)")
    parser.add_argument("--idle-seconds", type=_seconds, default=900, help="how long an instance is kept without requests (900)")
    parser.add_argument("--pending-seconds", type=_seconds, default=10, help="how long a request waits when all instances are busy (10)")
    parser.add_argument("--max-containers", type=_count, default=40, help="how many containers may run at once on this machine (40)")
    parser.add_argument("--down-removes", action="store_true", help="remove the containers when the local cloud ends")
    strict = "as on Google from the start: quotas, registry tokens, delays of logs and metrics, 240 s for a start (see /behaviour)"
    parser.add_argument("--strict", action="store_true", help=strict)
    published = "reach containers by published ports, also where their own addresses are reached (slower)"
    parser.add_argument("--published-ports", action="store_true", help=published)
    parser.add_argument("--allow-remote", action="store_true", help="serve other machines too: whoever reaches it may do everything")
    found = parser.parse_args(arguments)
    if not _loopback(found.host):
        if not found.allow_remote:
            text = f"{found.host} is not a loopback address of IPv4: everybody may do everything here, so it serves this machine only."
            raise CannotServe(f"{text} With --allow-remote it serves whoever reaches that address.")
        text = f"WARNING: it serves on {found.host}, not only on this machine: whoever reaches it may read, change and run everything."
        print(f"localcloud: {text}", file=sys.stderr)
    return Settings(
        host=found.host,
        port=found.port,
        admin_port=found.admin_port,
        state=found.state.resolve(),
        registry=found.registry,
        registry_port=found.registry_port,
        log_megabytes=found.log_megabytes,
        clone=found.clone,
        startup_seconds=found.startup_seconds or (AS_REAL if found.strict else LENIENT).startup_seconds,
        idle_seconds=found.idle_seconds,
        pending_seconds=found.pending_seconds,
        max_containers=found.max_containers,
        down_removes=found.down_removes,
        strict=found.strict,
        published_ports=found.published_ports,
    )


def _down(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="localcloud down", description="Remove the containers of a clone; its state stays.")
    parser.add_argument("--clone", required=True, type=_clone, help="the label of the clone's containers")
    found = parser.parse_args(arguments)
    engine = Engine(found.clone)
    removed = asyncio.run(remove_containers(engine))
    engine.close()
    print(f"removed {removed} container{'' if removed == 1 else 's'} of clone {found.clone}")
    return 0


def _import(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="localcloud import", description="Take services, revisions and log entries into a state.")
    parser.add_argument("file", type=Path, help="the JSON file (see localcloud/snapshot.py)")
    parser.add_argument("--state", type=Path, required=True, help="the folder of the state, which nobody uses at the moment")
    found = parser.parse_args(arguments)
    taken = snapshot.read(found.file.read_bytes())
    with offline(found.state.resolve()) as (state, store):
        snapshot.write(taken, state, store)
    print(f"imported {taken}")
    return 0


def _export(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="localcloud export", description="Print a state as the JSON file that import takes.")
    parser.add_argument("--state", type=Path, required=True, help="the folder of the state, which nobody uses at the moment")
    found = parser.parse_args(arguments)
    if not (found.state / "cloud.sqlite").is_file():
        raise CannotServe(f"{found.state} is no state of a local cloud: no cloud.sqlite is in it. Name the folder that --state was given.")
    with offline(found.state.resolve()) as (state, store):
        print(snapshot.export(state, store))
    return 0


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"down": _down, "import": _import, "export": _export}


def _loopback(host: str) -> bool:
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port: use 1 to 65535")
    return int(text)


def _port_or_any(text: str) -> int:
    return 0 if text == "0" else _port(text)


def _megabytes(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of megabytes from 1 to 999999")
    return int(text)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 9999")
    return int(text)


def _clone(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,40}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no clone id: use up to 41 letters, digits, dots, hyphens and underscores")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return value


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all is closed; threads that wait for an Engine that does not answer are not waited for
