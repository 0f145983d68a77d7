"""Settings objects from presets and `--set NAME=VALUE`, and the help that lists them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import ValidationError


class SettingsHelp(click.Command):
    """A command whose help ends with the settings that `--set` takes."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, settings, ranges in _settings_classes(self.name or ""):
            if rows := _settings_rows(settings, ranges):
                with formatter.section(f"Settings of {title} (--set NAME=VALUE)"):
                    formatter.write_dl(rows)


def read_settings(
    settings: Callable[..., Any],
    overrides: tuple[str, ...],
    base: dict[str, Any] | None = None,
    prefix: str = "",
) -> Any:
    """A settings object from a preset and `--set name=value` pairs, checked before data is read.

    Args:
        prefix: what stood before each name, for the messages.
    """
    from dataclasses import fields

    from pydantic import ValidationError

    known = {field.name: None for field in fields(settings)}  # type: ignore[arg-type]
    values = dict(base or {})
    for pair in overrides:
        name, separator, value = pair.partition("=")
        if not separator:
            raise click.UsageError(
                f"--set {prefix}{pair}: no value; write --set {prefix}NAME=VALUE"
            )
        choose(name, known, "--set", prefix)
        values[name] = value
    try:
        return settings(**values)
    except ValidationError as error:
        raise click.UsageError(_validation_line(error, prefix)) from None


def choose(name: str, known: dict[str, Any], option: str, prefix: str = "") -> Any:
    import difflib

    if name not in known:
        near = difflib.get_close_matches(name, known, cutoff=0.5) or sorted(known)
        remedy = f"choose {' or '.join(near)}" if near else "there is none to choose: leave it out"
        raise click.UsageError(f"{option} {prefix}{name}: unknown; {remedy}")
    return known[name]


def _validation_line(error: "ValidationError", prefix: str) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "settings"
    said, where = first["msg"].lower(), "pipeline train --help" if prefix else "--help"
    return f"--set {prefix}{name}={first['input']}: {said}; see {where} for what it takes"


def _settings_classes(command: str) -> list[tuple[str, Any, dict[str, Any]]]:
    """Title, settings and the ranges in which `tune` searches them."""
    if command == "distill":
        from sgfd.distill.methods import METHODS
        from sgfd.settings import ranges_of

        kinds = {name: method.settings for name, method in METHODS.items()}
        return [(name, settings, ranges_of(settings)) for name, settings in kinds.items()]
    from sgfd.recommenders import usable_backbones

    return [(name, kind.Settings, kind.ranges()) for name, kind in usable_backbones().items()]


def _settings_rows(settings: Any, ranges: dict[str, Any]) -> list[tuple[str, str]]:
    from pydantic import TypeAdapter

    schema = TypeAdapter(settings).json_schema()["properties"]
    rows = []
    for name, field in schema.items():
        tuned = f"; tuned from {ranges[name]}" if name in ranges else ""
        text = f"{field.get('description', '')}  [default: {field['default']}{tuned}]"
        rows.append((name, text))
    return rows
