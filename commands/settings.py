"""Settings objects from presets and `--set NAME=VALUE`, and the help that lists them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import ValidationError


class SettingsHelp(click.Command):
    """A command whose help ends with the settings that `--set` takes."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        what = "method" if self.name == "distill" else "backbone"
        kinds, chosen = _settings_of(self.name), ctx.params.get(what)
        if chosen not in kinds:
            with formatter.section(f"Names for --{what}"):
                formatter.write_text(", ".join(kinds))
        for name, rows in kinds.items():
            if rows and (chosen == name or chosen not in kinds):
                with formatter.section(f"Settings of {name} (--set NAME=VALUE)"):
                    formatter.write_dl(list(rows.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name.lstrip("-").replace("-", "_")
            if any(name in rows for rows in _settings_of(self.name).values()):
                raise click.UsageError(
                    f"no such option {error.option_name}: it is a setting; write --set {name}=VALUE"
                ) from None
            raise


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


def names_in(pairs: tuple[str, ...]) -> tuple[str, ...]:
    """The names of `name=value` pairs."""
    return tuple(pair.partition("=")[0] for pair in pairs)


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


def _settings_of(command: str | None) -> dict[str, dict[str, str]]:
    """What the help says of each setting, by the name of the method or backbone."""
    if command == "distill":
        from sgfd.distill.methods import METHODS
        from sgfd.settings import ranges_of

        kinds = {name: method.settings for name, method in METHODS.items()}
        return {name: _texts(settings, ranges_of(settings)) for name, settings in kinds.items()}
    from sgfd.recommenders import BackboneSettings, usable_backbones

    of_training = _texts(BackboneSettings, {})  # taken, without effect, where nothing is trained
    return {
        name: {
            setting: text
            for setting, text in _texts(kind.Settings, kind.ranges()).items()
            if kind.trained or setting not in of_training
        }
        for name, kind in usable_backbones().items()
    }


def _texts(settings: Any, ranges: dict[str, Any]) -> dict[str, str]:
    from pydantic import TypeAdapter

    described = {  # a class that gives another default need not say anew what it is
        name: field.description
        for kind in reversed(settings.__mro__)
        for name, field in vars(kind).get("__pydantic_fields__", {}).items()
        if field.description
    }
    texts = {}
    for name, field in TypeAdapter(settings).json_schema()["properties"].items():
        tuned = f"; tuned from {ranges[name]}" if name in ranges else ""
        text = f"{described.get(name, '')}  [default: {field['default']}{tuned}]"
        texts[name] = text.strip()
    return texts
