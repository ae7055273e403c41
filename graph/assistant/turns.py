"""What a turn of a conversation does beside wishing: asks why, wants more, takes back, points at a product shown.

A turn is read by patterns, in time linear in its length; what it points at is put into its words ("not that brand"
becomes "not Harrow & Pine"), so that what is left is a request as any other. What that asks for is understood by
tools/wish/understand.py; what is then done, by graph/assistant/talk.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Shown = Mapping[str, Any]  # a product as it was shown: the public JSON with brand, color, category and size

_SPACE = re.compile(r"\s+")
_PLACES = (
    *("first 1st", "second 2nd", "third 3rd", "fourth 4th", "fifth 5th"),
    *("sixth 6th", "seventh 7th", "eighth 8th", "ninth 9th", "tenth 10th"),
)
_PLACE_OF = {word: place for place, words in enumerate(_PLACES) for word in words.split()}
_ORDINAL = "|".join([*_PLACE_OF, "last"])
_ANY_ORDINAL = rf"{_ORDINAL}|\d{{1,3}}(?:st|nd|rd|th)"  # also of what is never shown; alone it may be a date
_NO_PLACE = 999  # of what has no product, such as number 0
_THING = r"(?:ones?|products?|items?|pairs?|options?|suggestions?)"
_NO_THING = r"(?!\s+(?:time|day|date|week|year|birthday|anniversary|hand|class|half|floor)\b)"
_POINTED = re.compile(
    rf"(?<!\w)(?:the\s+(?P<named>{_ORDINAL})\b{_NO_THING}(?:\s+{_THING}\b)?"
    rf"|(?P<bare>{_ANY_ORDINAL})\s+{_THING}\b"
    r"|(?:(?:number|option|no\.?|nr\.?)\s*|#)(?P<number>\d{1,2})\b"
    rf"|(?P<this>(?:this|that|the same)\s+{_THING}\b))",
    re.IGNORECASE,
)
_BARE = re.compile(rf"^(?:{_ORDINAL}|\d{{1,2}}|this|that|it|this one|that one|them|these|those)$", re.IGNORECASE)
_IT = re.compile(r"^(?:(?:have|got)\s+)?(?P<it>this|that|it|them|these|those)\s+(?=(?:also\s+)?in\b)", re.IGNORECASE)

_ATTRIBUTES = {
    "brand": "brand", "maker": "brand", "color": "color", "colour": "color", "shade": "color", "size": "size",
    "category": "category", "kind": "category", "type": "category",
}  # fmt: skip
_ATTRIBUTE = "|".join(_ATTRIBUTES)
_THAT_VALUE = re.compile(rf"\b(?:this|that|its|(?:the |of the )?same)\s+({_ATTRIBUTE})\b", re.IGNORECASE)
_VALUE_OF = re.compile(rf"\bthe\s+({_ATTRIBUTE})\s+of\s+", re.IGNORECASE)

_NOISE = (
    r"ok(?:ay)?|h+m+|u+h+m*|e+r+m*|well|so|now|then|great|perfect|cool|nice|lovely|wonderful|alright|all right|"
    r"actually|"
    r"oh|ah|hi|hello|hey|hallo|good (?:morning|afternoon|evening|day)|please|thanks(?: a lot| so much)?|thank you"
    r"(?: very much| so much)?|thx|cheers|there|ta|sorry|and|but|also|again"
)
_LEAD = re.compile(rf"^(?:(?:{_NOISE})\b[\s,.!?;:-]*)+", re.IGNORECASE)
_TRAIL = re.compile(
    r"[\s,.!?;:-]*\b(?:please|thanks(?: a lot| so much)?|thank you(?: very much| so much)?|then|instead|"
    r"after all|though|"
    r"rather|if possible|ok(?:ay)?)[\s.!?]*$",
    re.IGNORECASE,
)
_YES_LEAD = re.compile(r"^(?:yes|yeah|yep|no|nope|nah)\s*[,.!;:-]+\s*(?=\S)", re.IGNORECASE)
# What says a thing by another name: (pattern, how a request says it).
_REWORDED = tuple(
    (re.compile(pattern, re.IGNORECASE), said)
    for pattern, said in (
        (r"\bi(?:'ve| have)? changed my mind\b[\s,:;.-]*", " "),
        (r"\b(?:that(?:'s| is)|they(?:'re| are)|it(?:'s| is)|these are|those are|this is|all)\s+(?=too\b)", " "),
        (r"\b(?:way |much |a bit |a little |still )?too (?:expensive|dear|pricey|costly|much)\b", "cheaper"),
        (r"\b(?:out of|not in|over|above) my budget\b", "cheaper"),
        (r"\btoo cheap\b", "more expensive"),
        (r"\btoo (?:warm|hot|thick|heavy)\b", "lighter"),
        (r"\btoo (?:cold|thin|light|cool)\b", "warmer"),
        (r"\b(?:remove|lift|clear|cancel|without|drop|lose|no)\s+(?:the|my|that|any)?\s*"
         r"(price|brand|colou?r|size|material|category|department|budget)s?\s+(?:limit|filter|restriction|requirement|bound)s?\b",
         r"never mind the \1"),
        (r"\b(?:remove|lift|clear|cancel|without|lose)\s+(?:the|my|that|any)\s+"
         r"(price|brand|colou?r|size|material|category|department|budget)\b", r"never mind the \1"),
    )
)  # fmt: skip

_RESTART = re.compile(
    r"\b(?:start(?:ing)? (?:over|again|afresh|from scratch)|from scratch|(?:a )?new search|begin again|restart|reset|"
    r"forget (?:about )?(?:everything|it all|all of (?:it|that)|all that|all)|scrap (?:that|it|everything)|"
    r"clear (?:everything|all))\b[\s,.!:;-]*",
    re.IGNORECASE,
)
_UNDO = re.compile(
    r"^(?:undo(?: that)?|go back|back|take that back|forget (?:that|it)|the ones before|as before)$", re.I
)
_HELP = re.compile(
    r"^/?(?:help(?: me)?|what can (?:you|i) (?:do|say|ask)(?: here)?|how does this work|who are you|what are you|\?+)$",
    re.I,
)
_THANKS = re.compile(r"\b(?:thanks|thank you|thx|cheers|merci|danke|gracias)\b", re.IGNORECASE)
_HELLO = re.compile(r"^\W*(?:hi|hello|hey|hallo|good (?:morning|afternoon|evening|day))\b", re.IGNORECASE)
_CHAT = re.compile(
    r"^(?:how are you(?: (?:doing|today))*|how(?:'s| is) it going|nice to meet you|"
    r"you(?:'re| are) (?:great|helpful|welcome)|"
    r"(?:that(?:'s| is|) )?(?:great|perfect|nice|good|cool|lovely|helpful)(?: (?:help|work|job))?|"
    r"(?:have a |a )?(?:nice|good) (?:day|evening)|(?:lol|haha+))$",
    re.IGNORECASE,
)
_BYE = re.compile(
    r"^(?:good)?bye(?: bye)?$|^(?:see you|that(?:'s| is| will be|'ll be) (?:all|it)|i(?:'m| am) done)$", re.I
)
_WHY = re.compile(
    r"\b(?:why|how come|what makes|for what reason|how did you (?:find|choose|pick)|what(?:'s| is) the reason)\b", re.I
)
_MORE = re.compile(
    r"^(?:(?:can|could|may|would) (?:you|i) )?(?:(?:show|give|find|see|have|get)\s+)?(?:me |us )?"
    r"(?:some |a few |any |the )?"
    r"(?:more(?: (?:of (?:these|them|those|that)|options|products|ideas|results|suggestions|choices))?|"
    r"others?|other ones|"
    r"(?:any|some)thing else|what else(?: (?:is there|do you have|have you got))?|next(?: ones?| page)?|"
    r"(?:the )?rest|keep going|go on|continue|different ones|none of (?:these|them|those)|not (?:these|those))$",
    re.IGNORECASE,
)
_ABOUT = re.compile(
    r"\b(?:tell me (?:more )?about|more about|details?(?: of| on| about)?|describe|how much (?:is|are|does|do)|"
    r"what(?:'s| is| are) (?:the )?(?:price|colou?r|size|material|brand)|"
    r"what (?:colou?r|size|material|brand) (?:is|are)|"
    r"who makes|i(?:'ll| will| would|'d)? (?:like to |want to )?(?:take|buy|order)|what(?:'s| is) it made of)\b",
    re.IGNORECASE,
)
_EXTREME = re.compile(
    r"^(?:which|what)(?:\s+one)?(?:\s+of\s+(?:these|them|those))?(?:'s| is| are| would be)?\s+(?:the\s+)?"
    r"(?P<end>cheapest|least expensive|dearest|most expensive|priciest)(?:\s+\w+)?$",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"\b(?:not|don'?t (?:like|want|need)|do not (?:like|want|need)|dislike|hate|except|remove|skip|without|"
    r"anything but|"
    r"no longer|is ugly|are ugly|is awful|not for me)\b",
    re.IGNORECASE,
)
_LIKED = re.compile(
    r"\b(?:(?:something|anything|some|more|one|ones|show me|find me)\s+)*(?:like|similar to|such as|same as|alike|"
    r"in the style of)\s*$",
    re.IGNORECASE,
)
_SUGGEST = re.compile(
    r"\b(?:surprise me|(?:recommend|suggest)(?: me)?|recommendations?|suggestions?|"
    r"what (?:should|would|could) i (?:buy|get|wear|like)|"
    r"(?:something|anything|what) (?:for me|i (?:may|might|would|could) like)|"
    r"anything(?: is fine| goes| at all)?$|inspire me|for me$)",
    re.IGNORECASE,
)
_FINE = re.compile(
    r"^(?P<what>.+?)\s+(?:is|are|would be)\s+(?:fine|ok(?:ay)?|alright|allowed|possible)"
    r"(?:\s+(?:after all|again|too|now))*$",
    re.IGNORECASE,
)
_ALSO = re.compile(r"^(?:or|plus|as well as)\b|\b(?:too|as well)$", re.IGNORECASE)
_YES = re.compile(
    r"^(?:yes|yeah|yep|yup|sure|of course|ok(?:ay)?|please do|do (?:that|it|so)|go ahead|fine|why not|"
    r"sounds good|good idea|"
    r"ja|oui|si)(?:\s+(?:please|do|go ahead|that(?:'s| is) fine))?$",
    re.IGNORECASE,
)
_NO = re.compile(r"^(?:no|nope|nah|no way|not really|rather not|nein|non|leave it)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn. `does`: wish, suggest, more, why, about, refuse, extreme, restart, undo, yes, no, hello, thanks, bye,
    help, chat or nothing. `text` is what is left to be understood as a request; `place` the product pointed at, from 0
    (-1: the last; None: none). `similar`: that product's like is asked for. `also`: what is wanted comes beside what
    was wanted. `fine`: what was ruled out is allowed again. `afresh`: all before it is forgotten first."""

    does: str
    text: str = ""
    place: int | None = None
    similar: bool = False
    also: bool = False
    fine: bool = False
    afresh: bool = False


def read_turn(said: str, shown: Sequence[Shown], focus: int | None = None, asked: bool = False) -> Turn:
    """What a turn does. `shown` are the products shown last; `focus` is the one spoken of, which "this" and "that
    brand" mean (else the first); `asked`: a question of ours is open."""
    text = _SPACE.sub(" ", said.replace("’", "'").replace("´", "'")).strip(" .!?,;:-")
    if not text:
        return Turn("nothing" if "?" not in said else "help")
    if _HELP.match(text):
        return Turn("help")
    if asked and (_YES.match(text) or _NO.match(text)):
        return Turn("yes" if _YES.match(text) else "no")
    afresh = _RESTART.search(text)
    if afresh:
        rest = (text[: afresh.start()] + text[afresh.end() :]).strip(" .!?,;:-")
        following = read_turn(rest, (), None) if rest else Turn("restart")
        wishes = following.does in ("wish", "suggest")
        return Turn(following.does if wishes else "restart", following.text if wishes else "", afresh=True)
    small = _small_talk(text)
    if small:
        return Turn(small)
    text = _bare(text)
    if _MORE.match(text):
        return Turn("more")
    if _UNDO.match(text):
        return Turn("undo")
    if _HELP.match(text):
        return Turn("help")
    return _about_products(text, shown, focus)


def _small_talk(text: str) -> str:
    """The kind of a turn that asks for nothing; "" for one that does."""
    if _CHAT.match(text) or _CHAT.match(bare := _bare(text)):
        return "thanks" if _THANKS.search(text) else "chat"
    if _BYE.match(text) or _BYE.match(bare):
        return "bye"
    if not bare:
        return "thanks" if _THANKS.search(text) else "hello" if _HELLO.match(text) else "nothing"
    if _NO.match(bare):
        return "no"
    return "yes" if _YES.match(bare) else ""


def _bare(text: str) -> str:
    """Without words of courtesy around it."""
    before = None
    while before != text:
        before = text
        text = _TRAIL.sub("", _YES_LEAD.sub("", _LEAD.sub("", text))).strip(" .!?,;:-")
    return text


def _about_products(text: str, shown: Sequence[Shown], focus: int | None) -> Turn:
    extreme = _EXTREME.match(text)
    if extreme and shown:
        return Turn("extreme", extreme["end"].lower())
    for pattern, said in _REWORDED:
        text = pattern.sub(said, text)
    text = _SPACE.sub(" ", text).strip(" .!?,;:-")
    why = bool(_WHY.search(text))
    place, text, similar = _pointed(text, why, shown, focus)
    if why:
        return Turn("why", place=place)
    if place is not None and not similar and (not text or _ABOUT.search(text)):
        return Turn("about", place=place)
    if _ABOUT.search(text) and re.search(r"\b(?:it|this|that|them|these)\b|^details?$", text, re.IGNORECASE) and shown:
        return Turn("about", place=focus or 0)
    if (
        place is not None
        and not similar
        and _REFUSED.search(text)
        and not _REFUSED.sub("", text).lower().strip(" i'ts.")
    ):
        return Turn("refuse", place=place)
    fine = _FINE.match(text)
    also = bool(_ALSO.search(text))
    words = _ALSO.sub("", fine["what"] if fine else text).strip() if also or fine else text
    if not similar and place is None and _SUGGEST.search(words):
        left = re.sub(r"\b(?:do|can|could|would) you\b", "", _SUGGEST.sub("", words)).strip(" ,.")
        return Turn("suggest", left)
    return Turn("wish", words, place, similar, also, bool(fine))


def _pointed(text: str, why: bool, shown: Sequence[Shown], focus: int | None) -> tuple[int | None, str, bool]:
    """The product pointed at, the text without the pointing, and whether something like it is asked for."""
    here = focus or 0
    if shown:
        text = _THAT_VALUE.sub(lambda found: _value(shown[min(here, len(shown) - 1)], found[1]) or found[0], text)
    found = _POINTED.search(text)
    if found is None:
        if why or not shown:
            bare = re.search(rf"\b({_ANY_ORDINAL})\b", text, re.IGNORECASE) if why else None
            return (_place(bare[1], here) if bare else None), text, False
        it = _IT.match(text)
        if it:
            return here, text[it.end("it") :].strip(), False
        if _BARE.match(text):
            return _place(text, here), "", False
        return None, text, False
    told = found["named"] or found["bare"] or found["number"] or "this"
    place = _place(told, here)
    before, after = text[: found.start()], text[found.end() :]
    named = _VALUE_OF.search(before)
    if named and named.end() == len(before) and shown and -len(shown) <= place < len(shown):
        return None, f"{before[: named.start()]}{_value(shown[place], named[1])}{after}", False
    liked = _LIKED.search(before)
    if liked and not re.search(r"\b(?:i|don'?t|not|would|do)\s+$", before[: liked.start()], re.IGNORECASE):
        return place, _joined(before[: liked.start()], after), True
    return place, _joined(re.sub(r"\bthan\s*$", "", before), after), False


def _joined(before: str, after: str) -> str:
    text = _SPACE.sub(" ", f"{before} {after}").strip(" ,.;:-")
    return re.sub(r"^(?:but|and|just|only|also)\s+", "", text, flags=re.IGNORECASE)


def _place(told: str, here: int) -> int:
    word = told.lower()
    number = re.match(r"[0-9]+", word)
    if number and word not in _PLACE_OF:
        return int(number[0]) - 1 if int(number[0]) else _NO_PLACE
    return -1 if word == "last" else _PLACE_OF.get(word, here)


def _value(product: Shown, attribute: str) -> str:
    return str(product.get(_ATTRIBUTES[attribute.lower()]) or "")
