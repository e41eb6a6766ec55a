from __future__ import annotations

import inspect
import pickle
import re

import pytest

from lcm_data import errors
from lcm_data.errors import InterruptedRunError, LcmDataError, MissingExtraError, UnknownNameError, UsageError

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LcmDataError)]


def example(kind: type[LcmDataError]) -> LcmDataError:
    if kind is UnknownNameError:
        return UnknownNameError("language", "enlg_Latn", ["eng_Latn", "deu_Latn"])
    if kind is MissingExtraError:
        return MissingExtraError("--executor ray", "ray", "ray")
    if kind is InterruptedRunError:
        return InterruptedRunError("stopped", 15)
    return kind("what happened")


@pytest.mark.parametrize("kind", CLASSES)
def test_the_tree_in_the_docstring_is_the_tree(kind: type[LcmDataError]) -> None:
    assert errors.__doc__ is not None
    line = re.search(rf"{kind.__name__} +(\d+)(?:/(\d+))?  (.*)", errors.__doc__)
    assert line, f"{kind.__name__} is not drawn in the docstring"
    codes = {int(code) for code in line.groups()[:2] if code}
    if kind is InterruptedRunError:
        assert codes == {InterruptedRunError("", 2).exit_code, InterruptedRunError("", 15).exit_code}
    else:
        assert codes == {kind.exit_code}
    assert issubclass(kind, ValueError) == ("also a ValueError" in line[3] or issubclass(kind, UsageError))


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_travel_between_processes(kind: type[LcmDataError]) -> None:
    error = example(kind)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)
    assert back.exit_code == error.exit_code


def test_unknown_names_suggest_the_nearest() -> None:
    assert str(UnknownNameError("executor", "rya", ["local", "ray"])) == (
        "unknown executor 'rya'. Did you mean 'ray'? Known: local, ray."
    )
    many = str(UnknownNameError("language", "zzz", [f"l{number:03d}" for number in range(200)]))
    assert "l029, … (200 in all)" in many
    assert "l030" not in many
    assert "Did you mean" not in many


def test_missing_extras_say_what_to_install() -> None:
    assert str(example(MissingExtraError)) == (
        "--executor ray needs the package 'ray', which is not installed. Install it with: pip install 'lcm-data[ray]'"
    )
