"""The options several verbs share, each spelled once. ``None`` means "not given": a settings file may then decide."""

from __future__ import annotations

from typing import Annotated, Any

import typer

_RUN, _OUTPUT = "Running", "Output"

CorpusArgument = Annotated[str, typer.Argument(help="Corpus folder or fsspec URL.", show_default=False)]

ConfigOption = Annotated[str | None, typer.Option("--config", help="YAML file of settings; flags win.", metavar="FILE")]
ExecutorOption = Annotated[
    str | None,
    typer.Option(help="local or ray. By default local for one worker, ray for more.", rich_help_panel=_RUN,
                 envvar="LCM_DATA_EXECUTOR"),
]  # fmt: skip
WorkersOption = Annotated[
    int | None, typer.Option(help="Worker processes.  \\[default: 1]", rich_help_panel=_RUN, envvar="LCM_DATA_WORKERS")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(help="CPU threads of a worker; by default the cores are shared out.", rich_help_panel=_RUN),
]
GpusOption = Annotated[float | None, typer.Option(help="GPUs of a worker, fractions allowed.", rich_help_panel=_RUN)]
RayAddressOption = Annotated[
    str | None,
    typer.Option(help="Ray cluster to join: auto, host:port or ray://host:port.", rich_help_panel=_RUN,
                 envvar="LCM_DATA_RAY_ADDRESS"),
]  # fmt: skip
TimeoutOption = Annotated[
    float | None, typer.Option(help="Seconds a worker may hold a unit; none by default.", rich_help_panel=_RUN)
]
RejectRateOption = Annotated[
    float | None,
    typer.Option(help="Share of rejected rows that aborts the run.  \\[default: 0.1]", rich_help_panel=_RUN),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Delete what the stage holds and start anew.", rich_help_panel=_RUN)
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and what it would cost.", rich_help_panel=_OUTPUT)
]
PrintConfigOption = Annotated[
    bool, typer.Option("--print-config", help="Print the settings in force and stop.", rich_help_panel=_OUTPUT)
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object and nothing else.", rich_help_panel=_OUTPUT)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=_OUTPUT)]


def option(text: str, *, default: object = None, flags: str | None = None, panel: str | None = None) -> Any:
    """An option whose default stands in its config class, and in its help as ``default``."""
    shown = (
        text if default is None else f"{text}  \\[default: {default}]"
    )  # the backslash is for rich, which reads tags
    return typer.Option(*([flags] if flags else []), help=shown, rich_help_panel=panel)


def given(**values: Any) -> dict[str, Any]:
    """The values that were given on the command line or by the environment."""
    return {name: value for name, value in values.items() if value is not None and value is not False}
