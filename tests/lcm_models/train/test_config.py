"""Settings come from defaults, a file and assignments; what does not fit is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from lcm_data.errors import PlanMismatchError, UnknownNameError, UsageError
from lcm_models.train.config import FREE, OptimConfig, TrainConfig, checked, flat, read_settings, refuse_changes

SECTIONS = ("model", "data", "optim", "train")


def test_assignments_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[optim]\nlr = 1e-3\nema = 0.99\n[model.noise]\nkind = 'cosine'\nsteps = 5\n")
    found = read_settings(str(file), ["optim.lr=2e-3", "model.noise.steps = 7", "train.strategy=fsdp"], SECTIONS)
    assert found == {
        "optim": {"lr": 2e-3, "ema": 0.99},
        "model": {"noise": {"kind": "cosine", "steps": 7}},
        "train": {"strategy": "fsdp"},
    }
    config = checked(OptimConfig, "optim", found["optim"])
    assert (config.lr, config.ema, config.eps) == (2e-3, 0.99, OptimConfig().eps)


def test_values_are_toml_or_text_and_null_is_nothing(tmp_path: Path) -> None:
    texts = ["data.a=[1, 2]", "data.b=true", "data.c=s3://x=y", "data.d=null", 'data.e="7"', "data.long-name=1"]
    found = read_settings(None, texts, SECTIONS)["data"]
    assert found == {"a": [1, 2], "b": True, "c": "s3://x=y", "d": None, "e": "7", "long_name": 1}
    file = tmp_path / "run.toml"
    file.write_text("[data]\nend_of_text = 'null'\n[[data.sources]]\npath = 'c'\nlangs = 'null'\n")
    assert read_settings(str(file), [], SECTIONS)["data"] == {
        "end_of_text": None,
        "sources": [{"path": "c", "langs": None}],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr=1", "give section.name=value"),
        ("optim.lr", "give section.name=value"),
        ("optim..lr=1", "give section.name=value"),
        ("optm.lr=1", "unknown section 'optm'. Did you mean 'optim'"),
    ],
)
def test_assignments_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_settings(None, [text], SECTIONS)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    for text, message in (
        ("[optm]\n", "Did you mean 'optim'"),
        ("optim = 3\n", "must be a section"),
        ("[optim\n", "cannot read the settings file"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_settings(str(file), [], SECTIONS)
    with pytest.raises(UsageError, match="cannot read the settings file"):
        read_settings(str(tmp_path / "none.toml"), [], SECTIONS)
    file.write_text("[optim]\nlr = 1\n")
    with pytest.raises(UsageError, match="lr is a value, no group"):
        read_settings(str(file), ["optim.lr.x=1"], SECTIONS)


def test_a_typo_names_the_nearest_setting() -> None:
    with pytest.raises(UnknownNameError, match=r"setting of \[train\] 'max_step'. Did you mean 'max_steps'"):
        checked(TrainConfig, "train", {"max_step": 3})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (OptimConfig, {"lr": -1}, "optim.lr: .*greater than 0, got -1"),
        (OptimConfig, {"betas": (0.9, 1.0)}, "betas must be from 0 to below 1"),
        (OptimConfig, {"warmup_steps": 9, "schedule_steps": 5}, "longer than schedule_steps"),
        (OptimConfig, {"ema": 1.0}, "optim.ema"),
        (TrainConfig, {"precision": "float16"}, "precision: .*'float32' or 'bfloat16'"),
        (TrainConfig, {"max_steps": 0}, "max_steps"),
        (TrainConfig, {"keep_last": 0}, "keep_last"),
    ],
)
def test_values_that_do_not_fit_are_refused(kind: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked(kind, kind.__name__.removesuffix("Config").lower(), values)


def test_settings_are_never_changed() -> None:
    with pytest.raises(ValidationError):
        TrainConfig().max_steps = 3  # type: ignore[misc]


def test_what_decides_the_result_may_not_change() -> None:
    stored = {"optim": OptimConfig().model_dump(), "train": TrainConfig().model_dump(), "model": {"width": 8}}
    now = {"optim": OptimConfig(lr=1e-3).model_dump(), "train": TrainConfig().model_dump(), "model": {"widht": 8}}
    with pytest.raises(PlanMismatchError) as raised:
        refuse_changes(stored, now, "runs/a")
    lines = str(raised.value).splitlines()
    assert lines[0] == "runs/a was begun with other settings:"
    assert lines[1:4] == [
        "  model.widht: 'not set' -> 8",
        "  model.width: 8 -> 'not set'",
        "  optim.lr: 0.0004 -> 0.001",
    ]
    assert "--overwrite" in lines[-1]


def test_sources_that_changed_are_told_one_by_one() -> None:
    def sources(*changed: dict[str, object]) -> dict[str, object]:
        return {"data": {"sources": [{"kind": "corpus", "splits": ["train"], **each} for each in changed]}}

    refuse_changes(sources({}, {}), sources({}, {}), "runs/a")
    for stored, now, expected in (
        (sources({}, {"weight": 1}), sources({}, {"weight": 2}), ["  data.sources.1.weight: 1 -> 2"]),
        (sources({}, {}), sources({"kind": "nested"}), [
            "  data.sources: '2 of them' -> '1 of them'", "  data.sources.0.kind: 'corpus' -> 'nested'",
        ]),
        (sources({}), sources({}, {}), ["  data.sources: '1 of them' -> '2 of them'"]),
        (sources({}), sources({"new": 1}), ["  data.sources.0.new: 'not set' -> 1"]),
    ):  # fmt: skip
        with pytest.raises(PlanMismatchError) as raised:
            refuse_changes(stored, now, "runs/a")
        assert str(raised.value).splitlines()[1:-1] == expected


def test_the_free_settings_exist_and_may_change() -> None:
    stored = {"optim": OptimConfig().model_dump(), "train": TrainConfig().model_dump()}
    named = {name for name in FREE if not name.startswith("model.")}
    assert named <= flat(stored).keys()
    changed = {section: {**values} for section, values in stored.items()}
    for name in named:
        section, _, key = name.partition(".")
        changed[section][key] = "other"
    refuse_changes(stored, changed, "runs/a")
