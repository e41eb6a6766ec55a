"""The published SONAR speech encoders: one for each language, by the code of the language; downloads nothing.

Names are those of sonar-space's cards, such as ``sonar_speech_encoder_eng``; ``lcm_data.sonar.hub`` fetches them. The
languages of a corpus have FLORES-200 codes, which also name the script.
"""

from __future__ import annotations

from lcm_data.errors import UnknownNameError
from lcm_data.languages import FLORES_200

_MIT = "arb cat cym dan deu est fin fra ind ita kor nld pes por ron spa swe swh tgl tur uzn"
"""Files ``spenc.v3ap.<language>.pt``, under the MIT licence. Swedish has no card, but its file is published."""

_NON_COMMERCIAL = (
    "asm bel ben bos bul ces cmn guj heb hin hrv jpn kan lao lit lvs mal mar mkd mlt npi ory pan pol rus slk slv snd "
    "srp tam tel tha ukr urd vie yue"
)
"""Files ``spenc.v5ap.<language>.pt``, for non-commercial use only."""

PREFIX = "sonar_speech_encoder_"

FILES = {
    "eng": "spenc.eng.pt",
    **{code: f"spenc.v3ap.{code}.pt" for code in _MIT.split()},
    **{code: f"spenc.v5ap.{code}.pt" for code in _NON_COMMERCIAL.split()},
}
"""Language of a speech encoder (ISO 639-3) -> name of its file."""

_OTHER_CODES = {"zho_Hans": "cmn", "zho_Hant": "cmn"}
"""Languages of FLORES-200 whose speech encoder has another code."""


def pooler_layers(language: str) -> int:
    """How many layers the pooler of a published speech encoder has."""
    return 3 if language == "eng" else 6


def speech_model(lang: str) -> str:
    """The name of the published speech encoder of a language given by its FLORES-200 code.

    Raises:
        UnknownNameError: there is none.
    """
    code = _OTHER_CODES.get(lang, lang.split("_")[0])
    if code not in FILES:
        raise UnknownNameError("language of a speech encoder", lang, spoken_languages())
    return f"{PREFIX}{code}"


def spoken_languages() -> list[str]:
    """The FLORES-200 codes that have a published speech encoder."""
    return [lang for lang in FLORES_200 if _OTHER_CODES.get(lang, lang.split("_")[0]) in FILES]
