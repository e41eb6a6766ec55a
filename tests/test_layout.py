"""The shape of the project: who may import whom, sizes of files and functions, what the wheel holds, what is public."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lcm_data import schema
from lcm_data.decode import DecoderOptions
from lcm_data.documents import Columns, ReadOptions
from lcm_data.encode import EncoderOptions
from lcm_data.exchange.slices import Defaults
from lcm_data.splits import SplitRule
from lcm_data.version import __version__
from lcm_data.workers.decode import DecodeWorker
from lcm_data.workers.encode import EncodeWorker
from lcm_data.workers.imported import ImportSegmentsWorker, ImportVectorsWorker
from lcm_data.workers.quantize import QuantizeWorker
from lcm_data.workers.segment import SegmentWorker

ROOT = Path(__file__).parents[1]
PACKAGES = ("lcm_data", "lcm_models", "pipelines")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 50
LONG: dict[str, str] = {}
"""Files or functions that may be longer, with the reason."""

HEAVY = {
    "torch",
    "ray",
    "faiss",
    "spacy",
    "stanza",
    "wtpsplit",
    "transformers",
    "sentencepiece",
    "huggingface_hub",
    "matplotlib",
    "duckdb",
    "jinja2",
    "s3fs",
    "sacrebleu",
    "datasets",
    "lance",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(nodes: Iterator[ast.AST] | list[Any]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def num_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring, which may be as long as it needs to be."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= (function.body[0].end_lineno or 0) - function.body[0].lineno + 1
    return lines


ids = {"argvalues": MODULES, "ids": [name_of(path) for path in MODULES]}


@pytest.mark.parametrize("path", **ids)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    doc = ast.get_docstring(tree_of(path))
    assert doc
    assert len(doc.split()) >= 5
    assert doc.split("\n")[0].endswith((".", ":", "?")) or ". " in doc


@pytest.mark.parametrize("path", **ids)
def test_sizes(path: Path) -> None:
    too_long = {}
    if name_of(path) not in LONG:
        too_long[name_of(path)] = max(0, len(path.read_text("utf-8").splitlines()) - MAX_FILE_LINES)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and f"{name_of(path)}:{node.name}" not in LONG:
            lines = num_lines(node)
            too_long[f"{name_of(path)}:{node.name}"] = max(0, lines - MAX_FUNCTION_LINES)
    assert {name: over for name, over in too_long.items() if over} == {}


def test_only_what_is_too_long_is_excused() -> None:
    functions = {
        f"{name_of(path)}:{node.name}": num_lines(node)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef)
    }
    files = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    for name in LONG:
        assert functions.get(name, 0) > MAX_FUNCTION_LINES or files.get(name, 0) > MAX_FILE_LINES, name


@pytest.mark.parametrize("path", **ids)
def test_direction_of_imports(path: Path) -> None:
    """pipelines -> lcm_models -> lcm_data; only the command line reaches the pipelines, inside its functions."""
    tree, name = tree_of(path), name_of(path)
    used = {module.split(".")[0] for module in imports(list(ast.walk(tree)))}
    if name.startswith("lcm_data/"):
        assert "lcm_models" not in used
        if not name.startswith("lcm_data/cli/"):
            assert "pipelines" not in used
    if name.startswith("lcm_models/"):
        assert "pipelines" not in used
    assert not used & {"tests", "benchmarks", "cli"}
    top = {module.split(".")[0] for module in imports(tree.body)}
    if name.startswith("lcm_data/cli/"):
        assert "pipelines" not in top


@pytest.mark.parametrize("path", **ids)
def test_ray_is_the_business_of_the_pool(path: Path) -> None:
    used = {module.split(".")[0] for module in imports(list(ast.walk(tree_of(path))))}
    assert "ray" not in used or name_of(path) in ("lcm_data/pool.py", "lcm_models/train/ray_launch.py")


def test_importing_the_package_is_light() -> None:
    """The reading side and the command line load no framework: heavy packages are imported where they are used."""
    modules = [
        "lcm_data",
        "lcm_data.corpus",
        "lcm_data.runner",
        "lcm_data.pool",
        "lcm_data.workers.segment",
        "lcm_data.workers.encode",
        "lcm_data.workers.decode",
        "lcm_data.workers.quantize",
        "lcm_data.workers.imported",
        "lcm_data.workers.process",
        "lcm_data.segment",
        "lcm_data.encode",
        "lcm_data.decode",
        "lcm_data.normalize",
        "pipelines.segment",
        "pipelines.encode",
        "pipelines.decode",
        "pipelines.quantize",
        "pipelines.normalize",
        "pipelines.look",
        "pipelines.statistics",
        "pipelines.report",
        "pipelines.search",
        "lcm_data.search",
        "pipelines.import_vectors",
        "pipelines.export",
        "pipelines.evaluate_space",
        "pipelines.evaluate_codes",
        "pipelines.dequantize",
        "lcm_data.workers.dequantize",
    ]
    script = f"import sys, {', '.join(modules)}; print(sorted({HEAVY!r} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]"


def test_columns_are_spelled_where_they_are_made() -> None:
    """Names that are no everyday words stand in the schema and in the workers that fill them, so renaming is local."""
    stages = (schema.SEGMENTS, schema.DECODED, schema.embeddings_schema(1), schema.codes_schema(1))
    fields = {name for stage in stages for name in stage.names}
    everyday = {
        "sid",
        "doc_id",
        "text",
        "emb",
        "codes",
        "norm",
        "truncated",
        "source",
        "modality",
        "sent_idx",
        "lid_score",
        "score",
    }
    looks = {f"pipelines/{name}.py" for name in ("look", "look_recordings", "statistics", "demo")}
    may_know = {"lcm_data/schema.py", "lcm_models/speech/clips.py", *looks}
    for path in MODULES:
        name = name_of(path)
        if name in may_know or name.startswith("lcm_data/workers/"):
            continue
        strings = {
            node.value
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & (fields - everyday), name


def test_every_public_name_has_a_docstring() -> None:
    package = importlib.import_module("lcm_data")
    public = package.__all__
    assert "open_corpus" in public
    for name in public:
        value = getattr(package, name)
        if callable(value) or inspect.isclass(value):
            assert inspect.getdoc(value), name
            for attribute, member in vars(value).items() if inspect.isclass(value) else ():
                if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                    assert inspect.getdoc(member), f"{name}.{attribute}"


# --- what travels and what ships -----------------------------------------------------------------------------------


def test_workers_are_small() -> None:
    """They are sent to every worker process; rows and weights are not."""
    facts = {f"fact{n}": "x" * 64 for n in range(20)}
    workers = [
        SegmentWorker(
            "s3://b/c", Columns(), ReadOptions(), None, 0.5, "rules", None, 250, SplitRule(), "0" * 64, facts
        ),
        EncodeWorker("s3://b/c", "s3://b/d", EncoderOptions(model="m"), "0" * 64, metadata=facts),
        DecodeWorker("s3://b/c", "s3://b/d", DecoderOptions(model="m"), "fra_Latn", "0" * 64, facts),
        QuantizeWorker("s3://b/c", "s3://b/d", "s3://b/book", "0" * 64, facts),
        ImportSegmentsWorker("s3://b/c", Defaults(None, SplitRule()), "image", "0" * 64, facts),
        ImportVectorsWorker("s3://b/c", "s3://b/d", Defaults(None, SplitRule()), 1024, "0" * 64, metadata=facts),
    ]
    for worker in workers:
        data = pickle.dumps(worker)
        assert len(data) < 10_000
        assert pickle.loads(data) == worker
        assert type(worker).__module__.startswith(
            "lcm_data."
        )  # a worker's own import path may hold another `pipelines`


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in the wheel, built from a copy of what is tracked or new."""
    pytest.importorskip("setuptools")
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    for path in (*project_files(), *(name_of(path) for path in (ROOT / "lcm_data" / "assets").rglob("*"))):
        if (ROOT / path).is_file() and path.split("/")[0] in {
            *PACKAGES,
            "pyproject.toml",
            "README.md",
            "LICENSE",
            "cli.py",
        }:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes((ROOT / path).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    ran = subprocess.run([*build, "-w", str(target), str(source)], capture_output=True, text=True, check=False)
    if "Cannot import 'setuptools.build_meta'" in ran.stderr:
        pytest.skip("needs setuptools in this environment")
    assert ran.returncode == 0, ran.stderr
    (file,) = target.glob("*.whl")
    return zipfile.ZipFile(file).namelist()


def project_files() -> list[str]:
    """Files that git tracks, or would: nothing that is ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        pytest.skip("needs a git checkout")
    return [path for path in ran.stdout.splitlines() if (ROOT / path).is_file()]


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: list[str]) -> None:
    top = {name.split("/")[0] for name in wheel}
    assert top == {*PACKAGES, f"lcm_data-{__version__}.dist-info"}
    assert not any(name.startswith(("lcm_data/tests", "cli")) for name in wheel)


def test_the_wheel_holds_the_data(wheel: list[str]) -> None:
    assets = [name_of(path) for path in (ROOT / "lcm_data" / "assets").rglob("*") if path.is_file()]
    assert len(assets) >= 16
    assert set(assets) <= set(wheel)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel)


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[?(\d[^\]\s]*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] == __version__


def test_extras_in_messages_exist() -> None:
    """What an error tells people to install can be installed."""
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    named = set()
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "MissingExtraError":
                named |= {arg.value for arg in node.args[2:3] if isinstance(arg, ast.Constant)}
    assert named
    assert named <= extras


def test_no_paths_of_one_machine() -> None:
    # Spelled in parts, so that this file does not find itself.
    machine = re.compile(
        "|".join(("/" + "work/", "/" + r"home/\w+/", "/" + r"Users/\w+/", "/" + "root/", "/" + r"tmp/\w+\.log"))
    )
    found = {}
    for path in project_files():
        try:
            text = (ROOT / path).read_text("utf-8")
        except UnicodeDecodeError:
            continue
        if hits := machine.findall(text):
            found[path] = hits[:3]
    assert found == {}
