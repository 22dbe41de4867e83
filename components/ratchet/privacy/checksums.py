"""Checks of number-like candidates by checksum or range; each returns the replacement, or None if it fails. Pure."""

import ipaddress
import re

# Issuers' leading digits and number lengths (ISO/IEC 7812; the networks' published ranges).
CARDS = re.compile(
    r"(?:4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17})"
)
# Length of an IBAN by country (SWIFT's IBAN registry, release 99).
IBAN_CHARS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20,
    "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27,
    "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip


def card(candidate: str) -> str | None:
    """Replace a card number, by issuer, length and Luhn's check, among consecutive groups of digits, most first."""
    groups = [match.span() for match in re.finditer(r"\d+", candidate)]
    for length in range(len(groups), 0, -1):
        for first in range(len(groups) - length + 1):
            start, end = groups[first][0], groups[first + length - 1][1]
            digits = re.sub(r"\D", "", candidate[start:end])
            if CARDS.fullmatch(digits) and passes_luhn(digits):
                return f"{candidate[:start]}[CARD]{candidate[end:]}"
    return None


def passes_luhn(digits: str) -> bool:
    """Apply Luhn's check (ISO/IEC 7812-1, annex B): from the right, every second digit is doubled."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(doubled)) % 10 == 0


def iban(candidate: str) -> str | None:
    """Replace an IBAN of its country's length with valid check digits; the text after it stays."""
    wanted = IBAN_CHARS.get(candidate[:2])
    places = [place for place, character in enumerate(candidate) if character != " "]
    if wanted is None or len(places) < wanted:
        return None
    end = places[wanted - 1] + 1
    compact = candidate[:end].replace(" ", "")
    # ISO 7064, MOD 97-10: the first four characters go last, letters count from 10, and the remainder is 1.
    number = int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4]))
    is_whole = end == len(candidate) or candidate[end] == " "
    return f"[IBAN]{candidate[end:]}" if number % 97 == 1 and is_whole else None


def ip_address(candidate: str) -> str | None:
    """Replace an IPv4 or IPv6 address, unless it is loopback, unspecified or multicast, which identify nobody."""
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return None
    is_anonymous = address.is_loopback or address.is_unspecified or address.is_multicast
    return None if is_anonymous else "[IP]"


def phone(candidate: str) -> str | None:
    """Replace eight to fifteen digits, the lengths that E.164 allows."""
    return "[PHONE]" if 8 <= sum(map(str.isdigit, candidate)) <= 15 else None
