"""The documentation is true: its code runs on the demo's corpus, its commands exist with the options it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from lcm_data.cli.app import app
from lcm_data.version import __version__

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``my-corpus`` is the corpus of the demo."""
    from pipelines import demo

    folder = tmp_path_factory.mktemp("demo")
    result = demo.run(str(folder / "my-corpus"), say=lambda line: None, steps=10)
    assert len(result.languages) >= 16
    assert all(row["documents"] >= 5 and row["sentences"] >= 40 for row in result.languages)
    assert all(sum(report.manifest.rejects.values()) == 0 for report in result.reports)
    assert {row["language"] for row in result.neighbours} == {row["language"] for row in result.languages}
    assert [row[""] for row in result.page] == ["read", "read", "next", "next", "next"]
    return folder


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), flags=re.S | re.M)


@pytest.mark.parametrize("page", ["README.md", "docs/reading.md", "docs/looking.md"])
def test_python_examples_run_in_order(page: str, demo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(ROOT / page, "python")
    assert found
    monkeypatch.chdir(demo_folder)
    names: dict[str, object] = {}
    for block in found:
        exec(compile(block, page, "exec"), names)  # noqa: S102


@pytest.mark.parametrize("page", ["README.md", "docs/reading.md"])
def test_sql_examples_give_rows(page: str, demo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb", reason="needs the extra 'analysis'")
    found = blocks(ROOT / page, "sql")
    assert found
    monkeypatch.chdir(demo_folder)
    for block in found:
        assert duckdb.sql(block).fetchall(), block


def test_the_page_about_exchange_runs_in_order(demo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands and its Python, one after the other, as in a notebook."""
    pytest.importorskip("datasets", reason="needs the extra 'analysis'")
    pytest.importorskip("lance", reason="needs the extra 'lance'")
    monkeypatch.chdir(demo_folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    page = (ROOT / "docs/exchange.md").read_text("utf-8")
    names: dict[str, object] = {}
    for language, block in re.findall(r"^```(python|bash)\n(.*?)^```", page, flags=re.S | re.M):
        if language == "python":
            exec(compile(block, "docs/exchange.md", "exec"), names)  # noqa: S102
            continue
        for line in block.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line, comments=True)
            assert program == "lcm-data"
            app(words, standalone_mode=False)


def command_lines() -> list[tuple[str, list[str]]]:
    lines = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            joined = block.replace("\\\n", " ")
            lines += [(page.name, shlex.split(line, comments=True)) for line in joined.splitlines()]
    return [(page, words) for page, words in lines if words[:1] == ["lcm-data"]]


@pytest.mark.parametrize(("page", "words"), command_lines(), ids=lambda value: str(value)[:60])
def test_commands_in_the_documentation_exist(page: str, words: list[str]) -> None:
    group = typer.main.get_command(app)
    command = group.commands[words[1]]  # type: ignore[attr-defined]
    command = getattr(command, "commands", {}).get(words[2], command)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options = [word for word in words[2:] if word.startswith("--")]
    assert set(options) <= known, f"{page}: {set(options) - known} is no option of {words[1]}"


def test_every_verb_is_in_the_readme() -> None:
    group = typer.main.get_command(app)
    readme = (ROOT / "README.md").read_text("utf-8")
    for verb in group.commands:  # type: ignore[attr-defined]
        assert re.search(rf"`[^`]*\b{verb}\b[^`]*`", readme), f"{verb} is not in README.md"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_make_targets_in_the_documentation_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"^make ([a-z -]+?)(?:\s{2,}#|$)", page.read_text("utf-8"), flags=re.M):
            for name in target.split():
                assert re.search(rf"^{name}:", makefile, flags=re.M), f"make {name} in {page.name}"


def test_changelog_begins_with_this_version() -> None:
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.M)
    assert newest is not None
    assert newest.group(1) == __version__
