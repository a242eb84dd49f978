"""Settings of a track: a YAML file with a value for every key, and what replaces some of them.

default.yaml beside the track's code is also the list of what there is: a key that it lacks is a mistake, and a value is
of the type that it has there. Later ones win: default.yaml, quick.yaml with --quick, --config FILE, --set key=value.

    vae:                    config.vae.epochs             --set vae.epochs=3
      epochs: 30
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from HW3.plumbing.errors import UsageError

Settings = dict[str, Any]  # name -> value, or name -> Settings


def load_config(default: Path, *files: Path, changes: Sequence[str] = ()) -> SimpleNamespace:
    """The settings of `default`, changed by the files and then by `changes`, each "a.b=value".

    Raises UsageError for a key that `default` lacks, which names the nearest one, and for a value of another type.
    """
    settings = _read(default)
    for path in files:
        _replace(settings, _read(path), str(path))
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise UsageError(f"--set {change}: write key=value, for example --set {next(_keys(settings))}=…")
        nested: Any = _parse(text, f"--set {change}")
        for name in reversed(key.strip().split(".")):
            nested = {name: nested}
        _replace(settings, nested, f"--set {change}")
    return _as_namespace(settings)


def as_settings(config: SimpleNamespace) -> Settings:
    """The plain values of a configuration, as a checkpoint keeps them."""
    return {name: as_settings(v) if isinstance(v, SimpleNamespace) else v for name, v in vars(config).items()}


def nearest(name: str, known: Sequence[str]) -> str:
    """What the user may have meant: " (did you mean …?)", or all that is known where nothing is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def check_choice(config: SimpleNamespace, key: str, choices: Sequence[str]) -> None:
    """Raise UsageError unless the setting of this key, written with dots, is one of the choices."""
    value = _value(config, key)
    if value not in choices:
        raise UsageError(f"{key} cannot be {value!r}: {nearest(value, choices)}")


def check_below_one(config: SimpleNamespace, *keys: str) -> None:
    """Raise UsageError unless the settings of these keys are below 1."""
    for key in keys:
        if (value := _value(config, key)) >= 1:
            raise UsageError(f"{key} must be below 1, not {value:g}")


def _value(config: SimpleNamespace, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _read(path: Path) -> Settings:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    found = _parse(text, str(path))
    if not isinstance(found, dict):
        raise UsageError(f"{path}: write a key and a value per line, as in default.yaml")
    return found


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: no YAML: {' '.join(str(error).split())}") from None


def _replace(settings: Settings, new: Settings, where: str, above: str = "") -> None:
    """Put the values of `new` in place of those in `settings`."""
    for name, value in new.items():
        key = f"{above}{name}"
        if name not in settings:
            key, known = next(_keys({name: value}, above), key), list(_keys(settings, above))
            raise UsageError(f"{where}: there is no key {key}: {nearest(key, known)}")
        old = settings[name]
        if isinstance(old, dict):
            if not isinstance(value, dict):
                raise UsageError(f"{where}: {key} has keys of its own: {', '.join(_keys(old, key + '.'))}")
            _replace(old, value, where, key + ".")
        else:
            settings[name] = _checked(value, old, f"{where}: {key}")


def _checked(value: Any, old: Any, where: str) -> Any:
    """The value, if it is of the type of the old one. Counts are 1 or more, other numbers 0 or more.

    A list is one of values like the first of the old list, as many as one likes.
    """
    if isinstance(old, list):
        if not isinstance(value, list) or not value:
            raise UsageError(f"{where} must be a list such as {old}, not {value!r}")
        return [_checked(item, old[0], f"{where}: each of the list") for item in value]
    if isinstance(old, str) and value is None:  # name=, with nothing behind it
        value = ""
    # YAML reads 1 as an integer, and 1e-3, without a point, as a text.
    if isinstance(old, float) and type(value) in (int, str):
        with contextlib.suppress(ValueError):  # what is no number is said below
            value = float(value)
    names = {bool: "true or false", int: "an integer, 1 or more", float: "a number, 0 or more", str: "a text"}
    too_low = (
        isinstance(old, (int, float))
        and not isinstance(old, bool)
        and type(value) is type(old)
        and not (value >= (1 if isinstance(old, int) else 0) and value < float("inf"))
    )
    if type(value) is not type(old) or too_low:
        raise UsageError(f"{where} must be {names[type(old)]}, not {value!r}")
    return value


def _keys(settings: Settings, above: str = "") -> Iterator[str]:
    """All keys, written with dots."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _as_namespace(settings: Settings) -> SimpleNamespace:
    values = {name: _as_namespace(value) if isinstance(value, dict) else value for name, value in settings.items()}
    return SimpleNamespace(**values)
