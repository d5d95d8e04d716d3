"""What learns to write down prompts: by default Whisper tiny.en, taught on."""

from lepton_platform.data.transcripts import letters
from lepton_platform.models.speech_recogniser import SpeechRecogniser
from lepton_platform.tasks.prompts.preprocess import CONTENT, TEXT, decode, written

LEARNER = SpeechRecogniser(content=CONTENT, target=TEXT, decode=decode, written=written, normalise=letters)
