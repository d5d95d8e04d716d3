"""What the service takes and gives: recordings of speech in, what is said out, word by word with its time."""

from pathlib import Path
from types import ModuleType

from lepton_platform.serving.audio import FIELD, INLINE_BYTES, MAX_FILE_BYTES, TRUTH, SpeechEncoder, recordings_schema
from lepton_platform.serving.audio import speech_answer as answer
from lepton_platform.serving.audio import speech_answer_schema as answer_schema
from lepton_platform.serving.audio import text_truth as truth
from lepton_platform.serving.audio import text_truth_schema as truth_schema
from lepton_platform.serving.media import CONTENT_TYPES, as_multipart, decode_files, file_of
from lepton_platform.serving.protocols import Json
from lepton_platform.serving.streaming import SpeechStream

__all__ = ["CONTENT_TYPES", "INLINE_BYTES", "TRUTH", "answer", "answer_schema", "truth", "truth_schema"]

KIND = "audio"
MAX_INPUTS = 16
MAX_BODY_BYTES = 64 << 20
REQUIREMENTS = (
    "soundfile",
    "soxr",
    "tokenizers",
    "python-multipart",
    "websockets",
)  # what the Bento installs for this task
EXAMPLE = {  # a quarter of a second of a tone
    FIELD: [
        "ZkxhQwAAACIQABAAAAU3AAU3A+gA8AAAD6A/gXBQHNLTFa2psY8C4V6ehAAAKCAAAAByZWZlcmVuY2UgbGliRkxBQyAxLjQuMiAyMDIyMTAyMgAAAAD/"
        "+HUIAA+f4EIAAAAAtT8OAIQf//6fTlzMMMMkkyQ0+U8ynCSZJyTh+czJKHJJOcp5OUkynJJyHMhSTnKZzJkmTDJM4Zz854cwyTMM5OaFKFKShQyZDChk"
        "ycoXKSzQzJMJMkzM5vMpMwmTJMzJz9lNmZkyTCYSTnnTpyUJhhMJJJh5lKXTnJQwwkkMmFJT05zhSHDCSHJJ5Tcv8wyEmEkkh5/3Sk4YYYTCSShn+t5T"
        "DCQwkJJMnypEqXKEySGBJISTD5belmTAwMhDDDCZZbtSzMMhISEkJJhTdt6koYYSEgSQkmZd4yypkhMCQhJCQkKe3WpLMMkhCEkJDDMvVq6HJISGBISE"
        "JIZOkbHUpMhIQhCQkISSeVIsbcsJCQkgSEhJDOu12hYUMISEhCEMJM7WrEqYYQkIQkISGEmUrjUf60kiSJEQkSJJKr50/1yiUREiISJCkqrvn/VUUSKE"
        "RIiIolK0753OlkkSJESEiJJUr53u7VookKEQkSEkVSnTv/TVJEkRERCREUpXc/+dyiUJCQiIhIkVKp///VIpERISEiIkkqTv/feqSJEJCIiIiJJK1z57"
        "+1KJQiIiEiIlEl2n7udrUUSERCQiKFItdu3f9cWJIJEIhIiJKsv+c/+VFESEhEhEkSS+9z/51KRIiIREQiiLUu/7c5rUiRIRCRCRJFS0//d9SiSEiIRE"
        "JCiSruc7/1qRESEQkIRIkpa/+Ofa1JEhESEiIoila/nud1SKIkQiQkJEla+dv56tKJIREIiESFItdOO/dNUUhEhEgkhIpVzT539ciiSEIiIiJIpVTnP2"
        "nLSSKCQiIiRIstX3+76VJERISEiEklLXOf7vpSJESIRIhRFFVO37u6lIiQiIhIRRFrq/3OaalEiRCIkIiRSVXzc/01pEkRIRIREhSJV07f/2tJESCRER"
        "EkSVdz599rJREiIiIiJJFrnOfO61JIiSCQkKRKS779zu0okRISEhISiVXPvfeuSRIUIiIiRJKV3P/5rUkkQiQkRIiksuabvdalIkQkKEiQkVKpztpzVS"
        "SSIkJERIpS6v3TutJIkSJESEkSpdd/zupKJEiEiIoUotc520+tUShISJCRFEpd007urKSRISEhIlEqqnTvulpJEhIiJChUVXff3alEkRIiEiIklJdd/N"
        "fSSiJIRESJJSWu5991KRRESIiIkopavuOvtSikRIiJEiSSpdNOdalkkiSJISKKKVa+d9rkkiKEkJEkSUrU0+dy5SSJCSIkSKSqrmmnLUVEiRJCREiiyq"
        "u19WlpJIiQkRRRKKqu+1rUkkiRIiRFFJVdd9aqkSREiRJFJJUr719llpJJCiJEkSlLu66rUokiJIiKIstS1a+61SUiiQoURJFKXXd2ulRBJCQhhJDJnr"
        "qR08kkhJIGGGU/ukSnIYYQkhISQmSW0j3SkyEkkCSSGFD/a2cwwkIYSTDIcKXupMyQyQkhIYZmRN/+GGSEhISTCYUKUrpZZmEwkkJIZMy9K5oZkhhJIS"
        "QmFDn7/mEkJMJJhk8svSJzOBkJgYZJMym754ZhMISSGTJSXvSkpDJISSQyTM0pcpZSTCSSGGSSTylKUykyZkMJkmTPOlnmZhwoSSTJlOdymYUMkkKEwy"
        "ZynlLKcmSSSSZJDhpSlM8OcyYSSQoczk+ZTmYcwkySk5zTmcnMkwyTJM88pSUKGZkwzDJJOUKZyUKHDhw4ZlMNJZ5lJSScMk5nKFCyacmFMmTMwySc8m"
        "ZnMmSZ5nMp8MOGTDJJksp8pSmZJDhJJM///wpPI="
    ]
}


def decode(body: bytes, content_type: str) -> list[bytes]:
    """The files of a request."""
    return decode_files(body, content_type, FIELD, MAX_INPUTS, MAX_FILE_BYTES)


def encoder(model: Path, preprocess: ModuleType) -> SpeechEncoder:
    """Decoded as the training rows were."""
    return SpeechEncoder(model, preprocess.decode)


def stream(encoder: SpeechEncoder) -> SpeechStream:
    """A recording that is being made while it is understood."""
    return SpeechStream(encoder)


def logged(value: bytes) -> Json:
    """The file as it was sent."""
    return {"audio": value}


def from_row(row: Json) -> bytes:
    return row["audio"]


def request_schema(content_type: str) -> Json:
    return recordings_schema(content_type, MAX_INPUTS)


def from_command_line(given: str | bytes) -> Json:
    """What `lepton predict` was given, as the request to send: keywords of ``httpx.post``."""
    return as_multipart(FIELD, file_of(given))
