"""The command line: check release files, print their JSON Schema."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from relais.config import check, json_schema


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code is 0, or 2 where a file cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m relais", description="Cloud Run releases from a release file.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    checking = commands.add_parser("check", help="say what is wrong with release files, and nothing else")
    checking.add_argument("files", nargs="*", type=Path, default=[Path("release.yaml")], metavar="FILE", help="otherwise ./release.yaml")
    commands.add_parser("schema", help="print the JSON Schema of a release file")
    given = parser.parse_args(arguments)
    if given.command == "schema":
        print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return 0
    problems = [problem for path in given.files for problem in check(path)]
    for problem in problems:
        print(problem)
    return 2 if problems else 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
