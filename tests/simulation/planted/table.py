"""The table of planted bugs, and what plants them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final
from unittest.mock import patch

from sidecar.contract import scripts

Plant = Callable[[], Iterator[None]]


@dataclass(frozen=True)
class Bug:
    """A bug: its rule, the histories that show it soonest (profile, kinds of faults), and the patch."""

    rule: str
    profile: str
    kinds: tuple[str, ...]
    plant: Callable[[], AbstractContextManager[None]]


BUGS: Final[dict[str, Bug]] = {}


def bug(rule: str, profile: str, *kinds: str) -> Callable[[Plant], Plant]:
    """Enters a bug in the table, under the name of the function that plants it."""

    def enter(plant: Plant) -> Plant:
        BUGS[plant.__name__] = Bug(rule, profile, kinds, contextmanager(plant))
        return plant

    return enter


@contextmanager
def changed_script(name: str, *changes: tuple[bytes, bytes]) -> Iterator[None]:
    """Changes the text of a script. Raises ValueError when what is to be changed is no longer there."""
    original = scripts.script

    def changed(wanted: scripts.ScriptName) -> scripts.Script:
        found = original(wanted)
        if wanted != name:
            return found
        text = found.text
        for old, new in changes:
            if old not in text:
                raise ValueError(f"{name}.lua no longer has {old!r}")
            text = text.replace(old, new)
        return scripts.Script(text, found.sha1[:-4] + "beef")

    with patch.object(scripts, "script", changed):
        yield
