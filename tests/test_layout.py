"""The layout of the package: rooms, the direction of imports, sizes, and one name for one thing."""

import ast
import importlib
import importlib.util
from collections import defaultdict
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "jaxalign"
COMMANDS = {"train", "crest", "generate", "evaluate", "export", "survey", "report", "study"}
FILES = sorted(PACKAGE.rglob("*.py"))


def test_a_room_imports_only_from_the_rooms_below_it_and_no_circle_exists():
    """The contracts stand in pyproject.toml; `lint-imports` prints what breaks them."""
    assert lint_imports(config_filename=str(REPOSITORY / "pyproject.toml"), no_cache=True) == 0


def test_the_root_holds_the_commands_and_the_interfaces_alone():
    assert {path.stem for path in PACKAGE.glob("*.py")} == COMMANDS | {"__init__", "api", "harness", "errors"}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_is_seventeen_lines_without_logic(name):
    assert len((PACKAGE / f"{name}.py").read_text(encoding="utf-8").splitlines()) == 17


def test_files_carry_one_concept_each():
    sizes = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in FILES}
    assert {name: size for name, size in sizes.items() if size > 400} == {}
    assert len([size for size in sizes.values() if size > 300]) <= 5
    assert not {path.stem for path in FILES} & {"utils", "util", "helpers", "common", "misc"}


def test_functions_are_short():
    long = {
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and int(node.end_lineno or 0) - node.lineno >= 80
    }
    assert long <= {"decode", "fit"}  # the two loops: the steps of a decode call, and those of a training stage


def test_tests_stand_in_the_folder_of_what_they_test():
    tests = REPOSITORY / "tests"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    rooms = {path.parent.relative_to(PACKAGE) for path in FILES}
    assert {str(one) for one in folders - rooms} == {"aot", "launch"}  # of compiled programs, and of the folder launch/


def test_one_name_means_one_thing():
    places = defaultdict(set)
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [one.id for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            for name in names:
                if not name.startswith("_"):
                    places[name].add(path.relative_to(PACKAGE).as_posix())
    twice = {name: sorted(where) for name, where in places.items() if len(where) > 1}
    commands = {f"{name}.py" for name in COMMANDS} | {"harness.py"}
    assert set(twice.pop("main")) == commands  # each command's entry
    assert twice == {}
    assert not [name for name in places if name.startswith("test_")]  # pytest would collect it where it is imported


@pytest.mark.parametrize("path", sorted((REPOSITORY / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_imports_only_what_is_there(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("jaxalign"):
            module = importlib.import_module(str(node.module))
            for one in node.names:
                assert hasattr(module, one.name) or importlib.util.find_spec(f"{node.module}.{one.name}"), one.name
