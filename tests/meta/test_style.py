"""The house rules that no linter knows. Each test lists what breaks its rule."""

import ast
import re

from tests.meta.sources import ROOT, files, name, python_files, tree

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
PRODUCT = ("sidecar", "flusher")
EXACT = ("sidecar/contract", "flusher/pricing", "flusher/catalog", "flusher/invoicing/invoice.py")
SECONDS = "sidecar/contract/settings.py"  # durations are floats, and this module reads nothing else


def test_modules_are_small_enough_to_read() -> None:
    lines = {name(path): path.read_text(encoding="utf-8").count("\n") for path in python_files()}
    assert {path: count for path, count in lines.items() if count > MODULE_LINES_MAX} == {}


def test_functions_fit_on_a_screen() -> None:
    long = {
        f"{name(path)}:{node.lineno} {node.name}": length
        for path in python_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_the_product_asserts_nothing() -> None:
    """An assert vanishes under -O; a rule that must hold raises `invariant_broken`."""
    found = [
        f"{name(path)}:{node.lineno}"
        for path in python_files(*PRODUCT)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_money_and_units_are_never_floats() -> None:
    found = [
        f"{name(path)}:{node.lineno}"
        for path in python_files(*EXACT)
        if name(path) != SECONDS
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float")
        or (isinstance(node, ast.Constant) and isinstance(node.value, float))
    ]
    assert found == []


def test_the_contract_stands_alone() -> None:
    """`flusher` imports the contract, and must not get the server with it."""
    found = [
        f"{name(path)}: {module}"
        for path in python_files("sidecar/contract")
        for node in ast.walk(tree(path))
        for module in _imported(node)
        if module.partition(".")[0] == "sidecar" and not module.startswith("sidecar.contract")
    ]
    assert found == []


def test_importing_the_packages_loads_no_more_than_themselves() -> None:
    for package in PRODUCT:
        init = ROOT / package / "__init__.py"
        assert [node for node in ast.walk(tree(init)) if list(_imported(node))] == [], name(init)


def test_nothing_is_suppressed_skipped_or_left_to_do() -> None:
    # With brackets, or this line would be the first that breaks the rule.
    words = re.compile(r"[n]oqa|type: [i]gnore|pyright: [i]gnore|mark[.]skip\b|pytest[.]skip|[x]fail|[T]ODO|[F]IXME")
    found = [
        f"{name(path)}:{number} {match[0]}"
        for path in python_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for match in words.finditer(line)
    ]
    assert found == []


def test_sql_and_lua_live_in_files_of_their_own() -> None:
    statement = re.compile(
        r"^\s*(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s.+\sSET|DELETE\s+FROM|CREATE\s+TABLE)\b", re.DOTALL
    )
    found = [
        f"{name(path)}:{node.lineno}"
        for path in python_files(*PRODUCT)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and (statement.match(node.value) or "redis.call(" in node.value)
    ]
    assert found == []


def test_no_file_names_a_directory_of_somebodys_machine() -> None:
    somebodys = re.compile(r"(?<![\w.])/(?:work|farm|root|Users)/[\w.-]+")
    found = [
        f"{name(path)}:{number} {match[0]}"
        for path in files()
        if path.name != "LICENSE"
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        for match in somebodys.finditer(line)
    ]
    assert found == []


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []
