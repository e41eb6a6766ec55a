"""Where settings come from: defaults, then the file, then the environment, then flags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

VERBS = {
    "segment": ["in", "out"],
    "encode": ["out"],
    "quantize": ["out"],
    "normalize": ["out"],
    "decode": ["in", "out"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_printed_settings_are_accepted(call: Callable[..., Any], tmp_path: Path, verb: str) -> None:
    flags = {
        "segment": ["--max-chars", 99, "--lang", "fr", "--workers", 3],
        "encode": ["--no-text", "--dtype", "bfloat16", "--token-budget", 512],
        "quantize": ["--levels", 3, "--codebook", "book"],
        "normalize": ["--method", "standard", "--clip-proba", 0.01],
        "decode": ["--lang", "fr", "--mode", "sample", "--top-p", 0.5, "--from-lang", "en", "--from-lang", "de"],
    }[verb]
    first = call(verb, *VERBS[verb], *flags, "--print-config").out
    file = tmp_path / "settings.yaml"
    file.write_text(first)
    assert call(verb, *VERBS[verb], "--config", file, "--print-config").out == first
    assert call(verb, *VERBS[verb], *flags, "--print-config", "--json").json == yaml.safe_load(first)
    assert list(tmp_path.iterdir()) == [file]


def settings(call: Callable[..., Any], *args: object) -> Any:
    return call("segment", "in", "out", *args, "--print-config", "--json").json


def test_flags_over_environment_over_file_over_defaults(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("workers: 2\nmax-chars: 70\nexecutor: local\n")  # names as on the command line are fine too
    assert settings(call)["workers"] == 1
    from_file = settings(call, "--config", file)
    assert (from_file["workers"], from_file["max_chars"], from_file["executor"]) == (2, 70, "local")
    monkeypatch.setenv("LCM_DATA_WORKERS", "3")
    assert settings(call, "--config", file)["workers"] == 3
    assert settings(call, "--config", file, "--workers", 4)["workers"] == 4
    assert settings(call, "--config", file, "--max-chars", 0)["max_chars"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("workerz: 2", "unknown setting of '?.*settings.yaml'? 'workerz'. Did you mean 'workers'?"),
        ("levels: 3", "unknown setting of .* 'levels'"),
        ("workers: many", "workers: Input should be a valid integer.*got 'many'"),
        ("workers: 0", "workers: Input should be greater than or equal to 1, got 0"),
        ("executor: spark", "executor: unknown executor 'spark'. Known: local, ray"),
        ("validation: 2", "validation: Input should be less than or equal to 1, got 2"),
        ("- a\n- b", "must hold 'name: value' lines, got list"),
        ("a: [", "cannot read the settings file"),
        ("\x00", "cannot read the settings file"),
    ],
)
def test_files_that_are_refused(call: Callable[..., Any], tmp_path: Path, content: str, message: str) -> None:
    import re

    file = tmp_path / "settings.yaml"
    file.write_text(content)
    called = call("segment", "in", "out", "--config", file, "--print-config", code=2)
    assert called.out == ""
    assert re.search(message, called.err), called.err
    assert called.err.startswith("lcm-data: ")


def test_a_file_that_is_not_there(call: Callable[..., Any]) -> None:
    err = call("encode", "out", "--config", "nowhere.yaml", code=2).err
    assert "cannot read the settings file 'nowhere.yaml'" in err


def test_an_empty_file_is_no_setting(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert settings(call, "--config", tmp_path / "empty.yaml") == settings(call)


def test_settings_of_a_stage_are_kept_beside_it(finished: Path) -> None:
    kept = yaml.safe_load((finished / "segments/_lcm/config.yaml").read_text())
    assert kept["max_chars"] == 250
