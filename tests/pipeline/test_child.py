"""What a child process says arrives whole, however long it is."""

import json

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
