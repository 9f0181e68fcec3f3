"""Owns what one setting is: how it is declared, named, read from TOML or from text, and shown.

Knows nothing of which settings there are (`settings`) or where values come from (`config`). A setting is declared by
the annotation of a dataclass field, so that its type, its default, its limits and its documentation stand together::

    rows: Annotated[int, About("Deferrals that may wait.", unit="rows", least=1)] = 1000
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from proxy.core.addresses import IPNetwork
from proxy.core.masking import MASK, masked
from proxy.core.presets import LONGEST
from proxy.core.tokens import check_token

ENVIRONMENT_PREFIX: Final = "HOLDFAST_"
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?", re.ASCII)
_VAULT_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}=?", re.ASCII)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")
_WORDS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


@dataclass(frozen=True, slots=True)
class About:
    """What a declaration says beyond type and default.

    ``least`` and ``most`` are the limits of a number, included. ``absent`` says what it means that an optional setting
    is not set. ``check`` returns what is wrong with a text, as the end of "must be ...", or None. A ``secret`` is never
    shown.
    """

    doc: str
    unit: str = field(default="", kw_only=True)
    least: float = field(default=0, kw_only=True)
    most: float = field(default=math.inf, kw_only=True)
    absent: str = field(default="", kw_only=True)
    check: Callable[[str], str | None] | None = field(default=None, kw_only=True)
    secret: bool = field(default=False, kw_only=True)


def seconds(doc: str, *, least: float = 0, most: float = LONGEST, absent: str = "") -> About:
    """Declare a duration, or an interval."""
    return About(doc, unit="seconds", least=least, most=most, absent=absent)


class RefusedError(ValueError):
    """A value that a setting does not take. The text ends the sentence "must be ..." and never holds a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: its dotted TOML key, what a value is, and what holds where nobody says anything.

    The value of one with `many` is a tuple of `base`.
    """

    key: str
    about: About
    base: Any
    optional: bool
    default: object
    many: bool = False

    @property
    def variable(self) -> str:
        """The environment variable: the key in capitals, dots as underscores, after ``HOLDFAST_``."""
        return ENVIRONMENT_PREFIX + self.key.replace(".", "_").upper()

    @property
    def option(self) -> str:
        """The command-line option of that name, where a command has one."""
        return "--" + self.key.replace(".", "-").replace("_", "-")

    @property
    def accepts(self) -> str:
        """What a value must be, in words."""
        if self.base is bool:
            return "true or false"
        if self.base is int or self.base is float:
            least, most = f"{self.about.least:.15g}", f"{self.about.most:.15g}"
            span = f"at least {least}" if self.about.most == math.inf else f"between {least} and {most}"
            unit = f" of {self.about.unit}" if self.about.unit else ""
            return f"{'a whole number' if self.base is int else 'a number'}{unit}, {span}"
        if self.base is Path:
            return "a path"
        if self.many:
            each = self.about.check("") if self.about.check else "of any form"
            is_network = self.base is IPNetwork
            return "networks in CIDR notation, such as 10.1.0.0/16" if is_network else f"a list of texts, each {each}"
        if isinstance(self.base, type) and issubclass(self.base, StrEnum):
            return " or ".join(f"'{member}'" for member in self.base)
        return "a text"

    def from_toml(self, value: object) -> object:
        """Return the typed value of what a TOML parser gave; RefusedError says what is accepted instead."""
        if isinstance(value, bool):
            return value if self.base is bool else self._refuse(value)
        if isinstance(value, int | float):
            return self._number(value)
        if self.many:
            return tuple(map(self._item, value)) if isinstance(value, list | tuple) else self._refuse(value)
        if isinstance(value, str | Path) and self.base not in {bool, int, float}:
            return self._text(str(value))
        return self._refuse(value)

    def from_text(self, text: str) -> object:
        """Return the typed value of an environment variable's or option's text; RefusedError as above.

        An empty text unsets an optional setting and empties a list; elements of a list are separated by commas.
        """
        text = text.strip()
        if self.optional and not text:
            return None
        if self.base is bool:
            return _WORDS[text.lower()] if text.lower() in _WORDS else self._refuse(text)
        if self.base is int:
            return self._number(int(text)) if _WHOLE.fullmatch(text) else self._refuse(text)
        if self.base is float:
            return self._number(float(text)) if _NUMBER.fullmatch(text) else self._refuse(text)
        if self.many:
            return tuple(self._item(item.strip()) for item in text.split(",") if item.strip())
        return self._text(text)

    def shown(self, value: object) -> object:
        """Return a JSON-able form of a value, ``***`` for a secret that is set."""
        if value is None or isinstance(value, bool | int | float):
            return value
        return MASK if self.about.secret else masked("", value)

    def _number(self, value: float) -> object:
        if isinstance(self.base, type) and issubclass(self.base, StrEnum):
            return self._text(str(value))  # `deferred_status = 202`
        if self.base is float:
            if not self.about.least <= value <= self.about.most or math.isinf(value):  # false for nan, too
                self._refuse(value)
            return float(value)
        if self.base is not int or not isinstance(value, int) or not self.about.least <= value <= self.about.most:
            self._refuse(value)
        return value

    def _text(self, text: str) -> object:
        if not text or _UNPRINTABLE.search(text):
            self._refuse(text)
        problem = self.about.check(text) if self.about.check else None
        if problem is not None:
            raise RefusedError(problem)
        if isinstance(self.base, type) and issubclass(self.base, StrEnum) and text not in set(self.base):
            self._refuse(text)
        return self.base(text)

    def _item(self, item: object) -> object:
        if not isinstance(item, str):
            return self._refuse(item)
        return self._network(item) if self.base is IPNetwork else self._text(item)

    def _network(self, item: str) -> IPNetwork:
        try:
            return ip_network(item)
        except ValueError:
            pass
        try:
            meant = f" (did you mean {ip_network(item, strict=False)}?)"
        except ValueError:
            meant = ""
        raise RefusedError(f"{self.accepts}, not {_quoted(item)}{meant}")

    def _refuse(self, value: object) -> Any:
        raise RefusedError(self.accepts if self.about.secret else f"{self.accepts}, not {_quoted(value)}")


def declared(owner: Any, prefix: str = "") -> Iterator[Setting]:
    """Yield the settings that a dataclass and the dataclasses among its fields declare, in their order."""
    hints = get_type_hints(owner, include_extras=True)
    for each in fields(owner):
        hint = hints[each.name]
        if get_origin(hint) is Annotated:
            base, about = get_args(hint)
            choices = get_args(base) if isinstance(base, UnionType) else (base,)
            kinds = [choice for choice in choices if choice is not NoneType]
            yield Setting(
                key=prefix + each.name,
                about=about,
                base=get_args(kinds[0])[0] if get_origin(kinds[0]) is tuple else kinds[0],
                many=get_origin(kinds[0]) is tuple,
                optional=NoneType in choices,
                default=None if each.default is MISSING else each.default,
            )
        elif is_dataclass(hint):
            yield from declared(hint, f"{prefix}{each.name}.")


def is_base_url(text: str) -> str | None:
    """Check that a text is a URL to which paths can be added."""
    wanted = "an absolute http or https URL without user, query or fragment"
    if re.search(r"[^!-~]", text):
        return wanted
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return wanted
    is_fine = parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc
    return None if is_fine and "?" not in text and "#" not in text else wanted


def is_file_path(text: str) -> str | None:
    """Check that a text can be a file's path. A URL would quietly become a file of a strange name."""
    if "://" in text:
        return "the path of a file, not a URL"
    return "the path of a file, not of a directory" if Path(text).name in {"", ".."} else None


def is_vault_key(text: str) -> str | None:
    """Check that a text is a 256-bit key in base64url (RFC 4648 section 5), padded or not."""
    return None if _VAULT_KEY.fullmatch(text) else "32 bytes in base64url (43 characters)"


def is_token(text: str) -> str | None:
    """Check that a text has the form of a Holdfast token."""
    return None if check_token(text) is None else "'hf_' and then 1 to 509 letters, digits or any of . _ ~ + / -"


def _quoted(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    limit = 60
    text = repr(masked("", value))
    return text if len(text) <= limit else f"{text[:limit]}..."
