"""The verbs ``models list``, ``fetch``, ``show`` and ``export``: SONAR weights by name, in the cache and on disk."""

from __future__ import annotations

import contextlib
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_data.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    from lcm_data.sonar.fetch import Progress


def register(app: typer.Typer) -> None:
    """Add the verbs to the application."""
    models = typer.Typer(
        no_args_is_help=True,
        help="List, fetch, look at and export model weights.\n\nExample: lcm-data models list",
    )
    models.command("list")(list_models)
    models.command("fetch", no_args_is_help=True)(fetch)
    models.command("show", no_args_is_help=True)(show)
    models.command("export", no_args_is_help=True)(export)
    app.add_typer(models, name="models", rich_help_panel="Look")


def list_models(json: JsonOption = False) -> None:
    """List the models that have a name, and what the cache holds.

    Example: lcm-data models list --json
    """
    from lcm_data.cli import render
    from lcm_data.sonar import hub, inventory, speech_models

    default = hub.default_model()
    known = [{**model, "is_default": model["name"] == default} for model in inventory.known_models()]
    # One line stands for the speech encoders that are not here.
    unseen = [model for model in known if model["kind"] == "speech encoder" and model["cached"] == "no"]
    others = [other for other in inventory.other_models() if other["cached"] != "no"]
    if json:
        render.as_json({"cache": str(hub.models_dir()), "models": known, "others": others})
        return
    columns = ("model", "kind", "dim", "params", "size", "cached")
    rows = [
        (
            model["name"], model["kind"], model["dim"], render.count(model["parameters"]),
            ("" if model["cached"] == "ships" else "~") + render.size(model["bytes"]), _cached(model),
        )
        for model in known if model not in unseen
    ]  # fmt: skip
    render.table(f"models, cached in {hub.models_dir()}", columns, rows, numbers=("dim", "params", "size"))
    if others:
        print()
        found = [(other["name"], render.size(other["cached_bytes"]), _cached(other)) for other in others]
        render.table("also in the cache", ("name", "size", "cached"), found, numbers=("size",))
    print()
    _paragraph(
        f"By default encode takes {default}{_WHY[default == hub.MINI]}; decode takes the decoder of the corpus's "
        "space. Also: hf:owner/repo@revision of the Hugging Face Hub, any folder, any weights file."
    )
    if unseen:
        languages = " ".join(model["name"].removeprefix(speech_models.PREFIX) for model in unseen)
        size = render.size(unseen[0]["bytes"])
        _paragraph(f"Speech encoders, ~{size} each, {speech_models.PREFIX}<language> with one of: {languages}.")
    _paragraph(f"Licence: {hub.LICENCE_NOTE}.")


_WHY = {False: "", True: ", since text_sonar_basic_encoder is not in the cache"}


def _paragraph(text: str) -> None:
    print(textwrap.fill(text, min(100, shutil.get_terminal_size().columns), break_on_hyphens=False))


def _cached(model: dict[str, Any]) -> str:
    from lcm_data.cli import render

    return f"partial, {render.size(model['cached_bytes'])}" if model["cached"] == "partial" else str(model["cached"])


def fetch(
    names: Annotated[list[str], typer.Argument(help="Names, or hf:owner/repo@revision.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Download again what is there.")] = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Download models into the cache, for later use without network; run it again to continue.

    Example: lcm-data models fetch text_sonar_basic_encoder
    """
    from lcm_data.cli import render
    from lcm_data.errors import CheckpointError, UsageError
    from lcm_data.sonar import hub
    from lcm_data.sonar.describe import describe_weights
    from lcm_data.sonar.files import find_model
    from lcm_data.sonar.speech_checkpoint import is_speech_encoder

    results = []
    for name in names:
        if Path(name).expanduser().exists():
            raise UsageError(f"{name} is here already; look at it with: lcm-data models show {name}")
        with _bars(not quiet) as progress:
            weights = hub.model_weights(name, progress=progress, force=force)
        if not is_speech_encoder(weights):
            find_model(name)  # fetches the common tokenizer, if the model has none of its own
        results.append({"name": name, **describe_weights(weights)})
    if json:
        render.as_json({"models": results})
    else:
        for result in results:
            _show(result["name"], result)
    useless = [result["name"] for result in results if not any("num_layers" in each for each in result["networks"])]
    if useless:
        raise CheckpointError(f"{', '.join(useless)} was fetched, but holds nothing that can be loaded.")


@contextlib.contextmanager
def _bars(wanted: bool) -> Iterator[Progress]:
    """A bar for each file on stderr, and a function that moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not wanted) as shown:
        tasks: dict[str, Any] = {}

        def move(file_name: str, done: int, total: int) -> None:
            if file_name not in tasks:
                tasks[file_name] = shown.add_task(file_name, total=total)
            shown.update(tasks[file_name], completed=done)

        yield move


def show(
    model: Annotated[str, typer.Argument(help="Name, folder or weights file.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Say what a model file or folder is, by its content; nothing is downloaded.

    Example: lcm-data models show ./sonar_text_decoder.pt
    """
    from lcm_data.cli import render
    from lcm_data.sonar.describe import describe_model

    found = describe_model(model)
    if json:
        render.as_json({"model": model, "files": found})
        return
    for number, about in enumerate(found):
        if number:
            print()
        _show(model if len(found) == 1 else about["file"], about)


def export(
    run: Annotated[
        str,
        typer.Argument(help="Folder of a run of train sonar or speech, or a checkpoint.", show_default=False),
    ],
    folder: Annotated[str, typer.Argument(help="Folder to make.", show_default=False)],
    space: Annotated[
        str | None,
        typer.Option(help="Name of a new space, of 'train sonar': another for every training.", show_default=False),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    json: JsonOption = False,
) -> None:
    """Write a trained SONAR space as a folder that --model and --decoder take, or a speech encoder for --speech-model.

    Example: lcm-data models export runs/sonar my-space --space my-space-1
    """
    from pipelines.export_model import export as write

    show(str(write(run, folder, space=space, dtype=dtype)), json)


def _show(title: str, about: dict[str, Any]) -> None:
    """One weights file: facts, then the sizes of its networks, then what keeps them from being loaded."""
    from lcm_data.cli import render

    sized = [network for network in about.get("networks", ()) if "num_layers" in network]
    problems = [f"{each['kind']}: {each['problem']}" for each in about.get("networks", ()) if "problem" in each]
    if about["kind"] == "unknown":
        problems = [about.get("problem", "it holds no network of SONAR")]
    facts = {name: value for name, value in about.items() if name not in ("name", "networks", "problem", "licence")}
    if "bytes" in facts:
        facts["bytes"] = f"{facts['bytes']:,} ({render.size(facts['bytes'])})"
    if "tokenizer_fingerprint" in facts:  # a short name, so that the line with a hash is not wrapped
        facts = {"its hash" if name == "tokenizer_fingerprint" else name: value for name, value in facts.items()}
    render.facts(title, facts)
    if sized and sized[0]["kind"] == "speech encoder":
        print()
        render.facts("network", sized[0])
    elif sized:
        print()
        columns = ("network", "layers", "dim", "heads", "ffn", "vocabulary", "max tokens", "parameters")
        rows = [
            (
                network["kind"], network["num_layers"], network["model_dim"], network["num_heads"], network["ffn_dim"],
                network["vocab_size"], network["max_tokens"], render.count(network["num_parameters"]),
            )
            for network in sized
        ]  # fmt: skip
        render.table("networks", columns, rows, numbers=columns[1:])
    for problem in problems:
        print()
        _paragraph(f"Cannot be loaded: {problem}")
    if about.get("licence"):
        print()
        _paragraph(f"Licence: {about['licence']}.")
