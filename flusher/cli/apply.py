"""`taximeter apply FILE`: put a catalog file in force, whole or not at all, or show what it would change."""

import argparse
import json
import sys
from pathlib import Path

from flusher.catalog.diff import Change
from flusher.catalog.encode import entry_table
from flusher.catalog.parse import FILE_BYTES_MAX
from flusher.catalog.problem import CatalogError, Problem
from flusher.catalog_store import Applied, apply_catalog
from flusher.cli.instant import instant
from flusher.cli.target import add_target_arguments, find_target
from flusher.database import check_schema, connect
from sidecar.contract.codes import TaximeterError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the file, `--dry-run` and `--json`."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the catalog: meters, plans, customers (TOML)")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    parser.add_argument(
        "--effective",
        metavar="T",
        type=instant,
        help="when changed plans and subscriptions take effect, in the middle of a period too (default: with the "
        "periods that begin next)",
    )
    parser.add_argument(
        "--into-closed",
        action="store_true",
        help="let --effective reach behind what is invoiced: periods that begin at or after it are rated anew",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")


def run(args: argparse.Namespace) -> int:
    """Apply the file and say what changed. Raises CatalogError with every problem of the file."""
    try:
        if args.into_closed and args.effective is None:
            raise TaximeterError("usage_invalid", "--into-closed: expected --effective T with it")
        text = read_catalog_file(args.file)
        target = find_target(args)
        url = target.need_database()
        target.announce("database")
        with connect(url) as connection:
            check_schema(connection)
            applied = apply_catalog(
                connection, text, dry_run=args.dry_run, effective=args.effective, into_closed=args.into_closed
            )
    except CatalogError as error:
        if args.json:
            _print_json({"applied": False, "problems": [_problem_json(problem) for problem in error.problems]})
        raise
    if args.json:
        _print_json(_applied_json(applied, dry_run=args.dry_run))
    else:
        sys.stdout.write(_summary(applied, dry_run=args.dry_run))
    return 0


def read_catalog_file(path: Path) -> str:
    """Return the text of a catalog file.

    Raises TaximeterError `usage_invalid` for a file that can't be read, CatalogError for one that is too large
    or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        message = f"FILE: expected a catalog file that can be read, got {str(path)!r}: {error.strerror}"
        raise TaximeterError("usage_invalid", message) from error
    if len(content) > FILE_BYTES_MAX:
        raise CatalogError([Problem(str(path), f"expected a file of at most {FILE_BYTES_MAX:,} bytes")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CatalogError([Problem(f"line {line}", "expected UTF-8, got other bytes; save it as UTF-8")]) from error


def _applied_json(applied: Applied, *, dry_run: bool) -> dict[str, object]:
    return {
        "applied": not dry_run,
        "dry_run": dry_run,
        "revision": applied.revision,
        "changes": [
            {
                "section": change.section,
                "name": change.name,
                "action": "change" if change.before else "add",
                "version": applied.plan_versions.get(change.name) if change.section == "plans" else None,
                "note": change.note or None,
                "before": entry_table(change.before) if change.before else None,
                "after": entry_table(change.after),
            }
            for change in applied.changes.changes
        ],
    }


def _problem_json(problem: Problem) -> dict[str, object]:
    return {"path": problem.path, "code": problem.code, "message": problem.message}


def _summary(applied: Applied, *, dry_run: bool) -> str:
    """Return what changed, for a person: an entry a line, and each key that differs below it."""
    changes = applied.changes.changes
    if not changes:
        return "nothing to change: the catalog is as the file says\n"
    lines = [line for change in changes for line in _change_lines(change)]
    added = sum(change.before is None for change in changes)
    done = "would be added" if dry_run else "added"
    lines.append(f"{added} {done}, {len(changes) - added} {'would be ' if dry_run else ''}changed")
    return "\n".join(lines) + "\n"


def _change_lines(change: Change) -> list[str]:
    note = f" ({change.note})" if change.note else ""
    head = f"{'~' if change.before else '+'} {change.section.removesuffix('s')} {change.name}{note}"
    if change.before is None:
        return [head]
    return [
        head,
        *(f"    {item.path}: {item.before or 'none'} -> {item.after or 'none'}" for item in change.differences),
    ]


def _print_json(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
