"""Prices as commerce protocols give them: an integer of minor units and an ISO 4217 code.

A shop's own currency may be a sign ("€"); `currency_code` says which code is meant, or "" where that is not certain.
Knows neither products nor protocols.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

MOST_MINOR = 9_007_199_254_740_991  # the largest integer that every JSON reader keeps exactly
_CODES = frozenset(
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF "
    "CLF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD "
    "HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD "
    "MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN "
    "PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY "
    "TTD TWD TZS UAH UGX USD UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG".split()
)
# Those that are not a hundredth.
_DECIMALS = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}
# A sign that several countries use stands for the currency that most trade is done in; "kr" stands for none.
_SIGNS = {
    "€": "EUR", "$": "USD", "US$": "USD", "£": "GBP", "¥": "JPY", "￥": "JPY", "円": "JPY", "元": "CNY", "CN¥": "CNY",
    "RMB": "CNY", "₹": "INR", "RS": "INR", "RS.": "INR", "₩": "KRW", "₽": "RUB", "₺": "TRY", "₴": "UAH", "₫": "VND",
    "₪": "ILS", "฿": "THB", "₱": "PHP", "₦": "NGN", "₡": "CRC", "₲": "PYG", "₸": "KZT", "₾": "GEL", "₼": "AZN",
    "R$": "BRL", "A$": "AUD", "AU$": "AUD", "C$": "CAD", "CA$": "CAD", "HK$": "HKD", "NZ$": "NZD", "S$": "SGD",
    "NT$": "TWD", "MX$": "MXN", "ZŁ": "PLN", "KČ": "CZK", "FT": "HUF", "LEI": "RON", "ЛВ": "BGN", "FR.": "CHF",
    "SFR.": "CHF", "FR": "CHF", "EURO": "EUR", "EUROS": "EUR", "DOLLAR": "USD", "DOLLARS": "USD",
}  # fmt: skip


def currency_code(told: str) -> str:
    """The ISO 4217 code that a shop's word or sign for its currency stands for; "" where it says none."""
    word = told.strip().upper()[:12]
    return word if word in _CODES else _SIGNS.get(word, "")


def decimals(code: str) -> int:
    """How many decimals the minor unit of a currency has: 2 for EUR, 0 for JPY, 3 for KWD."""
    return _DECIMALS.get(code, 2)


def minor_units(amount: float, code: str) -> int | None:
    """An amount in the minor unit, rounded half up as it is written: 19.99 EUR is 1999. None for what is no price: less
    than nothing, not finite, or too large to be kept exactly."""
    written = Decimal(str(amount))
    if not written.is_finite() or written < 0 or written > MOST_MINOR:
        return None
    minor = int(written.scaleb(decimals(code)).quantize(Decimal(1), ROUND_HALF_UP))
    return minor if minor <= MOST_MINOR else None


def major_units(minor: int, code: str) -> float:
    """The opposite, for a bound that a caller gives."""
    return float(Decimal(minor).scaleb(-decimals(code)))
