"""English for people: lists, plurals, counts, prices, quotes, and which words say nothing. Pure text, no records and no
counting.

Catalogue and query text is untrusted: whatever is shown goes through `clean`, `value` or `quote`, which drop control
characters, collapse line breaks and shorten.
"""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_QUOTES = str.maketrans({"“": "'", "”": "'", '"': "'"})
_WORD = re.compile(r"\w+(?:['’]\w+)?")

# Words without a taste of their own. They neither count as what recurs in titles nor as catalogue values in a summary.
STOP_WORDS = frozenset(
    """a about above across after again all also always an and another any are around as at back be been before being best better between big
    both but by came can choice come could did do does down each either else end ever every few first for from full get give go good great had
    has have he her here him his how i if in into is it item items its just keep kind last late lately latest less let like little long look
    lot made make many may me mid might mix more most mostly much must my near need never new next no none not nothing now of off often old
    on once one only or other others our out over own part per plus same see seem several she short side since small so some still style such
    take than that the their them then there these they thing things this those through time to together too top total toward two under
    unisex unknown up us use used user usual usually variety various very want was way we well were what when where which while who why wide
    will with within without would yes yet you your""".split()
)
# What stands in titles for packing and measure, not for taste.
PACKING = frozenset(
    """bottle bottles box bundle case color colors colour colours count counts ct each fl floz fluid g gallon gram grams inch inches jar jars kg
    lb lbs may mg ml multipack ounce ounces oz pack packs package packages packaging pair pairs pc pcs piece pieces pound qty set sets size
    sizes tube tubes value vary x xl xs xxl nan amp quot edition version assorted brand""".split()
)
# English that praises or describes: a summary may say it of any shopper, though some catalogue has it as a brand or a
# category.
EVERYDAY = frozenset(
    """accent active activewear adult aesthetic affordable appeal attention authentic balance basic basics beautiful beauty bold brand brands
    bright budget buy bought browse calm care casual category charm classic clean clear clothes clothing collection color colors colour
    colours comfort comfortable comfy cool cozy daily dark deal deals design designs detail details discover dream durable easy effective
    elegance elegant energy essential essentials everyday exclusive express family fancy fashion favorite favourite feature features feminine
    fit flexible focus free fresh friendly fun function general gift gifts glow guess happy health healthy high home ideal inspired interest
    interests joy kids large lifestyle light love luxury mature men minimal mix modern mood multi multiple natural nature neutral news nice
    order original outdoor outfit people perfect personal place plain play popular practical practice prefer premium price prices priced
    pretty product products pure purchase purchases quality quick range read regular relaxed reliable romantic search searched season select
    sensitive set shop shopper shopping simple simply single size smart soft solid special standard strong style styles stylish sweet target
    taste tend timeless title titles today touch travel trend trends trendy true uncategorized unique value variant versatile vibrant vintage
    warm wear wellness white-label women wonder young youth""".split()
)
# What lifts a colour alone out of a title says little; "sterling silver" still counts as a pair.
HUES = frozenset(
    "black white grey gray silver gold blue navy red pink green brown beige purple yellow orange rose".split()
)
# Whom a title addresses, by the stem of its words.
AUDIENCES = {
    **dict.fromkeys(("women", "woman", "lady", "womens"), "women"),
    **dict.fromkeys(("men", "man", "mens"), "men"),
    **dict.fromkeys(("girl", "boy", "kid", "child", "children", "toddler", "baby", "infant", "youth"), "children"),
}
# Words of headlines and cuts that recur everywhere.
COMMON = frozenset(
    """against america american anymore ask back call city cute day dead death deep fact family find former found friendlier go guide help
    here home hour include latest level live long man men month morning neck officials people photo plan pocket police reason report reveal
    review right said say see show sleeve star start state story supply tell thing think tip today two video watch way week win without
    woman women work world year york""".split()
)

_MASS_ENDINGS = (
    "wear", "care", "ware", "ics", "jewelry", "jewellery", "apparel", "beauty", "makeup", "hosiery", "luggage", "food", "drink", "music",
    "weather", "travel", "sport", "health", "finance", "lifestyle", "entertainment", "fragrance", "decor", "furniture", "fashion", "home",
    "tv", "lingerie", "denim", "garden", "kitchen", "skin", "hair", "equipment", "video", "autos", "news", "people", "men", "women", "fleece",
)  # fmt: skip
_COUNTABLE_ING = ("ring", "earring", "legging", "stocking", "string", "wedding ring", "keyring")
_SPELLED = {"tv": "TV", "foodanddrink": "food & drink"}


def clean(text: str) -> str:
    """One line of printable text, entities such as `&amp;` resolved, the marks of chat control tokens (`<|im_end|>`)
    taken away. What is longer than a page is cut before."""
    return _cleaned(text[:_PAGE])


_PAGE = 20_000  # characters


@lru_cache(maxsize=1 << 15)  # a history names the same products again and again
def _cleaned(text: str) -> str:
    for _ in range(3):  # shops escape what is escaped already
        before, text = text, html.unescape(text)
        if text == before:
            break
    else:
        text = text.replace("&", " ")
    line = text.replace("<|", " ").replace("|>", " ")
    return " ".join("".join(c if c.isprintable() else " " for c in line).split())


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, cut between words where there are words to cut between."""
    text = clean(text)
    if len(text) <= limit:
        return text
    cut = text[: limit - 1]
    head = cut.rpartition(" ")[0] if text[limit - 1] != " " else cut
    return (head or cut).rstrip(" ,;:.-–|&/(") + "…"


def quote(text: str, limit: int = 60) -> str:
    """Untrusted text between quotation marks, the marks inside turned into apostrophes."""
    return f"“{shorten(text.translate(_QUOTES), limit)}”"


def value(text: str) -> str:
    """A brand or colour as it is written, cleaned and never longer than 40 characters."""
    return shorten(text, 40)


@lru_cache(maxsize=1 << 12)
def category_name(text: str) -> str:
    """A category for running text: the last step of a path, codes spelled out (NIGHTGOWN_NIGHTSHIRT → nightgown
    nightshirt), lower case but for acronyms."""
    last = re.split(r"\s*[>|»]\s*", clean(text))[-1]
    coded = last.isupper()
    words = (last.removeprefix("APPAREL_") if coded else last).replace("_", " ").split()
    kept = (word if not coded and len(word) <= 3 and word.isupper() else word.lower() for word in words)
    return shorten(" ".join(_SPELLED.get(word, word) for word in kept), 40)


def plural(noun: str) -> str:
    """The plural of a category name; names that are plural or name a mass ("knitwear", "skin care", "news") stay as
    they are."""
    last = noun.rpartition(" ")[2]
    if (
        not last.isascii()
        or not last[-1:].isalpha()
        or last.endswith(_MASS_ENDINGS)
        or "&" in noun
        or " and " in noun
        or noun.endswith("…")
    ):
        return noun
    if last.endswith("ing") and not last.endswith(_COUNTABLE_ING):
        return noun
    if last.endswith("s") and not last.endswith("ss"):
        return noun
    if last.endswith(("ss", "sh", "ch", "x", "z")):
        return noun + "es"
    if last.endswith("y") and last[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    if last.endswith(("scarf", "shelf", "half")):
        return noun[:-1] + "ves"
    return noun + "s"


def listing(parts: Sequence[str], last: str = "and") -> str:
    """Parts as a list in running text: a / a and b / a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def count(number: int, noun: str, nouns: str = "") -> str:
    """A number as a word up to twelve, with its noun in the right number: "one colour", "three colours", "15
    colours"."""
    word = _NUMBERS[number] if number < len(_NUMBERS) else str(number)
    return f"{word} {noun if number == 1 else nouns or noun + 's'}"


def times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number) or count(number, "time")


def prices(low: float, high: float, currency: str) -> str:
    """A price range, rounded to whole units from 5 up: "about $9 to $40", "about 30 EUR"; without a currency the bare
    numbers."""
    first, second = _amount(low), _amount(high)
    if currency and not currency.isalpha():
        first, second = currency + first, currency + second
    unit = f" {currency}" if currency.isalpha() else ""
    return f"about {first}{unit}" if first == second else f"about {first} to {second}{unit}"


def _amount(price: float) -> str:
    return f"{price:.2f}" if price < 5 else f"{price:,.0f}"


def sentence(text: str) -> str:
    """Capital first, full stop last."""
    return text[:1].upper() + text[1:] + "."


def words(text: str) -> list[str]:
    """Words as written, apostrophes inside kept ("women's"), underscores split."""
    return _WORD.findall(text.replace("_", " "))


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """Casefolded without possessive and plural ending, so that "dress", "Dresses" and "dress's" are one; for comparing,
    not for showing."""
    word = word.casefold().replace("’", "'").removesuffix("'s").removesuffix("'")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def pick(options: Sequence[str], *data: object) -> str:
    """One of several phrasings, chosen by what is said: the same data always reads the same."""
    return options[zlib.crc32(repr(data).encode()) % len(options)]
