"""`lepton keys`: who may use the services, for what, and how often."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_platform.cli.common import Json, UsageError, Workspace, console, open_workspace, print_json, say

if TYPE_CHECKING:
    from datetime import timedelta

    from lepton_platform.gateway.keys import Key

app = typer.Typer(help="Make, list and revoke the API keys that the services ask for.", no_args_is_help=True)
_HOURS = {"h": 1, "d": 24, "w": 168}


def _lifetime(text: str) -> "timedelta":
    from datetime import timedelta

    match = re.fullmatch(r"([0-9]{1,6})([hdw])", text)
    if match is None:
        raise UsageError(f"--expires {text}: a number and h, d or w for hours, days or weeks, such as 90d.")
    return timedelta(hours=int(match[1]) * _HOURS[match[2]])


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is called, such as the program that will use it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="predict, feedback, trace or admin; may be given again. Else predict."),
    ] = None,
    rate: Annotated[int | None, typer.Option(min=1, help="Requests a minute; else as many as come.")] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="Requests at once; else 10 s' worth of the rate.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="How long it holds, such as 12h, 90d or 4w; else for ever.")
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Make a key and print it, this once: it is kept nowhere."""
    settings = open_workspace(workspace)
    from lepton_platform.gateway.keys import Keys

    lifetime = None if expires is None else _lifetime(expires)
    chosen = scope or ["predict"]
    try:
        key, secret = Keys(settings).create(name, chosen, rate_per_minute=rate, burst=burst, lifetime=lifetime)
    except ValueError as error:
        raise UsageError(str(error)) from None
    say(secret)
    typer.echo(f"The key '{key.name}' ({key.id}) may: {_allowed(key)}. It is not shown again.", err=True)


def _allowed(key: "Key") -> str:
    rate = "without limit"
    if key.rate_per_minute is not None:
        rate = f"{key.rate_per_minute:,} a minute, {key.burst:,} at once"
    until = "until it is revoked" if key.expires_at is None else f"until {_minute(key.expires_at)} UTC"
    return f"{', '.join(key.scopes)}; {rate}; {until}"


def _minute(at: str | None) -> str:
    return "" if at is None else at[:16].replace("T", " ")


@app.command("list")
def list_(as_json: Json = False, workspace: Workspace = None) -> None:
    """List the keys by what is known of them, the latest first; times are UTC."""
    settings = open_workspace(workspace)
    from lepton_platform.gateway.keys import Keys

    keys = Keys(settings).all()
    if as_json:
        print_json([key.as_dict() for key in keys])
        return
    if not keys:
        say("There are no keys. `lepton keys create NAME` makes one.")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(padding=(0, 0, 0, 1))
    for name in ("id", "name", "key", "scopes", "a minute", "holds", "last used"):
        table.add_column(name, overflow="fold", min_width=len("2026-01-01") if name in {"holds", "last used"} else None)
    for key in keys:
        rate = "" if key.rate_per_minute is None else f"{key.rate_per_minute:,}"
        cells = (escape(key.name), f"{key.prefix}…", ", ".join(key.scopes), rate, _holds(key))
        table.add_row(str(key.id), *cells, _minute(key.last_used_at))
    console().print(table)


def _holds(key: "Key") -> str:
    if key.state == "revoked":
        return f"revoked {_minute(key.revoked_at)}"
    until = "for ever" if key.expires_at is None else f"until {_minute(key.expires_at)}"
    return until if key.state == "active" else f"expired {_minute(key.expires_at)}"


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Its name or id, its beginning as listed, or the key itself.")],
    workspace: Workspace = None,
) -> None:
    """Refuse a key from now on; a running gateway does so within 2 s."""
    settings = open_workspace(workspace)
    from lepton_platform.gateway.keys import Keys

    revoked, held = Keys(settings).revoke(key)
    when = "is revoked" if held else f"was revoked already, at {_minute(revoked.revoked_at)} UTC"
    say(f"The key '{revoked.name}' ({revoked.id}) {when}.")
