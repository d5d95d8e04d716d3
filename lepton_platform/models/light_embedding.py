"""The embedding of ``models.embedding`` without torch: half its time and a fifth of its memory, for who embeds now and then.

An encoder of the BERT family runs in ONNX Runtime on the weights as they lie in the file; its vectors differ from torch's
in the seventh digit. Others are embedded by torch. Batches are small, since what they hold in between is what takes the
memory; each core has one, with one thread, so that bytes do not depend on how many cores there are.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton_platform.models import bert_graph
from lepton_platform.models.embedding import batches, embed, load_tokenizer, padded, token_ids
from lepton_platform.models.side_by_side import cores

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCH = 8


def embed_light(texts: Sequence[str], encoder_dir: Path, *, max_tokens: int = 128) -> NDArray[np.float32]:
    """The embeddings (N, width) of ``texts``, in their order, each of Euclidean length one."""
    if not bert_graph.fits(encoder_dir):
        return embed(texts, encoder_dir, max_tokens=max_tokens)
    ids = token_ids(texts, load_tokenizer(encoder_dir, max_tokens))
    session = _session(encoder_dir)
    vectors_ND = np.empty((len(ids), session.get_outputs()[0].shape[-1]), dtype=np.float32)

    def pooled(rows: list[int]) -> None:
        """The mean over a text's tokens, of length one, where its row is."""
        tokens_BT, mask_BT = padded([ids[row] for row in rows])
        states_BTD = np.asarray(session.run(None, {bert_graph.TOKENS: tokens_BT, bert_graph.MASK: mask_BT})[0])
        weight_BT1 = mask_BT[:, :, None].astype(np.float32)
        mean_BD = (states_BTD * weight_BT1).sum(1) / weight_BT1.sum(1)
        vectors_ND[rows] = mean_BD / np.maximum(np.linalg.norm(mean_BD, axis=1, keepdims=True), 1e-12)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(pooled, batches(ids, BATCH)))
    return vectors_ND


def _session(folder: Path) -> "InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    graph = bert_graph.bert_graph(folder).SerializeToString()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
