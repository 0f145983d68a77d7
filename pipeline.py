"""The command line: what it is made of, and how it ends. The commands are in `commands/`."""

import errno
import io
import logging
import os
import signal
import sys
from typing import TextIO

import click

from sgfd.commands.compare import compare
from sgfd.commands.data import data
from sgfd.commands.distill import distill
from sgfd.commands.features import features
from sgfd.commands.runs import evaluate, recommend, similar, train
from sgfd.commands.tune import tune
from sgfd.memory import is_out_of_memory


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sgfd", prog_name="pipeline")
def cli() -> None:
    """Distil an item catalogue once; train any recommender on the frozen features."""


GO_ON = ("distill", "train", "tune", "compare")

for command in (data, distill, features, train, evaluate, recommend, similar, tune, compare):
    cli.add_command(command)


class _StandardError(logging.StreamHandler[TextIO]):
    """Standard error as it is at that moment: where bars are drawn, they have put in its place
    what writes above them."""

    def emit(self, record: logging.LogRecord) -> None:
        self.setStream(sys.stderr)
        super().emit(record)


def main() -> None:
    """Entry point: one line on standard error and exit code 2 for whatever a user can mend."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack the letters of an id
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(message)s", handlers=[_StandardError()])
    logging.getLogger("sgfd").setLevel(logging.INFO)
    context = None
    try:
        _refuse_undecodable(sys.argv[1:])
        # As click's own main, which would print an empty line before an interrupt reaches us.
        context = cli.make_context("pipeline", sys.argv[1:])
        with context:
            code = cli.invoke(context)
    except click.exceptions.Exit as finished:
        code = finished.exit_code
    except click.ClickException as error:
        text = error.format_message()
        if text.startswith("Usage:"):  # a group without a command: its help
            click.echo(text, err=True)
            code = 2
        else:
            code = _fail(text)
    except (KeyboardInterrupt, click.Abort):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would tear what ends by itself
        goes_on = context is not None and context.invoked_subcommand in GO_ON
        how = "goes on from the last checkpoint" if goes_on else "may be given again"
        click.echo(f"interrupted; the same command {how}", err=True)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE  # as of a program that a closed pipe ends: not all was told
    except Exception as error:
        if "PIPELINE_DEBUG" in os.environ:
            raise
        if is_out_of_memory(error):
            sys.exit(
                _fail("memory: is not enough; lower the widths, the batch or the number asked")
            )
        code = _fail(_one_line(error))
        if not hasattr(error, "remedy") and not isinstance(error, OSError):
            click.echo("this is a bug: PIPELINE_DEBUG=1 shows where", err=True)
            code = 1
    sys.exit(code)


def _refuse_undecodable(arguments: list[str]) -> None:
    """Refuse bytes that are no text before any work: Arrow and JSON could not write them later."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"{argument!r}: is no UTF-8; give a name that is") from None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and (error.filename or error.errno == errno.ENOSPC):
        where = error.filename or "the output"
        return (
            f"{where}: can't be read or written ({error.strerror}); check the rights and the room"
        )
    return text if hasattr(error, "remedy") else f"{type(error).__name__}: {text}"


def _fail(message: str) -> int:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return 2


if __name__ == "__main__":
    main()
