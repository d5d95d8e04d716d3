"""What a child process says arrives whole, however long it is; it does not outlive its parent."""

import json
import subprocess
import sys

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.components.stage_asset import _Reader
from lepton_platform.pipeline.child import in_parts
from lepton_platform.pipeline.run import quiet

texts = st.text(max_size=20).map(lambda text: text * 400)


@given(metadata=st.dictionaries(st.text(max_size=5), texts, max_size=4))
def test_a_long_result_comes_in_short_lines_and_is_put_together(metadata):
    message = {"result": {"rows": 3, "metrics": {}, "metadata": metadata}}
    reader = _Reader(None, quiet)  # pyright: ignore[reportArgumentType]
    for part in in_parts(message):
        assert len(json.dumps(part)) < 7_000
        reader.take(part)
    assert reader.last == message and reader.parts == ""


PARENT = """
import subprocess, sys
child = '''
import time
from lepton_platform.pipeline import child
child.execute = lambda *_: (print("works", flush=True), time.sleep(120))
child.main("model", "digits")
'''
process = subprocess.Popen([sys.executable, "-c", child])
print(process.pid, flush=True)
process.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux is asked to end it")
def test_a_child_ends_with_the_process_that_holds_the_lock_on_its_folder():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert parent.stdout.readline() == "works\n"
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs([child], timeout=10)[1]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux is asked to end it")
def test_a_child_whose_parent_was_killed_before_it_began_does_nothing():
    command = [sys.executable, "-m", "lepton_platform.pipeline.child", "model", "digits", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
