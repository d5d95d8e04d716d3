"""One address for all tasks: who may ask, how often, and which deployment answers."""
