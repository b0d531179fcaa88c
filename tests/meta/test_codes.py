"""One vocabulary: every code that is raised is in it, and every code in it is raised somewhere."""

import ast
import re
from collections.abc import Iterator

from sidecar.contract.codes import CODES, HTTP_STATUS
from tests.meta.sources import name, python_files, tree


def raised() -> Iterator[tuple[str, str]]:
    """Yields the file and the code of every error whose first argument is a literal."""
    for path in python_files("sidecar", "flusher"):
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called.endswith("Error") or called in {"Unavailable", "Refusal", "NotYet"}:
                value = node.args[0].value
                if isinstance(value, str) and re.fullmatch(r"[a-z]+(_[a-z]+)+", value):
                    yield name(path), value


def test_every_code_that_is_raised_is_in_the_vocabulary() -> None:
    unknown = {(where, code) for where, code in raised() if code not in CODES}
    assert not unknown


def test_every_code_of_the_vocabulary_is_used() -> None:
    texts = "\n".join(path.read_text() for path in python_files("sidecar", "flusher") if path.name != "codes.py")
    unused = {code for code in CODES if f'"{code}"' not in texts}
    assert not unused


def test_codes_are_snake_case_and_explained_and_statuses_belong_to_codes() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in CODES)
    assert all(len(text) > 15 for text in CODES.values())
    assert HTTP_STATUS.keys() <= CODES.keys()
