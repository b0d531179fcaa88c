"""Checks that what a container runs exists: its command, its flags, its variables, and that they are enough."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import flusher.config
import sidecar.config
from flusher.cli import invoice, stripe_target, target
from flusher.cli.main import COMMANDS
from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import SECRET_VARIABLES, describe, with_secrets

# What the files hold that the variables name.
SECRETS = {
    "TAXIMETER_REDIS_URL_FILE": "redis://:password@redis.example:6379\n",
    "TAXIMETER_DATABASE_URL_FILE": "postgresql://taximeter:password@postgres.example/taximeter\n",
    "TAXIMETER_TOKEN_FILE": "a-token-of-more-than-thirty-two-characters\n",
    "STRIPE_API_KEY_FILE": "sk_test_0123456789\n",
}
_OURS = ("TAXIMETER_", "STRIPE_", "REDIS_URL", "DATABASE_URL")


@dataclass(frozen=True)
class Run:
    """A container of one of our images: which (`sidecar` or `flusher`), its arguments, and its environment."""

    image: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def known_variables(image: str) -> set[str]:
    """Returns every variable that the programs of an image read."""
    secrets = {name for variable in SECRET_VARIABLES for name in (variable, f"{variable}_FILE")}
    if image == "sidecar":
        return {described.variable for described in describe(sidecar.config.Settings)} | {
            name for name in secrets if "REDIS" in name
        }
    named = {name for names in target._ENVIRONMENT.values() for name in names}
    stripe = {
        stripe_target.KEY_VARIABLE,
        stripe_target.KEY_FILE_VARIABLE,
        stripe_target.BASE_VARIABLE,
        stripe_target.COLLECT_VARIABLE,
        stripe_target.METHOD_VARIABLE,
        stripe_target.DAYS_VARIABLE,
        stripe_target.TAX_VARIABLE,
        stripe_target.ZERO_VARIABLE,
        stripe_target.CUSTOMERS_VARIABLE,
        stripe_target.RATE_VARIABLE,
        stripe_target.CONCURRENCY_VARIABLE,
    }
    settings = {described.variable for described in describe(flusher.config.Settings)}
    return settings | named | secrets | stripe | {invoice.WINDOW_VARIABLE}


def problems(run: Run, directory: Path) -> list[str]:
    """Returns what a container can't do: an unknown command, flag or variable, or something that is missing.

    Secrets are put into files in `directory`.
    """
    known = known_variables(run.image)
    found = [f"unknown variable {name}" for name in run.environment if name.startswith(_OURS) and name not in known]
    name, *flags = run.arguments
    if name == "--help":
        return found
    if name not in COMMANDS:
        return [*found, f"unknown command {name}"]
    if (run.image == "sidecar") != (name == "sidecar"):
        return [*found, f"the image {run.image} can't run {name}"]
    parser = _Parser(allow_abbrev=False)
    module: Any = import_module(COMMANDS[name].module)
    module.add_arguments(parser)
    try:
        parsed = parser.parse_args(flags)
        _start(name, parsed, _with_files(run.environment, directory))
    except (ValueError, TaximeterError) as error:
        found.append(f"{name}: {error}")
    return found


def _with_files(environment: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Returns the environment with files that are there in place of those of the container."""
    changed = dict(environment)
    for name, text in SECRETS.items():
        if name in environment:
            file = directory / name
            file.write_text(text, encoding="utf-8")
            changed[name] = str(file)
    return changed


def _start(name: str, parsed: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Reads settings and target as the command would; raises what it would."""
    if name in {"sidecar", "flusher"}:
        config = sidecar.config if name == "sidecar" else flusher.config
        config.settings_from(vars(parsed), with_secrets(environment, Path.read_text))
        return
    found = target.find_target(parsed, environment)
    if hasattr(parsed, "target_database"):
        found.need_database()
    if hasattr(parsed, "target_redis"):
        found.need_redis()
    if name == "invoice":
        invoice.find_window(parsed.finalization_window_s, environment)
        stripe_target.find_stripe(environment, live=parsed.live)
