"""`lepton versioning`: dvc.yaml from the table of stages, and Dagster from dvc.lock."""

import typer

from lepton_platform.cli.common import FAILED, Workspace, open_workspace, say, warn_if_stale

app = typer.Typer(help="dvc.yaml from the stage table; Dagster brought level with dvc.lock.", no_args_is_help=True)


@app.command()
def render(workspace: Workspace = None) -> None:
    """Write dvc.yaml (and code.yaml) from the table of stages."""
    from lepton_platform.pipeline import dvcfile

    changed = dvcfile.write(open_workspace(workspace).workspace)
    say(f"Wrote {', '.join(changed)}." if changed else "dvc.yaml is current.")


@app.command()
def check(workspace: Workspace = None) -> None:
    """Is dvc.yaml what the table of stages renders? Exit code 1 if not."""
    from lepton_platform.pipeline import dvcfile

    stale = dvcfile.stale_files(open_workspace(workspace).workspace)
    say(f"Out of date: {', '.join(stale)}. `lepton versioning render` writes it." if stale else "dvc.yaml is current.")
    if stale:
        raise typer.Exit(FAILED)


@app.command()
def sync(workspace: Workspace = None) -> None:
    """Tell Dagster what `dvc repro` made."""
    settings = open_workspace(workspace)
    from lepton_platform.components.launch import sync_tasks

    warn_if_stale(settings)
    told = sync_tasks(settings)
    say(f"Told Dagster of: {', '.join(told)}." if told else "Dagster knows every version in dvc.lock.")
