from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcm_data.errors import UnknownNameError
from lcm_data.languages import FLORES_200, LANGUAGE_NAMES, is_undetermined, language_name, parse_language


def test_codes_and_their_order():
    assert len(FLORES_200) == len(set(FLORES_200)) == 202
    places = {"ace_Arab": 0, "eng_Latn": 46, "fra_Latn": 56, "zho_Hans": 199, "zul_Latn": 201}
    assert {code: FLORES_200.index(code) for code in places} == places
    assert all(len(code) == 8 and code[:3].islower() and code[4:].istitle() for code in FLORES_200)


def test_order_is_that_of_the_nllb_tokenizer():
    nllb = pytest.importorskip("transformers.models.nllb.tokenization_nllb")
    assert list(FLORES_200) == nllb.FAIRSEQ_LANGUAGE_CODES


@pytest.mark.parametrize("code", FLORES_200)
def test_codes_parse_to_themselves(code):
    assert parse_language(code) == parse_language(code.upper()) == parse_language(code.replace("_", "-")) == code
    assert language_name(code)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("en", "eng_Latn"),
        ("en-GB", "eng_Latn"),
        ("EN_us.UTF-8", "eng_Latn"),
        ("de_DE@euro", "deu_Latn"),
        ("ca-valencia", "cat_Latn"),
        ("de-CH-1996", "deu_Latn"),
        ("en-u-ca-buddhist", "eng_Latn"),
        ("be-x-old", "bel_Cyrl"),
        ("es-419", "spa_Latn"),
        ("pt-BR", "por_Latn"),
        ("zh", "zho_Hans"),
        ("zh-CN", "zho_Hans"),
        ("zh-Hant", "zho_Hant"),
        ("zh_TW", "zho_Hant"),
        ("zh-HK", "zho_Hant"),
        ("zh-Hans-TW", "zho_Hans"),
        ("zh-yue", "yue_Hant"),
        ("zh-cmn-Hant", "zho_Hant"),
        ("cmn", "zho_Hans"),
        ("ger", "deu_Latn"),
        ("fre", "fra_Latn"),
        ("iw", "heb_Hebr"),
        ("no", "nob_Latn"),
        ("nn", "nno_Latn"),
        ("ar", "arb_Arab"),
        ("ar-EG", "arb_Arab"),
        ("arz", "arz_Arab"),
        ("fa", "pes_Arab"),
        ("fa-AF", "prs_Arab"),
        ("et", "est_Latn"),
        ("lv", "lvs_Latn"),
        ("ms", "zsm_Latn"),
        ("sw", "swh_Latn"),
        ("uz", "uzn_Latn"),
        ("az", "azj_Latn"),
        ("az-Arab", "azb_Arab"),
        ("mn", "khk_Cyrl"),
        ("ne", "npi_Deva"),
        ("sq", "als_Latn"),
        ("ps", "pbt_Arab"),
        ("yi", "ydd_Hebr"),
        ("ku", "kmr_Latn"),
        ("ku-Arab", "ckb_Arab"),
        ("sr", "srp_Cyrl"),
        ("sr-Cyrl-RS", "srp_Cyrl"),
        ("tl", "tgl_Latn"),
        ("fil", "tgl_Latn"),
        ("om", "gaz_Latn"),
        ("qu", "quy_Latn"),
        ("mg", "plt_Latn"),
        ("or", "ory_Orya"),
        ("ks", "kas_Arab"),
        ("ks-Deva", "kas_Deva"),
        ("sat-Olck", "sat_Beng"),
        ("ja-Jpan", "jpn_Jpan"),
        ("ko-Kore-KR", "kor_Hang"),
    ],
)
def test_other_spellings(name, code):
    assert parse_language(name) == code


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eng_Latm", "script of English 'eng_Latm'.*eng_Latn"),
        ("sr-Latn", r"unknown script of Serbian 'sr-Latn'.*Known: srp_Cyrl\."),
        ("uz-Cyrl", "uzn_Latn"),
        ("engl_Latn", "Did you mean 'eng_Latn'"),
        ("sh", "unknown language 'sh'"),
        ("la", "unknown language 'la'"),
        ("python", "unknown language"),
        ("", "unknown language"),
        ("-", "unknown language"),
    ],
)
def test_unknown_languages(name, message):
    with pytest.raises(UnknownNameError, match=message):
        parse_language(name)


@given(st.text(max_size=20))
def test_any_string_is_a_code_or_an_error(name):
    try:
        assert parse_language(name) in LANGUAGE_NAMES
    except UnknownNameError:
        pass


def test_names():
    assert language_name("als_Latn") == "Tosk Albanian"
    assert len(set(LANGUAGE_NAMES.values())) == 202
    with pytest.raises(UnknownNameError, match="language code"):
        language_name("en")


def test_undetermined():
    assert is_undetermined("und")
    assert is_undetermined(" MUL")
    assert not is_undetermined("en")


@pytest.mark.parametrize(
    ("name", "code"), [("ase_Zxxx", "ase_Zxxx"), ("zxx-zxxx", "zxx_Zxxx"), ("ENG_ZXXX", "eng_Zxxx")]
)
def test_what_is_not_written_has_a_code(name, code):
    assert parse_language(name) == code


@pytest.mark.parametrize("name", ["en_Zxxx", "as1_Zxxx", "Zxxx", "ase_Zxx", "ase"])
def test_what_is_not_written_needs_three_letters_and_the_script(name):
    with pytest.raises(UnknownNameError):
        parse_language(name)
