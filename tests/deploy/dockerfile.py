"""Reads a Dockerfile as far as the checks need it."""

import json
import re
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatch

# Those that we use; another one is a typo until it is added here.
INSTRUCTIONS = {
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "RUN",
    "USER",
    "VOLUME",
    "WORKDIR",
}


@dataclass
class Stage:
    """A stage: its name, what it is made from, and its instructions in order."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for name, text in self.instructions if name == instruction]


class Dockerfile:
    """The stages of a Dockerfile. Raises ValueError for what is no instruction."""

    def __init__(self, text: str) -> None:
        self.arguments: dict[str, str] = {}
        self.stages: dict[str, Stage] = {}
        stage: Stage | None = None
        for instruction, rest in _instructions(text):
            if instruction == "FROM":
                match = re.fullmatch(r"(\S+) AS ([a-z][a-z0-9-]*)", rest)
                if match is None:
                    raise ValueError(f"FROM: expected IMAGE AS NAME, got {rest!r}")
                stage = self.stages[match[2]] = Stage(match[2], match[1])
            elif stage is not None:
                stage.instructions.append((instruction, rest))
            elif instruction == "ARG":
                name, _, value = rest.partition("=")
                self.arguments[name] = value
            else:
                raise ValueError(f"{instruction} stands before the first FROM")

    def lineage(self, name: str) -> list[Stage]:
        """Returns a stage and the stages it is made from, the first one first."""
        stage = self.stages[name]
        return [*(self.lineage(stage.base) if stage.base in self.stages else []), stage]

    def environment(self, name: str) -> dict[str, str]:
        """Returns the variables of an image."""
        texts = [text for stage in self.lineage(name) for text in stage.all("ENV")]
        return {word.partition("=")[0]: word.partition("=")[2] for text in texts for word in shlex.split(text)}

    def last(self, name: str, instruction: str) -> str | None:
        """Returns what the last such instruction of an image says."""
        texts = [text for stage in self.lineage(name) for text in stage.all(instruction)]
        return texts[-1] if texts else None

    def problems(self) -> list[str]:
        """Returns what is wrong with the order of stages and the form of instructions."""
        found = []
        known: set[str] = set()
        for stage in self.stages.values():
            base = stage.base.removeprefix("${").removesuffix("}")
            if stage.base not in known and base not in self.arguments:
                found.append(f"FROM {stage.base}: neither an earlier stage nor an ARG")
            for text in stage.all("COPY"):
                source = re.match(r"--from=(\S+)", text)
                if source and source[1] not in known:
                    found.append(f"COPY {text}: no earlier stage {source[1]}")
            for instruction in ("CMD", "ENTRYPOINT"):
                found += [
                    f"{instruction} {text}: not in exec form" for text in stage.all(instruction) if not words(text)
                ]
            known.add(stage.name)
        return found

    def copied(self) -> list[str]:
        """Returns every path that is copied from the build context."""
        texts = [text for stage in self.stages.values() for text in stage.all("COPY") if not text.startswith("--from")]
        return [source for text in texts for source in shlex.split(text)[:-1]]


def words(text: str) -> list[str]:
    """Returns the words of an exec form, or nothing for another form."""
    try:
        value = json.loads(text[text.index("[") :])
    except ValueError:
        return []
    return [str(word) for word in value]


def is_ignored(path: str, rules: list[str]) -> bool:
    """Says whether a .dockerignore leaves a path out; the last rule that matches it or a parent decides."""
    parts = path.split("/")
    parents = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        patterns = [pattern, pattern.removeprefix("**/")] if pattern.startswith("**/") else [pattern]
        if any(fnmatch(parent, one) for parent in parents for one in patterns):
            ignored = not rule.startswith("!")
    return ignored


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction not in INSTRUCTIONS or not rest.strip():
            raise ValueError(f"not an instruction: {line.strip()!r}")
        found.append((instruction, " ".join(rest.split())))
    return found
