"""The page itself: a template filled with plain values, everything escaped that is not a drawing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from lcm_data.errors import MissingExtraError
from lcm_data.languages import LANGUAGE_NAMES


def render(values: Mapping[str, Any]) -> str:
    """The HTML of a report.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtraError("writing a report", "jinja2", "analysis") from error
    folder = files("lcm_data") / "assets" / "report"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"count": _count, "share": _share, "language": language, "bcp47": bcp47, "short": _short}
    style = Markup((folder / "style.css").read_text("utf-8"))
    drawn = {name: _drawn(value, Markup) for name, value in values.items()}
    return environment.from_string((folder / "page.html").read_text("utf-8")).render(style=style, **drawn)


class Drawing(str):
    """SVG made by ``lcm_data.report.svg``: the only text that goes into the page as it is."""

    __slots__ = ()


def _drawn(value: Any, markup: Any) -> Any:
    if isinstance(value, Drawing):
        return markup(value)
    if isinstance(value, Mapping):
        return {name: _drawn(each, markup) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_drawn(each, markup) for each in value]
    return value


def language(code: str) -> str:
    """The English name of a language, its code where it has none."""
    return LANGUAGE_NAMES.get(code, code)


def bcp47(code: str) -> str:
    """A FLORES-200 code as browsers know it."""
    return code.replace("_", "-")


def _count(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:,.2f}"


def _share(value: float) -> str:
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
