"""The `lepton` command. A module a group of verbs; heavy imports are paid inside the verb that needs them."""

from lepton_platform.cli.main import app, main

__all__ = ["app", "main"]
