"""`lepton data`: query, update and delete rows of a stage's table."""

import typer

app = typer.Typer(help="Query, update and delete rows.", no_args_is_help=True)
