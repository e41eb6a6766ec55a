"""The rule-based segmenter: sentences that are easy to get wrong, in the scripts of FLORES-200."""

from __future__ import annotations

import time

import pytest

from lcm_data.segment.rules import RuleSegmenter

RULES = RuleSegmenter()

# "|" marks where a sentence ends.
CASES = [
    ("eng_Latn", "Dr. Smith met Mr. J. R. Jones at 5 p.m. on Oct. 3.| It went well."),
    ("eng_Latn", "He lives in the U.S. Senate district.| They left the U.S.| The end."),
    ("eng_Latn", "It cost $3.50, i.e. nothing, see Fig. 3 and No. 5.| “Why?”| “Because!”| He said so."),
    ("eng_Latn", '"What is it?" he asked.| (It was nothing.)| He left ... slowly.'),
    ("eng_Latn", "Wait...| What?!| Really?| ok then.| we go now."),
    (
        "eng_Latn",
        "The band Panic!, etc. were there.| Acme Inc. Chairman Lee spoke.| See http://a.b.c/d?e=f.g for more.",
    ),
    ("eng_Latn", "1. Open the lid.| 2. Close it.| It was 2001.| We left.[1]| Then we came back :)| Nice! 😀| Good."),
    ("eng_Latn", "i went home. it was late. nobody was there.".replace(". ", ".| ")),
    ("deu_Latn", "Am 3. Oktober kam Dr. Meier, z. B. mit Hrn. Prof. Lutz.| Es war 1990.| „Gut.“| Er ging usw.| Ende."),
    (
        "fra_Latn",
        "M. Dupont arrive. « Bonjour ! » Il part.| Mme. Curie, p. ex. en 1903, rit.".replace(
            "arrive. ", "arrive.| "
        ).replace("» Il", "»| Il"),
    ),
    ("spa_Latn", "¿Qué hora es?| ¡Son las tres!| El Sr. García llegó a EE. UU. ayer."),
    ("rus_Cyrl", "А. С. Пушкин родился в 1799 г. в Москве, т. е. давно.| Он жил на ул. Мира.| Уже.| Надо идти."),
    ("pol_Latn", "W 1994 r. wydano książkę, m.in. dla dzieci.| Prof. Nowak ją czytał."),
    ("ces_Latn", "Dne 3. května přišel Ing. Novák.| Bylo to např. v Praze."),
    ("tur_Latn", "Dr. Ali 3. Mart günü geldi.| Ne oldu?| Bilmiyorum."),
    ("ell_Grek", "Τι κάνεις;| Καλά, κ. Παπαδόπουλε.| Ήρθε το 300 π.Χ. στην Αθήνα."),
    ("hye_Armn", "Նա եկավ։| Ո՞վ է նա:| Չգիտեմ։"),
    ("kat_Geor", "ის მოვიდა. ვინ არის ის? არ ვიცი.".replace(". ვ", ".| ვ").replace("? ", "?| ")),
    ("arb_Arab", "ذهب إلى البيت.| هل عاد؟| نعم!"),
    ("urd_Arab", "وہ گھر گیا۔| کیا وہ واپس آیا؟| ہاں۔وہ آیا۔".replace("ہاں۔", "ہاں۔|")),
    ("urd_Arab", "وہ گھر گیا ہے -| کیا وہ آیا؟"),
    ("heb_Hebr", "הוא הלך הביתה.| האם חזר?| כן!"),
    ("hin_Deva", "वह घर गया।| क्या वह लौटा?| डॉ. एस. के. शर्मा आए।| हाँ।"),
    ("ben_Beng", "সে বাড়ি গেল।| সে কি ফিরেছে?| হ্যাঁ।"),
    ("tam_Taml", "கே. சுப்பராயன் வந்தார்.| எல்.என். மிட்டல் சென்றார்."),
    ("zho_Hans", "今天天气很好。|“你去吗？”|我们走吧！|圆周率是3.14。"),
    ("jpn_Jpan", "「行く。」と言った。|本当？|はい！|３．１４です。"),
    ("kor_Hang", "집에 갔다.| 맛있어요 |또 올게요.| 좋습니다 |정말로."),
    ("amh_Ethi", "እሱ ሄደ።| መጣ፡፡| ለምን?"),
    ("mya_Mymr", "သူသွားသည်။|သူပြန်လာသည်။"),
    ("khm_Khmr", "គាត់ទៅផ្ទះ។| គាត់មកវិញ។"),
    ("bod_Tibt", "ང་བོད་པ་ཡིན། |ཁྱེད་སུ་རེད། |"),
    ("sat_Olck", "ᱩᱱᱤ ᱪᱟᱞᱟᱣᱮᱱᱟ᱾| ᱩᱱᱤ ᱦᱮᱡ ᱮᱱᱟ᱾"),
    ("tha_Thai", "ฉันไปตลาดเพื่อซื้อผักและผลไม้เมื่อวานนี้ |นอกจากนี้ฉันยังซื้อปลาและกุ้งด้วย"),
]


def marked(text: str, lang: str) -> str:
    (spans,) = RULES.segment([text], lang)
    return "|".join(text[start:end].strip() for start, end in spans)


@pytest.mark.parametrize(("lang", "text"), CASES, ids=[f"{lang}-{i}" for i, (lang, _) in enumerate(CASES)])
def test_sentences(lang: str, text: str) -> None:
    want = "|".join(piece.strip() for piece in text.split("|") if piece.strip())
    assert marked(text.replace("|", ""), lang) == want


def test_hard_wrapped_text_is_joined() -> None:
    text = (
        "The committee of the city of York met on Monday and decided that the\n"
        "Bridge should be rebuilt. It will cost a great deal of money, said the\n"
        "Mayor."
    )
    assert marked(text, "eng_Latn").count("|") == 1


def test_list_items_and_headings_end_at_the_line() -> None:
    text = "Shopping list\n- milk\n- Bread and butter\n2) eggs\nThanks"
    assert marked(text, "eng_Latn") == "Shopping list|- milk|- Bread and butter|2) eggs|Thanks"


def test_wrapped_chinese_is_joined() -> None:
    sentence = "这座城市的历史可以追溯到一千多年以前当时这里只是一个小小的渔村后来慢慢发展成为重要的港口城市" * 2
    lines = "\n".join(sentence[i : i + 40] for i in range(0, len(sentence), 40))
    assert marked(lines + "。\n新的一段。", "zho_Hans").count("|") == 1


@pytest.mark.parametrize(
    "evil", [".", '."', ". ", "!)", "。", ".\n", " .", "፡", ":)", "😀 ", "« ", "a.", "[1]", "।", "1. "]
)
def test_time_is_linear_in_the_length(evil: str) -> None:
    begin = time.process_time()
    RULES.segment([evil * 50_000], "tam_Taml")
    RULES.segment([evil * 50_000], "eng_Latn")
    assert time.process_time() - begin < 2.0


def test_language_without_rules_of_its_own() -> None:
    assert marked("Bonjou. Kijan ou ye? Mwen byen!", "hat_Latn") == "Bonjou.|Kijan ou ye?|Mwen byen!"
