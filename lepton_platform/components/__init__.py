"""`ModelTask`: the Dagster component that turns a task into assets, checks, jobs."""
