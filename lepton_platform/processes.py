"""Processes by their pid and their birth: is the one that was written down still there?"""

_SAME_S = 2.0  # the clock may be set while a process lives; pids are not used again so soon


def born(pid: int) -> float | None:
    """When a process started, seconds since 1970; ``None`` where there is none. With it a pid names one process."""
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def alive(pid: int, since: float | None = None) -> bool:
    """Is this process there and not a zombie? ``since``: it must be the one that was ``born`` then.

    A pid that was written down may belong to another program after a restart of the machine.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        same = since is None or abs(process.create_time() - since) < _SAME_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
