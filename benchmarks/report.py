"""Shared by the benchmarks: the machine in words, others' load, a section of docs/benchmarks.md."""

import os
import re
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/benchmarks.md"
FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")  # what int8 arithmetic can use, in rising order


def machine() -> str:
    """The processor and what of it matters for int8."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.M)
    flags = re.search(r"^flags\s*: (.*)$", text, re.M)
    has = set(flags[1].split()) if flags else set()
    known = " ".join(flag for flag in FLAGS if flag in has) or "none of " + " ".join(FLAGS)
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().total / 2**30
    return f"{name[1] if name else 'processor unknown'}, {cores} cores, {memory:.0f} GiB; instruction sets: {known}."


class Others:
    """How busy other programs kept the cores between the start and ``words``."""

    def __init__(self) -> None:
        self.at, self.machine, self.ours = time.monotonic(), self._machine(), self._ours([])

    @staticmethod
    def _machine() -> float:
        found = psutil.cpu_times()
        return sum(found) - found.idle - getattr(found, "iowait", 0.0) - getattr(found, "guest", 0.0)

    @staticmethod
    def _ours(trees: list[int]) -> float:
        """CPU seconds of this process, of children that ended, and of process trees that live."""
        times = os.times()
        seconds = times.user + times.system + times.children_user + times.children_system
        return seconds + sum(cpu_seconds(pid) for pid in trees)

    def share(self, trees: list[int]) -> float:
        """Of the machine's CPU time, what others used; ``trees``: pids of ours that live and began since."""
        whole = (time.monotonic() - self.at) * (os.cpu_count() or 1)
        return max(0.0, self._machine() - self.machine - (self._ours(trees) - self.ours)) / whole

    def words(self, trees: list[int]) -> str:
        share = self.share(trees)
        said = f"Other programs used {share:.0%} of the machine's CPU time meanwhile"
        return f"{said}: the figures are those of a shared machine." if share > 0.05 else f"{said}."


def family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """CPU time of a process tree, of what ended in it too."""
    used = [process.cpu_times() for process in family(pid)]
    return sum(t.user + t.system + t.children_user + t.children_system for t in used)


def resident_mib(pid: int) -> tuple[float, int]:
    """Resident memory of a process tree, and how many processes it has."""
    found = family(pid)
    return sum(process.memory_info().rss for process in found) / 2**20, len(found)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown; all but the first column to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def write_section(name: str, text: str) -> None:
    """Replace what stands between the section's markers in docs/benchmarks.md; ``program-part`` is a program's part."""
    begin, end = f"<!-- {name}: begin, written by benchmarks/{name.split('-')[0]}.py -->", f"<!-- {name}: end -->"
    page = PAGE.read_text("utf-8")
    if begin not in page or end not in page:
        raise SystemExit(f"{PAGE} has no place for this section: {begin} … {end}")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", "utf-8")
