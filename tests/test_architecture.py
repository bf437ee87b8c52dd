"""The rules of the layout, read from the source: imports go one way, and some packages live in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "rsd_cli"
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
LAYERS = (
    ("cli", "__main__"),
    ("batch", "chat", "decoding", "evaluation", "registry", "output", "display"),
    ("engine", "rewards"),
    ("records", "errors", "strictjson"),
)
ONLY_IN = {
    "typer": ("rsd_cli.cli",),
    "click": (),
    "rich": ("rsd_cli.display",),
    "prompt_toolkit": ("rsd_cli.chat.prompt",),
    "yaml": ("rsd_cli.registry",),
    "huggingface_hub": ("rsd_cli.registry",),
    "llama_cpp": ("rsd_cli.engine.llama", "rsd_cli.engine.floor"),  # the latter is what bench compares with
    "ctypes": (
        *(f"rsd_cli.engine.{name}" for name in ("llama", "context", "sampling", "amx")),
        "rsd_cli.cli.supervisor",
    ),
    "jinja2": ("rsd_cli.engine.template_worker",),
    "math_verify": ("rsd_cli.evaluation.maths_worker",),  # both only where a formula can hurt nobody
    "sympy": ("rsd_cli.evaluation.maths_worker",),
    "datasets": ("rsd_cli.evaluation.taskdata",),
}
PURE = ("rsd_cli.decoding", "rsd_cli.rewards", "rsd_cli.records", "rsd_cli.errors", "rsd_cli.strictjson")
ONLY_PURE_KNOW_NOT = {"subprocess", "socket", "requests", "pathlib", "os", "sys", "io"}
FILES_OF_REWARDS = tuple(
    f"rsd_cli.rewards.{name}" for name in ("heads", "spec", "pickles", "checkpoints", "convert")
)


def tree(name):
    return ast.parse(MODULES[name].read_text("utf-8"))


def imports(name):
    """Every module that a module imports, also inside functions and for types only."""
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(name):
    part = name.split(".")[1] if "." in name else name
    return next((i for i, parts in enumerate(LAYERS) if part in parts), None)


def within(name, packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    own = layer(name)
    for imported in imports(name):
        theirs = layer(imported) if imported.startswith("rsd_cli.") else None
        if own is not None and theirs is not None:
            assert theirs >= own, f"{name} imports {imported}, which lies above it"


def test_every_module_belongs_to_a_layer():
    assert {name for name in MODULES if layer(name) is None} == {"rsd_cli"}


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_known_in_its_place_only(package):
    users = {name for name in MODULES if any(within(imported, [package]) for imported in imports(name))}
    assert {name for name in users if not within(name, ONLY_IN[package])} == set()
    assert users or not ONLY_IN[package], f"nobody imports {package}: the rule is out of date"


@pytest.mark.parametrize(
    "name", [name for name in MODULES if within(name, PURE) and name not in FILES_OF_REWARDS]
)
def test_what_decides_does_no_input_or_output(name):
    roots = {imported.split(".")[0] for imported in imports(name)}
    assert roots & ONLY_PURE_KNOW_NOT == set()
    calls = {
        node.func.id
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert calls & {"open", "print", "input"} == set()


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_a_drawer_for_everything(name):
    assert set(name.split(".")) & {"utils", "util", "common", "base", "core", "helpers", "misc"} == set()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is(name):
    docstring = ast.get_docstring(tree(name))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", "?")), docstring.splitlines()[0]
