"""The verbs of ``lcm-data codebook``: show, export, import."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lcm_data.cli.options import JsonOption

codebook = typer.Typer(
    no_args_is_help=True,
    help="What a codebook holds; to FAISS and back.\n\nExample: lcm-data codebook show my-corpus",
)

WhereArgument = Annotated[str, typer.Argument(help="Folder of a codebook, or a corpus.", show_default=False)]
ReplaceOption = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the application."""
    app.add_typer(codebook, name="codebook", rich_help_panel="Look")


@codebook.command(no_args_is_help=True)
def show(where: WhereArgument, json: JsonOption = False) -> None:
    """What a codebook holds, and how good its levels are.

    Example: lcm-data codebook show my-corpus
    """
    from lcm_data.cli import render
    from pipelines import codebooks

    found = codebooks.show(where)
    if json:
        render.as_json(found)
        return
    levels = found.pop("levels")
    found = {name: _words(value) for name, value in found.items()}
    render.facts(f"codebook: {where}", found)
    columns = ["level", "held-out error", "cosine", "perplexity", "unused", "largest share"]
    rows = [
        (
            each["level"], f"{each['heldout_nmse']:.4f}", f"{each['heldout_cosine']:.4f}",
            f"{each['perplexity']:,.0f}", each["dead"], f"{each['max_share']:.2%}",
        )
        for each in levels
    ]  # fmt: skip
    if rows:
        render.table("Levels", columns, rows, numbers=columns)


@codebook.command(no_args_is_help=True)
def export(
    where: WhereArgument,
    file: Annotated[str, typer.Argument(help="File to write.", show_default=False)],
    overwrite: ReplaceOption = False,
    json: JsonOption = False,
) -> None:
    """Write a codebook as a FAISS index (IndexResidualQuantizer).

    Example: lcm-data codebook export my-corpus codebook.faiss
    """
    from pipelines import codebooks

    _print("export", codebooks.export(where, file, overwrite=overwrite), json)


@codebook.command("import", no_args_is_help=True)
def import_(
    file: Annotated[str, typer.Argument(help="FAISS index to read.", show_default=False)],
    folder: Annotated[str, typer.Argument(help="Folder for the codebook.", show_default=False)],
    like: Annotated[
        str | None, typer.Option(help="Corpus whose vectors it is for; not needed for files of 'export'.")
    ] = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Make a codebook of a FAISS index (IndexResidualQuantizer).

    Example: lcm-data codebook import codebook.faiss my-codebook --like my-corpus
    """
    from pipelines import codebooks

    _print("import", codebooks.import_(file, folder, like=like), json)


def _print(verb: str, found: dict[str, Any], json: bool) -> None:
    from lcm_data.cli import render

    if json:
        render.as_json(found)
    else:
        render.facts(f"codebook {verb}", found)


def _words(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return ", ".join(f"{name} {_words(each)}" for name, each in value.items())
