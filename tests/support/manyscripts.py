"""Texts of many scripts and much that is no text at all, for tokenizers: the same 6,000 strings everywhere.

Nothing here depends on the Unicode tables of a Python version, so golden files of these strings stay valid.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lcm_data.sonar.tokenizer import SonarTokenizer

# The first sentence of the Universal Declaration of Human Rights.
SENTENCES = {
    "eng_Latn": "All human beings are born free and equal in dignity and rights.",
    "fra_Latn": "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "deu_Latn": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "spa_Latn": "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "ces_Latn": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv.",
    "pol_Latn": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
    "tur_Latn": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. İstanbul, ılık ığdır.",
    "vie_Latn": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "yor_Latn": "Gbogbo ènìyàn ni a bí ní òmìnira; iyì àti ẹ̀tọ́ kọ̀ọ̀kan sì dọ́gba.",
    "isl_Latn": "Hver maður er borinn frjáls og jafn öðrum að virðingu og réttindum.",
    "rus_Cyrl": "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "ukr_Cyrl": "Всі люди народжуються вільними і рівними у своїй гідності та правах.",
    "ell_Grek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "hye_Armn": "Բոլոր մարդիկ ծնվում են ազատ ու հավասար իրենց արժանապատվությամբ ու իրավունքներով։",
    "kat_Geor": "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით.",
    "heb_Hebr": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. שָׁלוֹם",
    "arb_Arab": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. مُحَمَّد ٱللّٰه",
    "pes_Arab": "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند.",
    "urd_Arab": "تمام انسان آزاد اور حقوق و عزت کے اعتبار سے برابر پیدا ہوئے ہیں۔",
    "hin_Deva": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "ben_Beng": "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।",
    "pan_Guru": "ਸਾਰਾ ਮਨੁੱਖੀ ਪਰਿਵਾਰ ਆਪਣੀ ਮਹਿਮਾ, ਸ਼ਾਨ ਅਤੇ ਹੱਕਾਂ ਦੇ ਪੱਖੋਂ ਜਨਮ ਤੋਂ ਹੀ ਆਜ਼ਾਦ ਹੈ।",
    "guj_Gujr": "પ્રતિષ્ઠા અને અધિકારોની દૃષ્ટિએ સર્વ માનવો જન્મથી સ્વતંત્ર અને સમાન હોય છે.",
    "ory_Orya": "ସବୁ ମନୁଷ୍ୟ ଜନ୍ମକାଳରୁ ସ୍ୱାଧୀନ ଏବଂ ମର୍ଯ୍ୟାଦା ଓ ଅଧିକାରରେ ସମାନ।",
    "tam_Taml": "மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்; மதிப்பிலும் சமமானவர்கள்.",
    "tel_Telu": "ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును జన్మతః స్వతంత్రులును సమానులును నగుదురు.",
    "kan_Knda": "ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿಯೇ ಜನಿಸಿದ್ದಾರೆ. ಘನತೆ ಹಾಗೂ ಹಕ್ಕುಗಳಲ್ಲಿ ಸಮಾನರಾಗಿದ್ದಾರೆ.",
    "mal_Mlym": "മനുഷ്യരെല്ലാവരും തുല്യാവകാശങ്ങളോടും അന്തസ്സോടും സ്വാതന്ത്ര്യത്തോടുംകൂടി ജനിച്ചവരാണ്.",
    "sin_Sinh": "සියලු මනුෂ්‍යයෝ නිදහස්ව උපත ලබා ඇත. ගරුත්වයෙන් හා අයිතිවාසිකම්වලින් සමාන වෙති.",
    "tha_Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "lao_Laoo": "ມະນຸດທຸກຄົນເກີດມາມີກຽດສັກສີ, ສິດທິ, ເສລີພາບ ແລະ ຄວາມສະເໝີພາບເທົ່າທຽມກັນ.",
    "mya_Mymr": "လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း၊ မွေးဖွားလာသူများ ဖြစ်သည်။",
    "khm_Khmr": "មនុស្សទាំងអស់កើតមកមានសេរីភាព និងភាពស្មើគ្នាក្នុងសេចក្ដីថ្លៃថ្នូរនិងសិទ្ធិ។",
    "bod_Tibt": "འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ་སྐྱེས་ཙམ་ཉིད་ནས་ཆེ་མཐོངས་དང༌།",
    "amh_Ethi": "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።",
    "kor_Hang": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "jpn_Jpan": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "zho_Hans": "人人生而自由，在尊严和权利上一律平等。",
    "zho_Hant": "人人生而自由，在尊嚴和權利上一律平等。",
    "tzm_Tfng": "ⵉⵎⴷⴰⵏⵏ ⴰⴽⴽⵯ ⵜⵜⵍⴰⵍⵏ ⴷ ⵉⵍⴻⵍⵍⵉⵢⵏ ⵎⵙⴰⵡⴰⵏ ⴷⵉ ⵍⵃⵓⵔⵎⴰ ⴷ ⵢⵉⵣⵔⴼⴰⵏ.",
    "nqo_Nkoo": "ߡߐ߱ ߓߍ߯ ߡߊ߬ߛߏ߬ߣߐ߲߬ߣߍ߲߫ ߠߋ߬ ߝߏ߬ߘߐ߬ߓߊ߬ߣߍ߲ ߡߊ߬ ߤߊߣߍ߲.",
    "sat_Olck": "ᱡᱚᱛᱚ ᱦᱚᱲ ᱟᱡᱟᱫ ᱟᱨ ᱥᱚᱢᱟᱱ ᱠᱚ ᱡᱟᱱᱟᱢ ᱟᱠᱟᱱᱟ᱾",
}

ODDITIES = [
    *("", " ", "  ", "\t", "\n", "\r\n", "\0", "\0\0a\0", "\x01\x02\x1f", "\x7f", "\x80\x85\x9f", "\u00a0", "\u3000"),
    *("\u200b", "\u200c\u200d", "\u2028\u2029", "\ufeff", "\ufeffa", "\u00ad", "\u2060", "\u180e", "\u034f", "\u061c"),
    *("\u202e abc \u202c", "\u2067שלום\u2069 abc", "a\u0301", "\u0301", "\u0301\u0302\u0303a" + "\u0300" * 40),
    *("\u1112\u1161\u11ab", "\u1112\u1161", "\u11ab", "\u3131\u314f", "\ud55c\u11ab", "ﬁ ﬂ ﷺ ﷽ ㍿ ㎏ ½ ² Å Ω ſ ß ẞ ǅ"),
    *("ＦＵＬＬ　ｗｉｄｔｈ　１２３", "ｶﾞｷﾞｸﾞ ﾊﾟ", "①②③ Ⅷ ℃ ™", "𝓗𝓮𝓵𝓵𝓸 𝟙𝟚𝟛", "H̸̡̪̯ͨ͊̽̅̾̎Ȩ̬̩̾͛ͪ̈́̀́͘ ̶̧̨̱̹̭̯ͧ̾ͬC̷̙̲̝͖ͭ̏ͥͮ͟Oͮ͏̮̪̝͍"),
    *("👩‍🔬", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷🇯🇵", "👍🏽👍🏿", "1️⃣", "❤️ ❤", "\U0001f600" * 30, "\ufe0f", "\U000e0067\U000e007f"),
    *("\ue000\uf8ff", "\U000f0000\U0010fffd", "\ufffd", "\ufffe\uffff", "\U0001ffff", "\u0378\u0379", "\U0003ffff"),
    *("\U00010330\U00010331", "\U00012000", "\U0001d11e", "\U00020000\U0002a6d6", "\U0001e900\U0001e943"),
    *("</s>", "<s>", "<pad>", "<unk>", "__eng_Latn__", "eng_Latn", "</s></s> <pad>", "<MINED_DATA>", "<MMT_BT_DATA>"),
    *("▁", "▁▁", "a▁b", " ▁ ", "⁇", " ⁇ ", "<0x41>", "<0x00>", "\\n", "\\u0000", "%s%n", "'; DROP TABLE", "&nbsp;&#0;"),
    *("a" * 1000, "ab" * 700, "a b " * 600, "word " * 509, "word " * 513, "...", "!" * 600, "0" * 2000, "1,000,000.00"),
    *("https://example.org/a?b=c&d=%20#e", "e-mail@example.org", "C:\\temp\\x", "#hash @at", "x\u00d7y\u00f7z", "﹏﹏"),
    SENTENCES["pol_Latn"] + "...",  # two segmentations of exactly equal score in the larger of the golden vocabularies
]

SEPARATORS = (" ", " ", " ", "", "  ", "\n", "\t", "\u00a0", "\u3000", "\u200b", ", ", " \u2013 ", "\0", "\u2028")

# First and last code points of blocks that hold letters, marks, signs, and nothing at all; no surrogates.
BLOCKS = (
    *((0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x531, 0x5F4), (0x600, 0x77F), (0x900, 0xDFF)),
    *((0xE00, 0xFFF), (0x1000, 0x11FF), (0x1200, 0x139F), (0x13A0, 0x167F), (0x1780, 0x18AF), (0x1C50, 0x1CFF)),
    *((0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x23FF), (0x2460, 0x27BF), (0x2C00, 0x2DFF), (0x2E80, 0x30FF)),
    *((0x3100, 0x33FF), (0x3400, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7FF), (0xF900, 0xFDFF), (0xFE00, 0xFFFF)),
    *((0x10000, 0x10FFF), (0x11000, 0x12FFF), (0x16800, 0x18FFF), (0x1D000, 0x1D7FF), (0x1E000, 0x1EFFF)),
    *((0x1F000, 0x1FAFF), (0x20000, 0x323AF), (0xE0000, 0xE01FF), (0xF0000, 0x10FFFF), (0x00, 0x1F), (0x7F, 0x9F)),
)


def strings(count: int = 6000, seed: int = 17) -> list[str]:
    """All sentences and oddities, then mixtures and noise up to ``count``; no two are equal."""
    found = dict.fromkeys([*SENTENCES.values(), *ODDITIES])
    mixed = _endless(random.Random(seed))
    while len(found) < count:
        found[next(mixed)] = None
    return list(found)


def score(tokenizer: SonarTokenizer, ids: Sequence[int]) -> float:
    """What SentencePiece maximises over all segmentations: the sum of the log probabilities of the pieces."""
    return math.fsum(tokenizer._model.GetScore(i - 1) for i in ids[1:-1])


def noise(rng: random.Random, length: int) -> str:
    """Characters of one to three blocks; any code point but a surrogate may come up."""
    blocks = rng.choices(BLOCKS, k=rng.randint(1, 3))
    return "".join(chr(rng.randint(*rng.choice(blocks))) for _ in range(length))


def _endless(rng: random.Random) -> Iterator[str]:
    sentences = list(SENTENCES.values())
    while True:
        yield _words(rng, rng.choice(sentences))
        yield rng.choice(SEPARATORS).join(_cut(rng, rng.choice(sentences)) for _ in range(rng.randint(2, 4)))
        yield _sprinkled(rng, rng.choice(sentences))
        yield noise(rng, rng.randint(1, 40))


def _words(rng: random.Random, sentence: str) -> str:
    words = sentence.split(" ")
    rng.shuffle(words)
    return rng.choice(SEPARATORS).join(words[: rng.randint(1, len(words))])


def _cut(rng: random.Random, sentence: str) -> str:
    """Any slice: it may begin with a combining mark or the middle of a word."""
    start = rng.randrange(len(sentence))
    return sentence[start : start + rng.randint(1, 30)]


def _sprinkled(rng: random.Random, sentence: str) -> str:
    """A sentence with oddities and noise put in at random places."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(sentence) + 1)
        thing = rng.choice(ODDITIES)[:12] if rng.random() < 0.6 else noise(rng, rng.randint(1, 4))
        sentence = sentence[:at] + thing + sentence[at:]
    return sentence
