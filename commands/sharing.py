"""`pipeline features publish | push | pull | sign`: feature sets between teams."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgfd.commands.inputs import open_features, plain_name
from sgfd.commands.options import artifacts_root_option, json_option, signature_option
from sgfd.commands.output import present

if TYPE_CHECKING:
    from sgfd.featureset import Shared


@click.command(short_help="Sign a feature set by an SSH key.")
@click.argument("features")
@click.option(
    "--key",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Your private SSH key, such as ~/.ssh/id_ed25519.",
)
@artifacts_root_option
@json_option
def sign(features: str, key: Path, artifacts_root: Path, as_json: bool) -> None:
    """Sign a feature set's manifest, and with it every byte, by an SSH key. Needs ssh-keygen."""
    from sgfd import featureset

    opened = open_features(features, artifacts_root)
    file = featureset.sign(opened, key.expanduser())
    result = {"artifact": str(opened.path), "signature": str(file)}
    present(result, as_json, lambda: click.echo(f"signature     {file}"))


@click.command(short_help="Keep a feature set as a version that never changes.")
@click.argument("features")
@click.option("--name", help="Name of the versions [default: the set's].")
@artifacts_root_option
@json_option
def publish(features: str, name: str | None, artifacts_root: Path, as_json: bool) -> None:
    """Keep a feature set as a version that never changes, NAME@VERSION, and as NAME@latest."""
    from sgfd import featureset
    from sgfd.jobs import progress, room_in

    opened = open_features(features, artifacts_root)
    name = plain_name(opened.folder_name if name is None else name, "--name")
    with room_in(artifacts_root):
        done = featureset.push(opened, str(artifacts_root / name), progress=progress)
    present(done.to_json(), as_json, lambda: _print_shared(done))


@click.command(short_help="Publish a feature set at URL.")
@click.argument("features")
@click.argument("url")
@click.option(
    "--plain",
    is_flag=True,
    help="Put the files at the URL itself, as data hubs want them, without a version.",
)
@click.option(
    "--replace-signature",
    is_flag=True,
    help="Put the set's signature in the place of another one that it has there.",
)
@artifacts_root_option
@json_option
def push(
    features: str,
    url: str,
    plain: bool,
    replace_signature: bool,
    artifacts_root: Path,
    as_json: bool,
) -> None:
    """Publish a feature set at URL, such as s3://bucket/sets/office or a folder: PLACE/NAME.

    PLACE/ stands for the set's own name there. It becomes PLACE/NAME@VERSION, which never changes,
    and PLACE/NAME@latest. Object stores need sgfd[share].
    """
    from sgfd import featureset
    from sgfd.jobs import progress, room_in

    opened = open_features(features, artifacts_root)
    with room_in(Path(url)):
        done = featureset.push(
            opened, url, plain=plain, replace_signature=replace_signature, progress=progress
        )
    present(done.to_json(), as_json, lambda: _print_shared(done))


@click.command(short_help="Fetch a feature set from URL.")
@click.argument("url")
@click.option("--name", help="Name to give it here [default: the URL's].")
@signature_option
@artifacts_root_option
@json_option
def pull(url: str, name: str | None, key: Path | None, artifacts_root: Path, as_json: bool) -> None:
    """Fetch a feature set from URL: PLACE/NAME for its latest version, or PLACE/NAME@VERSION.

    A folder, s3://, https:// or whatever fsspec knows. Every byte is checked; it lands whole or
    not at all; a pull that was interrupted goes on. All but folders need sgfd[share].
    """
    from sgfd import featureset
    from sgfd.jobs import progress, room_in

    with room_in(artifacts_root):
        done = featureset.pull(
            url,
            artifacts_root,
            name=None if name is None else plain_name(name, "--name"),
            key=key,
            progress=progress,
        )
    present(done.to_json(), as_json, lambda: _print_shared(done))


def _print_shared(done: "Shared") -> None:
    click.echo(f"version       {done.name}@{done.version}{'' if done.new else '  (was there)'}")
    click.echo(f"feature set   {done.where}")
    if done.latest:
        click.echo(f"latest        {done.name}@latest is this version now")
