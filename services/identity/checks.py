"""What names, addresses and slugs look like."""

from __future__ import annotations

import re
import unicodedata

from core.errors import BadInput

_EMAIL = re.compile(
    r"[^\s@<>\"(),:;\\\[\]\x00-\x1f]+@[^\s@<>\"(),:;\\\[\]\x00-\x1f.]+(\.[^\s@<>\"(),:;\\\[\]\x00-\x1f.]+)*"
)
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def check_name(name: str, *, field: str = "name") -> str:
    """A name without the spaces around it: 1 to 200 characters on one line."""
    name = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(name) <= 200:
        raise BadInput("A name has 1 to 200 characters.", field=field)
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        raise BadInput("A name is one line without control characters.", field=field)
    return name


def check_email(email: str, *, field: str = "email") -> str:
    """An email address as it is stored: lower case. Only its shape is checked; whether it works, mail would tell."""
    email = normal_email(email)
    if len(email) > 254 or not _EMAIL.fullmatch(email):
        raise BadInput("This is not an email address. It looks like name@example.com.", field=field)
    return email


def normal_email(email: str) -> str:
    """The one spelling of an email address that accounts are looked up by."""
    if not email.strip().isprintable():
        return ""  # nobody's, and nothing that the database could not hold
    return unicodedata.normalize("NFC", email).strip().lower()


def check_slug(slug: str, *, field: str = "slug") -> str:
    """A short name for URLs: lower-case letters, digits and single hyphens, up to 63."""
    if len(slug) > 63 or not _SLUG.fullmatch(slug):
        raise BadInput(
            "A slug has up to 63 lower-case letters, digits and single hyphens, like data-science.", field=field
        )
    return slug


def slug_of(name: str) -> str:
    """A slug made from a name; BadInput where nothing of it is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:63].rstrip("-")
    if not slug:
        raise BadInput("No slug can be made of this name: give one, like data-science.", field="slug")
    return slug
