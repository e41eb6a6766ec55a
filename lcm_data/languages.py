"""The 202 languages of FLORES-200, which SONAR and NLLB-200 know, and how other spellings name them.

One table gives the codes, in the order of the NLLB-200 tokenizer (their order there gives each its token id), with
English names. ``parse_language`` reads ISO 639 codes and BCP-47 tags. What a text is written in is found out by
``lcm_data.documents.detect``; which languages a segmenter or an encoder serves is their business.
"""

from __future__ import annotations

import functools
import re

from lcm_data.errors import UnknownNameError

_TABLE = """\
ace_Arab Acehnese (Arabic script)
ace_Latn Acehnese (Latin script)
acm_Arab Mesopotamian Arabic
acq_Arab Ta'izzi-Adeni Arabic
aeb_Arab Tunisian Arabic
afr_Latn Afrikaans
ajp_Arab South Levantine Arabic
aka_Latn Akan
amh_Ethi Amharic
apc_Arab North Levantine Arabic
arb_Arab Modern Standard Arabic
ars_Arab Najdi Arabic
ary_Arab Moroccan Arabic
arz_Arab Egyptian Arabic
asm_Beng Assamese
ast_Latn Asturian
awa_Deva Awadhi
ayr_Latn Central Aymara
azb_Arab South Azerbaijani
azj_Latn North Azerbaijani
bak_Cyrl Bashkir
bam_Latn Bambara
ban_Latn Balinese
bel_Cyrl Belarusian
bem_Latn Bemba
ben_Beng Bengali
bho_Deva Bhojpuri
bjn_Arab Banjar (Arabic script)
bjn_Latn Banjar (Latin script)
bod_Tibt Tibetan
bos_Latn Bosnian
bug_Latn Buginese
bul_Cyrl Bulgarian
cat_Latn Catalan
ceb_Latn Cebuano
ces_Latn Czech
cjk_Latn Chokwe
ckb_Arab Central Kurdish
crh_Latn Crimean Tatar
cym_Latn Welsh
dan_Latn Danish
deu_Latn German
dik_Latn Southwestern Dinka
dyu_Latn Dyula
dzo_Tibt Dzongkha
ell_Grek Greek
eng_Latn English
epo_Latn Esperanto
est_Latn Estonian
eus_Latn Basque
ewe_Latn Ewe
fao_Latn Faroese
pes_Arab Western Persian
fij_Latn Fijian
fin_Latn Finnish
fon_Latn Fon
fra_Latn French
fur_Latn Friulian
fuv_Latn Nigerian Fulfulde
gla_Latn Scottish Gaelic
gle_Latn Irish
glg_Latn Galician
grn_Latn Guarani
guj_Gujr Gujarati
hat_Latn Haitian Creole
hau_Latn Hausa
heb_Hebr Hebrew
hin_Deva Hindi
hne_Deva Chhattisgarhi
hrv_Latn Croatian
hun_Latn Hungarian
hye_Armn Armenian
ibo_Latn Igbo
ilo_Latn Iloko
ind_Latn Indonesian
isl_Latn Icelandic
ita_Latn Italian
jav_Latn Javanese
jpn_Jpan Japanese
kab_Latn Kabyle
kac_Latn Jingpho
kam_Latn Kamba
kan_Knda Kannada
kas_Arab Kashmiri (Arabic script)
kas_Deva Kashmiri (Devanagari script)
kat_Geor Georgian
knc_Arab Central Kanuri (Arabic script)
knc_Latn Central Kanuri (Latin script)
kaz_Cyrl Kazakh
kbp_Latn Kabiyè
kea_Latn Kabuverdianu
khm_Khmr Khmer
kik_Latn Kikuyu
kin_Latn Kinyarwanda
kir_Cyrl Kyrgyz
kmb_Latn Kimbundu
kon_Latn Kongo
kor_Hang Korean
kmr_Latn Northern Kurdish
lao_Laoo Lao
lvs_Latn Standard Latvian
lij_Latn Ligurian
lim_Latn Limburgish
lin_Latn Lingala
lit_Latn Lithuanian
lmo_Latn Lombard
ltg_Latn Latgalian
ltz_Latn Luxembourgish
lua_Latn Luba-Lulua
lug_Latn Ganda
luo_Latn Luo
lus_Latn Mizo
mag_Deva Magahi
mai_Deva Maithili
mal_Mlym Malayalam
mar_Deva Marathi
min_Latn Minangkabau
mkd_Cyrl Macedonian
plt_Latn Plateau Malagasy
mlt_Latn Maltese
mni_Beng Meitei
khk_Cyrl Halh Mongolian
mos_Latn Mossi
mri_Latn Māori
zsm_Latn Standard Malay
mya_Mymr Burmese
nld_Latn Dutch
nno_Latn Norwegian Nynorsk
nob_Latn Norwegian Bokmål
npi_Deva Nepali
nso_Latn Northern Sotho
nus_Latn Nuer
nya_Latn Nyanja
oci_Latn Occitan
gaz_Latn West Central Oromo
ory_Orya Odia
pag_Latn Pangasinan
pan_Guru Punjabi
pap_Latn Papiamento
pol_Latn Polish
por_Latn Portuguese
prs_Arab Dari
pbt_Arab Southern Pashto
quy_Latn Ayacucho Quechua
ron_Latn Romanian
run_Latn Rundi
rus_Cyrl Russian
sag_Latn Sango
san_Deva Sanskrit
sat_Beng Santali
scn_Latn Sicilian
shn_Mymr Shan
sin_Sinh Sinhala
slk_Latn Slovak
slv_Latn Slovenian
smo_Latn Samoan
sna_Latn Shona
snd_Arab Sindhi
som_Latn Somali
sot_Latn Southern Sotho
spa_Latn Spanish
als_Latn Tosk Albanian
srd_Latn Sardinian
srp_Cyrl Serbian
ssw_Latn Swati
sun_Latn Sundanese
swe_Latn Swedish
swh_Latn Swahili
szl_Latn Silesian
tam_Taml Tamil
tat_Cyrl Tatar
tel_Telu Telugu
tgk_Cyrl Tajik
tgl_Latn Tagalog
tha_Thai Thai
tir_Ethi Tigrinya
taq_Latn Tamasheq (Latin script)
taq_Tfng Tamasheq (Tifinagh script)
tpi_Latn Tok Pisin
tsn_Latn Tswana
tso_Latn Tsonga
tuk_Latn Turkmen
tum_Latn Tumbuka
tur_Latn Turkish
twi_Latn Twi
tzm_Tfng Central Atlas Tamazight
uig_Arab Uyghur
ukr_Cyrl Ukrainian
umb_Latn Umbundu
urd_Arab Urdu
uzn_Latn Northern Uzbek
vec_Latn Venetian
vie_Latn Vietnamese
war_Latn Waray
wol_Latn Wolof
xho_Latn Xhosa
ydd_Hebr Eastern Yiddish
yor_Latn Yoruba
yue_Hant Cantonese
zho_Hans Chinese (Simplified)
zho_Hant Chinese (Traditional)
zul_Latn Zulu
"""

LANGUAGE_NAMES: dict[str, str] = {line[:8]: line[9:] for line in _TABLE.splitlines()}
"""FLORES-200 code -> English name, in the order of ``FLORES_200``."""

FLORES_200: tuple[str, ...] = tuple(LANGUAGE_NAMES)
"""All 202 codes in the order of transformers' ``FAIRSEQ_LANGUAGE_CODES`` and of fairseq2's NLLB-200 card."""

# ISO 639-1 -> ISO 639-3, for languages whose 639-3 code is the FLORES one.
_TWO_LETTER = """
    af afr  ak aka  am amh  as asm  ba bak  be bel  bg bul  bm bam  bn ben  bo bod  bs bos  ca cat  cs ces  cy cym
    da dan  de deu  dz dzo  ee ewe  el ell  en eng  eo epo  es spa  et est  eu eus  fi fin  fj fij  fo fao  fr fra
    ga gle  gd gla  gl glg  gn grn  gu guj  ha hau  he heb  hi hin  hr hrv  ht hat  hu hun  hy hye  id ind  ig ibo
    is isl  it ita  ja jpn  jv jav  ka kat  kg kon  ki kik  kk kaz  km khm  kn kan  ko kor  ks kas  ky kir  lb ltz
    lg lug  li lim  ln lin  lo lao  lt lit  mi mri  mk mkd  ml mal  mr mar  mt mlt  my mya  nb nob  nl nld  nn nno
    ny nya  oc oci  pa pan  pl pol  pt por  rn run  ro ron  ru rus  rw kin  sa san  sc srd  sd snd  sg sag  si sin
    sk slk  sl slv  sm smo  sn sna  so som  sr srp  ss ssw  st sot  su sun  sv swe  ta tam  te tel  tg tgk  th tha
    ti tir  tk tuk  tn tsn  tr tur  ts tso  tt tat  tw twi  ug uig  uk ukr  ur urd  vi vie  wo wol  xh xho  yo yor
    zh zho  zu zul
"""

# ISO 639 codes that mean a FLORES language under another code: macrolanguages (their member in FLORES), ISO 639-2/B
# codes, withdrawn codes, and the two-letter codes of all these.
_OTHER = """
    ar ara arb   az aze azj   et est   ekk est   fa fas pes   per pes   ku kur kmr   lv lav lvs   mg mlg plt
    mn mon khk   ms msa zsm   may zsm   ne nep npi   no nor nob   or ori ory   om orm gaz   ps pus pbt   qu que quy
    sq sqi alb als   sw swa swh   uz uzb uzn   yi yid ydd   ji ydd   ay aym ayr   din dik   ff ful fuv   kr kau knc
    tl fil tgl   tmh taq   cmn zho   chi zho   gug grn   fat aka   iw heb   in ind   jw jav   mo mol ron   bh bih bho
    arm hye   baq eus   bur mya   cze ces   dut nld   fre fra   geo kat   ger deu   gre ell   ice isl   mac mkd
    mao mri   rum ron   slo slk   tib bod   wel cym   scr hrv   scc srp
"""

# The script a language is written in when its name gives none (the likely subtags of Unicode CLDR); only for the six
# languages that FLORES has in two scripts.
_LIKELY_SCRIPT = {"ace": "Latn", "bjn": "Latn", "kas": "Arab", "knc": "Latn", "taq": "Latn", "zho": "Hans"}

# Regions that change the script, and the written standard, of a tag without a script.
_BY_REGION = {
    **dict.fromkeys(["zho-TW", "zho-HK", "zho-MO"], "zho_Hant"),
    "pes-AF": "prs_Arab",
}

# A script that names another FLORES language than the bare code does, or the same one under the code FLORES gives it:
# Santali is written in Ol Chiki, and FLORES calls the file sat_Beng.
_BY_SCRIPT = {
    "kmr-Arab": "ckb_Arab",
    "azj-Arab": "azb_Arab",
    "sat-Olck": "sat_Beng",
    "jpn-Hrkt": "jpn_Jpan",
    "kor-Kore": "kor_Hang",
}

UNWRITTEN = "Zxxx"
"""The script of what is not written: sign languages, images."""

_UNDETERMINED = {"und", "mul", "mis", "zxx"}


def _aliases() -> dict[str, str]:
    """Lower-case ISO 639 code -> the three-letter code of FLORES."""
    known = {code[:3]: code[:3] for code in FLORES_200}
    pairs = _TWO_LETTER.split()
    known.update(zip(pairs[::2], pairs[1::2], strict=True))
    for group in re.split(r"\s{2,}", _OTHER.strip()):
        *names, member = group.split()
        known.update(dict.fromkeys(names, member))
    return known


_ALIASES = _aliases()
_SCRIPTS: dict[str, list[str]] = {}
for _code in FLORES_200:
    _SCRIPTS.setdefault(_code[:3], []).append(_code[4:])


@functools.lru_cache(maxsize=4096)
def parse_language(name: str) -> str:
    """The FLORES-200 code of a language given as FLORES, ISO 639-1/2/3 or BCP-47 code, in any letter case.

    ``en``, ``eng``, ``en-GB``, ``en_US.UTF-8`` -> ``eng_Latn``; ``zh`` -> ``zho_Hans``, ``zh-TW`` -> ``zho_Hant``;
    ``ar`` -> ``arb_Arab``, ``no`` -> ``nob_Latn``. Regions and variants are ignored unless they change the script.
    A script FLORES lacks for the language (``sr-Latn``) is refused, not mapped to the one it has. What is not written
    has the script ``Zxxx`` of ISO 15924, with any ISO 639-3 code before it: ``ase_Zxxx`` is American Sign Language,
    ``zxx_Zxxx`` no language at all (images).

    Raises:
        UnknownNameError: no such language in FLORES-200; the message names the nearest.
    """
    if name in LANGUAGE_NAMES:
        return name
    language, script, region = _subtags(name)
    if script == UNWRITTEN and re.fullmatch("[a-z]{3}", language):
        return f"{language}_{UNWRITTEN}"
    member = _ALIASES.get(language)
    if member is None:
        raise UnknownNameError("language", name, FLORES_200)
    if script is None:
        default = f"{member}_{_LIKELY_SCRIPT.get(member, _SCRIPTS[member][0])}"
        return _BY_REGION.get(f"{member}-{region}", default)
    code = _BY_SCRIPT.get(f"{member}-{script}", f"{member}_{script}")
    if code not in LANGUAGE_NAMES:
        offered = [f"{member}_{known}" for known in _SCRIPTS[member]]
        raise UnknownNameError(f"script of {LANGUAGE_NAMES[offered[0]]}", name, offered)
    return code


def _subtags(name: str) -> tuple[str, str | None, str | None]:
    """Language, script and region of a tag: ``zh_hant-tw`` -> ("zh", "Hant", "TW"); a locale's encoding is cut off."""
    language, *rest = re.split(r"[-_]", name.strip().split(".")[0].split("@")[0])
    language = language.lower()
    script = region = None
    for tag in rest:
        if len(tag) == 3 and tag.isalpha() and language == "zh":
            # "zh-yue": an extended language subtag, which names the language itself.
            language = tag.lower()
        elif len(tag) == 4 and tag.isalpha() and script is None:
            script = tag.title()
        elif (len(tag) == 2 and tag.isalpha()) or (len(tag) == 3 and tag.isdigit()):
            region = tag.upper()
        elif len(tag) == 1:
            break  # extensions and private use ("en-u-ca-gregory", "be-x-old") say nothing about the language
    return language, script, region


def is_undetermined(name: str) -> bool:
    """Whether a value says that there is no one known language (ISO 639 ``und``, ``mul``, ``mis``, ``zxx``)."""
    return name.strip().lower() in _UNDETERMINED


def language_name(code: str) -> str:
    """The English name of a FLORES-200 code, e.g. ``als_Latn`` -> ``Tosk Albanian``.

    Raises:
        UnknownNameError: ``code`` is not a FLORES-200 code.
    """
    if code not in LANGUAGE_NAMES:
        raise UnknownNameError("language code", code, FLORES_200)
    return LANGUAGE_NAMES[code]
