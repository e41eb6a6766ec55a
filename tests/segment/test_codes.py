"""Language codes."""

from __future__ import annotations

import pytest

from lcm_data.errors import UsageError
from lcm_data.segment.codes import iso1, iso3, stanza_code


@pytest.mark.parametrize(
    ("lang", "three", "two", "stanza"),
    [
        ("eng_Latn", "eng", "en", "en"),
        ("en", "eng", "en", "en"),
        ("zho_Hans", "zho", "zh", "zh-hans"),
        ("zho_Hant", "zho", "zh", "zh-hant"),
        ("yue_Hant", "yue", "zh", "zh-hant"),
        ("nob_Latn", "nob", "nb", "nb"),
        ("arz_Arab", "arz", "ar", "ar"),
        ("ar", "arb", "ar", "ar"),
        ("ace_Latn", "ace", "ace", "ace"),
    ],
)
def test_codes(lang: str, three: str, two: str, stanza: str) -> None:
    assert (iso3(lang), iso1(lang), stanza_code(lang)) == (three, two, stanza)


@pytest.mark.parametrize("lang", ["", "English", "e", "EN", "q3a_Latn"])
def test_nonsense_is_refused(lang: str) -> None:
    with pytest.raises(UsageError, match="is not understood"):
        iso3(lang)
