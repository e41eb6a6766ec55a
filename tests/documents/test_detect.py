from __future__ import annotations

import re
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data.documents import Document, Reject
from lcm_data.documents.detect import Detection, LanguageDetector, han_script, resolve_language, script_shares
from lcm_data.languages import FLORES_200

TEXTS = {
    "eng_Latn": "The committee published its report on Monday, and nobody was surprised by what it said.",
    "fra_Latn": "Le comité a publié son rapport lundi, et personne n'a été surpris de son contenu.",
    "deu_Latn": "Der Ausschuss hat am Montag seinen Bericht veröffentlicht, und niemand war überrascht.",
    "rus_Cyrl": "Комитет опубликовал свой доклад в понедельник, и никого не удивило его содержание.",
    "srp_Cyrl": "Република Србија је држава у Европи, а главни град је Београд.",
    "arb_Arab": "نشرت اللجنة تقريرها يوم الاثنين ولم يتفاجأ أحد بما جاء فيه.",
    "heb_Hebr": "הוועדה פרסמה את הדוח שלה ביום שני ואיש לא הופתע ממה שנאמר בו.",
    "hin_Deva": "समिति ने सोमवार को अपनी रिपोर्ट प्रकाशित की और किसी को आश्चर्य नहीं हुआ।",
    "zho_Hans": "委员会星期一发表了报告，没有人对报告的内容感到惊讶。",
    "zho_Hant": "委員會星期一發表了報告，沒有人對報告的內容感到驚訝。",
    "jpn_Jpan": "委員会は月曜日に報告書を発表し、その内容に驚いた人は誰もいなかった。",
    "kor_Hang": "위원회는 월요일에 보고서를 발표했고 그 내용에 놀란 사람은 아무도 없었다.",
    "tha_Thai": "คณะกรรมการเผยแพร่รายงานเมื่อวันจันทร์ และไม่มีใครแปลกใจกับเนื้อหา",
    "als_Latn": "Shqipëria është një vend në Evropën Juglindore dhe kryeqyteti i saj është Tirana.",
    "azj_Latn": "Azərbaycan Respublikası Qafqazda yerləşir və paytaxtı Bakı şəhəridir.",
    "ckb_Arab": "کوردستان وڵاتێکی گەورەیە لە ڕۆژھەڵاتی ناوەڕاست",
    "kmr_Latn": "Kurdistan welatekî mezin e li Rojhilata Navîn û gelê kurd lê dijî.",
    "ydd_Hebr": "ייִדיש איז אַ שפּראַך וואָס מע רעדט אין אַ סך לענדער אויף דער וועלט",
    "nob_Latn": "Utvalget offentliggjorde rapporten sin på mandag, og ingen ble overrasket over innholdet.",
}


@pytest.fixture(scope="module")
def detector():
    return LanguageDetector()


@pytest.mark.parametrize("lang", TEXTS)
def test_languages(detector, lang):
    found = detector.detect(TEXTS[lang])
    assert found.lang == lang
    assert 0.5 < found.score <= 1


def test_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert LanguageDetector().detect(TEXTS["fra_Latn"]).lang == "fra_Latn"


def test_pointed_arabic(detector):
    assert detector.detect("نَشَرَتِ اللَّجْنَةُ تَقْرِيرَهَا يَوْمَ الِاثْنَيْنِ وَلَمْ يَتَفَاجَأْ أَحَدٌ").lang == "arb_Arab"


def test_all_capitals(detector):
    assert detector.detect("ESTO ES UNA PRUEBA ESCRITA CON LETRAS MAYÚSCULAS").lang == "spa_Latn"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Elsassisch isch e Dialekt vum Alemannische, wo mer im Elsass schwätzt", "als"),
        ("Me a zo o chom e Breizh hag e komzan brezhoneg bemdez gant ma familh", "br"),
    ],
)
def test_languages_outside_flores_keep_their_label(detector, text, label):
    found = detector.detect(text)
    assert (found.lang, found.label) == (None, label)
    assert found.score > 0.5


def test_script_that_flores_lacks(detector):
    # Serbian in Latin letters is not srp_Cyrl.
    found = detector.detect("Vlada Republike Srbije je na sednici u Beogradu usvojila predlog zakona o radu.")
    assert found.lang != "srp_Cyrl"


@pytest.mark.parametrize("text", ["", "12 345 !?", "\0\0", "  \n"])
def test_no_letters(detector, text):
    assert detector.detect(text) == Detection(None, 0.0, "")


def test_long_documents_are_sampled(detector):
    long = " ".join([TEXTS["fra_Latn"]] * 100_000)
    assert detector.detect(long).lang == "fra_Latn"
    # What is between the samples is not looked at.
    assert (
        detector.detect(TEXTS["fra_Latn"] * 30 + TEXTS["eng_Latn"] * 300 + TEXTS["fra_Latn"] * 300).lang == "fra_Latn"
    )


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60))
def test_any_text(text):
    found = _DETECTOR.detect(text)
    assert found.lang is None or found.lang in FLORES_200
    assert 0 <= found.score <= 1


_DETECTOR = LanguageDetector()


def test_scripts():
    assert script_shares("aб 12") == {"Latn": 0.5, "Cyrl": 0.5}
    assert script_shares("漢あア한ᱥ") == {"Hani": 0.2, "Jpan": 0.4, "Hang": 0.2, "Olck": 0.2}
    assert script_shares("12") == {}


@pytest.mark.parametrize(("text", "script"), [("国这", "Hans"), ("國這", "Hant"), ("一人", "Hans"), ("國这這", "Hant")])
def test_han_script(text, script):
    assert han_script(text) == script


def doc(text="", lang=None):
    return Document("d", text, lang, None, 3, "s")


def test_given_language_wins(detector):
    assert resolve_language(doc(TEXTS["fra_Latn"], "deu_Latn"), "eng_Latn", detector).lang == "deu_Latn"


def test_fixed_language_is_not_detected():
    found = resolve_language(doc(TEXTS["fra_Latn"]), "deu_Latn", None)
    assert (found.lang, found.lid_score) == ("deu_Latn", None)


def test_detected_language_has_its_score(detector):
    found = resolve_language(doc(TEXTS["fra_Latn"]), None, detector, 0.5)
    assert isinstance(found, Document)
    assert found.lang == "fra_Latn"
    assert found.lid_score == detector.detect(TEXTS["fra_Latn"]).score


@pytest.mark.parametrize(
    ("text", "min_score", "error"),
    [
        ("Hotel Taxi", 0.99, "the best guess is .* with 0.*, at least 0.99 is needed"),
        (
            "Elsassisch isch e Dialekt vum Alemannische, wo mer im Elsass schwätzt",
            0.5,
            "'als' with .* no language of FLORES",
        ),
        ("123", 0.0, "no letters"),
    ],
)
def test_uncertain_language_is_a_reject(detector, text, min_score, error):
    found = resolve_language(doc(text), None, detector, min_score)
    assert isinstance(found, Reject)
    assert (found.row, found.reason, found.doc_id, found.text) == (3, "uncertain_language", "d", text)
    assert re.search(error, found.error)


def test_detection_can_be_off():
    found = resolve_language(doc("text"), None, None)
    assert isinstance(found, Reject)
    assert "detection is off" in found.error
