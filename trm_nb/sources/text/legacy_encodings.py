"""Which encoding a text that is not UTF-8 was most likely written in.

charset-normalizer proposes: what decodes without an error and is not a mess. It leaves ties in great number (one byte
above 127 fits thirty code pages), and its own choice among them is often not the likely one: `étés` came out as Big5,
Danish as code page 852. So the choice among its proposals is made here, by how common the characters they give are in
the languages written with them: the letters of each language stand below in the order of their frequency, which is
taken as Zipf's law, with a small handicap for encodings that are rare. Of 3,465 held-out snippets in 19 languages and
22 encodings this decodes 97.2 % to the very text, chardet 7.7 90.4 % (LOG.md, 2026-11-27).
Only encodings in which text files are found are tried: no EBCDIC, no UTF-16 without a byte order mark.
Cost: some milliseconds, as the caller bounds the sample. The same bytes always give the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

from charset_normalizer import from_bytes

# Letters beyond ASCII, the most frequent first; in Asian scripts the most frequent few hundred.
_WESTERN = ("éàèêçôîùâûëïœ«»’", "üäößé„“", "óíáéñú¿¡üºª«»", "èàéùòì’", "ãçáéíóêúâõôàºª", "äåöé", "åøæéóö",
            "éëïóöüè’", "íáéóúýæöðþ", "àóèéçíòúïü·’")  # fmt: skip
_CENTRAL = ("łęąśóżćńź„”", "íáéěřčžýšůúťďňó„“", "áéöóíőüúű„”", "áíéčýžťľšúôňďäóŕĺ", "ăîţşâ„”", "čšžćđ„“")
_TURKISH = ("ıişüçğöâîû",)
_BALTIC = ("ėšįųžąčęū„“", "āīēšļūņķžģčŗ", "äõüöšž")
_CYRILLIC = ("оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё«»№", "оаниевтрслкдмпузяьбгйчхцїжієюшщфґ«»",
             "аеионтрсвдлкпмзъгубчцйжщшхяюфьѝ„“", "аеионрстудкмвлпјзбгчшњцхжљћђфџ„“")  # fmt: skip
_GREEK = ("αοετινσρμηπκυςλίδγήέόάχωθφύώβξζψϊϋ«»",)
_HEBREW = ("יוהלאמרתבשנעדחקפםגסכטזןץצךף״׳",)
_ARABIC = ("المينرتبوعدفسةهكقحجىأصشطخضذغءثئإزظؤآ،؟",)
_THAI = ("ารนกอเงมยลวดตทสปบคห่้ีัิืแพจชขใไผซะถุูธณภฟศษฉฎฐญ็์ำโๆ",)
_JAPANESE = (
    "のにるたはをしてとがいでれなありかっスンルトラリックアイレードシャタュジフロプグマティムデオコカブパメサキウチバズニエビソナ"
    "ツハヘベペホボポミモユヨワォェァセケゲゴザダネノヒピすまうもらこさくきけせどめよつえちみわおそべやばじねむろびげずご、。「」・"
    "一日人大年会国本中長出三同時事自行社見月分議後前民生連間対上部東者合市業内相方四定今回新場入選立開手力学問高代明実関決"
    "子動全目表戦経通外最言現理調体化当主題下意法不来作性的要用度務強小期野取都和統機平加思家話世受区多続進正安設保改数記",
)
_KOREAN = (
    "이다는을의에가로하고지기사인를어도리한자나그대스있시정라은서전만아보수일으제국여들해니부구상주장원과조소우와비동거유성공마연"
    "게신치안세무적실경선화분미생방면개관금오명내행요물문통년중양려위모발당회영학반되었것했습입력크트드파프터음계산식결업단합강남",
)
_SIMPLIFIED = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方"
    "多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情"
    "明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加信表化老给世位次度门任常，。",
)
_TRADITIONAL = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作里用道行所然家種事成方"
    "多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心她本前開但因只從想實日軍者意無力它與長把機十民第公此已工使情"
    "明性知全三又關點正業外將兩高間由問很最重並物手應戰向頭文體政美相見被利什二等產或新己制身果加信表化老給世位次度門任常，。",
)
_PUNCTUATION = "“”’«»„–—…©®°€•§×\xa0"  # of all languages

# encoding: the languages written with it, and its handicap in nats; of equals, the first
_ENCODINGS: dict[str, tuple[tuple[str, ...], float]] = {
    "cp1252": (_WESTERN, 0), "cp1250": (_CENTRAL, 1.5), "iso8859_2": (_CENTRAL, 2.5), "cp1254": (_TURKISH, 2),
    "cp1257": (_BALTIC, 2), "iso8859_15": (_WESTERN, 4), "cp1251": (_CYRILLIC, 3), "koi8_u": (_CYRILLIC, 3.5),
    "cp866": (_CYRILLIC, 6), "iso8859_5": (_CYRILLIC, 6), "cp1253": (_GREEK, 3), "iso8859_7": (_GREEK, 4),
    "cp1255": (_HEBREW, 3), "cp1256": (_ARABIC, 3), "cp874": (_THAI, 3), "cp932": (_JAPANESE, 0),
    "euc_jp": (_JAPANESE, 0), "euc_kr": (_KOREAN, 0), "cp949": (_KOREAN, 0), "gb18030": (_SIMPLIFIED, 0),
    "big5": (_TRADITIONAL, 0), "shift_jis_2004": (_JAPANESE, 4), "euc_jis_2004": (_JAPANESE, 4),
    "big5hkscs": (_TRADITIONAL, 4),
}  # fmt: skip
_LATIN = {"cp1252", "cp1250", "iso8859_2", "cp1254", "cp1257", "iso8859_15"}
# Where an Asian encoding keeps its everyday characters: the codec of the national standard, and the first bytes.
_EVERYDAY = {
    "cp932": ("shift_jis", range(0x88, 0x98)), "shift_jis_2004": ("shift_jis", range(0x88, 0x98)),
    "euc_jp": ("euc_jp", range(0xB0, 0xD0)), "euc_jis_2004": ("euc_jp", range(0xB0, 0xD0)),
    "gb18030": ("gb2312", range(0xB0, 0xD8)), "big5": ("big5", range(0xA4, 0xC7)),
    "big5hkscs": ("big5", range(0xA4, 0xC7)), "euc_kr": ("euc_kr", range(0xB0, 0xC9)),
    "cp949": ("euc_kr", range(0xB0, 0xC9)),
}  # fmt: skip
_FLOOR = -7.5  # nats a byte: below it a decoding is noise (random bytes stand at -11 in every encoding)
_MESS = 0.2  # charset-normalizer's own threshold


def likely_encoding(sample: bytes) -> str | None:
    """The name of a Python codec that decodes `sample` to the likeliest text, None where every decoding is noise.

    `sample` should hold the bytes above 127 with what stands around them, and whole lines where there are lines.
    """
    matches = from_bytes(sample, cp_isolation=list(_ENCODINGS), threshold=_MESS, enable_fallback=False)
    proposed = {name for match in matches for name in (match.encoding, *match.could_be_from_charset)}
    return _best(sample, proposed & _ENCODINGS.keys()) or _best(sample, _ENCODINGS)


def _best(sample: bytes, encodings: Iterable[str]) -> str | None:
    high = sum(byte > 127 for byte in sample)
    scores: dict[str, float] = {}
    for name in sorted(encodings, key=list(_ENCODINGS).index):
        try:
            scores[name] = _log_likelihood(sample.decode(name), name)
        except UnicodeDecodeError:
            continue
    best = max(scores, key=scores.__getitem__, default=None)
    return best if best is not None and scores[best] > _FLOOR * high - 10 else None


def _log_likelihood(text: str, encoding: str) -> float:
    """Of the characters beyond ASCII, in the language that suits them best."""
    languages, handicap = _ENCODINGS[encoding]
    counts: dict[str, int] = {}
    odd, before = 0, " "
    for character in text:
        if character > "\x7f":
            counts[character] = counts.get(character, 0) + 1
        odd += _odd_pair(before, character, encoding)
        before = character
    likelihood = max(sum(n * _log_probability(c, encoding, tongue) for c, n in counts.items()) for tongue in languages)
    return likelihood - 4 * odd - handicap


def _odd_pair(before: str, character: str, encoding: str) -> bool:
    """A capital after a small letter, or a letter of another script than Latin beside a Latin one."""
    if before.isascii() and character.isascii():
        return False
    if before.islower() and character.isupper():
        return True
    foreign = encoding not in _LATIN and encoding not in _EVERYDAY
    return foreign and before.isalpha() and character.isalpha() and before.isascii() != character.isascii()


@lru_cache(maxsize=64)
def _zipf(language: str) -> dict[str, float]:
    order = list(dict.fromkeys(language))
    total = sum(1 / (rank + 3) for rank in range(len(order)))
    known = 0.85 if len(order) > 100 else 0.93
    table = {c: math.log(known / (rank + 3) / total) for rank, c in enumerate(order)}
    capitals = {c.upper(): p + math.log(0.04) for c, p in table.items() if len(c.upper()) == 1}
    return {**dict.fromkeys(_PUNCTUATION, math.log(0.01)), **capitals, **table}


@lru_cache(maxsize=100_000)
def _log_probability(character: str, encoding: str, language: str) -> float:
    known = _zipf(language).get(character)
    if known is not None:
        return known
    if encoding not in _EVERYDAY:
        return -11
    if "\u3000" <= character <= "\u30ff" or "\uff01" <= character <= "\uff5e":
        return -9  # punctuation, kana, and ASCII's wide forms
    codec, everyday = _EVERYDAY[encoding]
    try:
        return -9.5 if character.encode(codec)[0] in everyday else -13
    except UnicodeEncodeError:
        return -16
