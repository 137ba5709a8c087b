"""The command line: check release files, print their JSON Schema and their reference page."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from relais.config import check, json_schema, reference


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code is 0, or 2 where a file cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m relais", description="Cloud Run releases from a release file.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    checking = commands.add_parser("check", help="say what is wrong with release files, and nothing else")
    checking.add_argument("files", nargs="*", type=Path, default=[Path("release.yaml")], metavar="FILE", help="otherwise ./release.yaml")
    commands.add_parser("schema", help="print the JSON Schema of a release file")
    telling = commands.add_parser("reference", help="print the reference page of a release file, in Markdown")
    telling.add_argument("example", nargs="?", type=Path, metavar="FILE", help="a release file to show as the example")
    given = parser.parse_args(arguments)
    if given.command == "schema":
        print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return 0
    if given.command == "reference":
        return _reference(given.example)
    problems = [problem for path in given.files for problem in check(path)]
    for problem in problems:
        print(problem)
    return 2 if problems else 0


def _reference(example: Path | None) -> int:
    try:
        text = example.read_text(encoding="utf-8") if example else ""
    except (OSError, UnicodeDecodeError) as problem:
        print(f"{example}: cannot be read ({problem})", file=sys.stderr)
        return 2
    print(reference(text), end="")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
