"""The entry point: the verbs in the order in which a newcomer meets them, and errors made readable."""

import atexit
import os
import sys
from typing import Annotated, NoReturn

import typer

from lepton_platform import __version__
from lepton_platform.cli import (
    data,
    deployments,
    doctor,
    history,
    keys,
    predict,
    rehearse,
    run,
    serve,
    status,
    trace,
    versioning,
    workspace,
)
from lepton_platform.cli.common import DONE, FAILED, USAGE, UsageError, fail

app = typer.Typer(
    name="lepton",
    help="One graph from raw records to a monitored model service, and back again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lepton {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere.")] = False,
) -> None:
    pass


app.command("init")(workspace.init)
app.command("run")(run.run)
app.command("stage")(run.stage)
app.command("status")(status.status)
app.command("up")(serve.up)
app.command("down")(serve.down)
app.command("deploy")(deployments.deploy)
app.command("rollback")(deployments.rollback)
app.command("deployments")(deployments.deployments)
app.command("predict")(predict.predict)
app.command("history")(history.history)
app.command("trace")(trace.trace)
app.command("rehearse")(rehearse.rehearse)
app.command("doctor")(doctor.doctor)
app.add_typer(keys.app, name="keys")
app.add_typer(data.app, name="data")
app.add_typer(versioning.app, name="versioning")


def main(arguments: list[str] | None = None) -> None:
    """Run the command; exit 0 done, 1 failed work, 2 wrong usage. A traceback only with ``--debug``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is not None:
        _run(words)
    ended: list[int] = [FAILED]
    atexit.register(_end_at_once, ended)  # registered first, so that it runs last
    try:
        _run(words)
    except SystemExit as leaving:
        ended[0] = leaving.code if isinstance(leaving.code, int) else DONE if leaving.code is None else FAILED
        raise


def _run(words: list[str]) -> None:
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        app(args=words, standalone_mode=True)
    except KeyboardInterrupt:
        fail("stopped from the keyboard; the next run goes on from what is finished.", 130)
    except Exception as error:
        if debug:
            raise
        _explain(error)


def _end_at_once(ended: list[int]) -> None:
    """Leave without taking the interpreter apart: it costs half a second, and DuckDB reports leaks that are none."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended[0])


def _explain(error: Exception) -> NoReturn:
    from lepton_platform.stage import StageFailed  # pydantic comes with it: paid only when something failed

    if isinstance(error, UsageError):
        fail(str(error), USAGE)
    if isinstance(error, StageFailed):
        fail(str(error), FAILED)
    from lepton_platform.full_disk import explained

    if said := explained(error):
        fail(said, FAILED)
    fail(f"{type(error).__name__}: {error}. The traceback: the same command with --debug.")
