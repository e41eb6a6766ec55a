"""Language codes: FLORES-200 codes to the two-letter and library codes that segmenters ask for.

Only codes; which language a segmenter handles well is its own matter.
"""

from __future__ import annotations

from lcm_data.errors import UsageError

# ISO 639-3 part of a FLORES-200 code -> ISO 639-1, where there is one. Individual languages of a macrolanguage
# map to its code: what libraries call "ar", "fa", "no" or "ms" is meant for them.
_CODES = (
    "acm:ar acq:ar aeb:ar afr:af ajp:ar aka:ak als:sq amh:am apc:ar arb:ar ars:ar ary:ar arz:ar asm:as ayr:ay "
    "azb:az azj:az bak:ba bam:bm bel:be ben:bn bod:bo bos:bs bul:bg cat:ca ces:cs cym:cy dan:da deu:de dzo:dz "
    "ell:el eng:en epo:eo est:et eus:eu ewe:ee fao:fo fij:fj fin:fi fra:fr gaz:om gla:gd gle:ga glg:gl grn:gn "
    "guj:gu hat:ht hau:ha heb:he hin:hi hrv:hr hun:hu hye:hy ibo:ig ind:id isl:is ita:it jav:jv jpn:ja kan:kn "
    "kas:ks kat:ka kaz:kk khk:mn khm:km kik:ki kin:rw kir:ky knc:kr kon:kg kor:ko lao:lo lim:li lin:ln lit:lt "
    "ltz:lb lug:lg lvs:lv mal:ml mar:mr mkd:mk mlt:mt mri:mi mya:my nld:nl nno:nn nob:nb npi:ne nya:ny oci:oc "
    "ory:or pan:pa pbt:ps pes:fa plt:mg pol:pl por:pt prs:fa quy:qu ron:ro run:rn rus:ru sag:sg san:sa sin:si "
    "slk:sk slv:sl smo:sm sna:sn snd:sd som:so sot:st spa:es srd:sc srp:sr ssw:ss sun:su swe:sv swh:sw tam:ta "
    "tat:tt tel:te tgk:tg tgl:tl tha:th tir:ti tsn:tn tso:ts tuk:tk tur:tr twi:tw uig:ug ukr:uk urd:ur uzn:uz "
    "vie:vi wol:wo xho:xh ydd:yi yor:yo yue:zh zho:zh zsm:ms zul:zu"
)
_ISO1: dict[str, str] = dict(pair.split(":") for pair in _CODES.split())
# Back again: the standard variety where several share the code.
_FROM_ISO1 = {short: long for long, short in reversed(_ISO1.items())}
_FROM_ISO1 |= {"ar": "arb", "az": "azj", "fa": "pes", "zh": "zho", "no": "nob"}

_STANZA = {"nob": "nb", "nno": "nn", "zho_Hans": "zh-hans", "zho_Hant": "zh-hant", "yue": "zh-hant", "zho": "zh-hans"}


def iso3(lang: str) -> str:
    """Return the three-letter language of ``eng_Latn``, ``eng`` or ``en``: ``eng``.

    Raises:
        UsageError: ``lang`` is none of these.
    """
    code = lang.partition("_")[0]
    if len(code) == 2:
        code = _FROM_ISO1.get(code, code)
    if len(code) != 3 or not (code.isascii() and code.isalpha() and code.islower()):
        raise UsageError(f"language code {lang!r} is not understood. Give a FLORES-200 code such as 'eng_Latn'.")
    return code


def iso1(lang: str) -> str:
    """Return the two-letter code for ``lang``, or the three-letter one where there is none (``ace`` -> ``ace``)."""
    code = iso3(lang)
    return _ISO1.get(code, code)


def stanza_code(lang: str) -> str:
    """Return what stanza calls ``lang``: two letters, but ``zh-hans`` and ``zh-hant`` for Chinese."""
    code = iso3(lang)
    return _STANZA.get(lang) or _STANZA.get(code) or iso1(code)
