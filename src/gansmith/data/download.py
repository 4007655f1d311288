"""Downloading one file from the first mirror that serves it as published, checked by SHA-256."""

import base64
import contextlib
import gzip
import hashlib
import logging
import shutil
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from gansmith.errors import NotFoundError
from gansmith.files import file_sha256, put

_TIMEOUT_S = 5.0
_MAX_BYTES = 2**30  # the largest file, of EMNIST, has 562 million
_CHUNK_BYTES = 2**16
ABANDONED_S = 86_400.0  # since a download was last written to

logger = logging.getLogger("gansmith")


def download(
    urls: Sequence[str], path: Path, *, sha256: str = "", is_unpacked: bool = True, integrity: str = ""
) -> None:
    """Write a file with this SHA-256: of what the gzip file holds, or of itself where not `is_unpacked`.

    Args:
        integrity: instead, the SHA-512 of the file itself in base 64, after "sha512-", as package registries give it.

    Mirrors are tried in order. The file appears under its name only once it is complete and verified, and it replaces
    an older one at once.

    Raises NotFoundError, with a reason for each address, where none serves the file or it cannot be written.
    """
    import requests

    reasons = []
    for url in urls:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path.parent)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
                part = Path(folder) / path.name
                _fetch(url, part)
                if _is_published(part, sha256=sha256, is_unpacked=is_unpacked, integrity=integrity):
                    put(part, path)
                    return
            reasons.append("its content is not the official file's, or it is cut off")
            logger.warning("%s: %s; trying the next mirror", url, reasons[-1])
        except (requests.RequestException, ValueError) as error:
            reasons.append(_reason(error))
            logger.info("%s: %s", url, reasons[-1])
        except OSError as error:
            if error.errno is None:  # of requests, such as for certificates that are not where a variable says
                reasons.append(f"the connection could not be made ({error})")
                continue
            raise NotFoundError(f"{path} cannot be written: {error.strerror or error}") from None
    raise NotFoundError("; ".join(f"{url}: {reason}" for url, reason in zip(urls, reasons, strict=True)))


def _remove_abandoned(folder: Path) -> None:
    """Remove what downloads that were killed have left."""
    for old in folder.glob(".part-*"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(old)


def _fetch(url: str, path: Path) -> None:
    """Write what an address serves to a file, up to the size limit."""
    import pooch

    # The file as it is stored, not unpacked on the way.
    headers = {"Accept-Encoding": "identity"}
    downloader = pooch.HTTPDownloader(timeout=_TIMEOUT_S, chunk_size=_CHUNK_BYTES, headers=headers)
    with path.open("wb") as file:
        downloader(url, _LimitedWriter(file), None)


class _LimitedWriter:
    """A binary file that raises ValueError instead of growing beyond the size limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._room = file, _MAX_BYTES

    def write(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0:
            raise ValueError(f"it sent more than {_MAX_BYTES:,} bytes")
        self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _is_published(path: Path, *, sha256: str, is_unpacked: bool, integrity: str) -> bool:
    """Return whether a file's hash is the one that is known."""
    if not integrity:
        return (content_sha256(path) if is_unpacked else file_sha256(path)) == sha256
    with path.open("rb") as file:
        return f"sha512-{base64.b64encode(hashlib.file_digest(file, 'sha512').digest()).decode()}" == integrity


def content_sha256(path: Path) -> str:
    """Return the SHA-256 of what a gzip file holds; empty where it is damaged or holds more than the limit."""
    digest, size = hashlib.sha256(), 0
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
                size += len(chunk)
                if size > _MAX_BYTES:
                    return ""
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return ""
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """Return in a few words why an address could not be read."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection ended early"
    root: BaseException = error
    while (inner := root.__cause__ or root.__context__) is not None:
        root = inner
    if isinstance(error, requests.Timeout) or isinstance(root, TimeoutError):
        return f"time-out, no answer within {_TIMEOUT_S:g} seconds"
    detail = (root.strerror if isinstance(root, OSError) else None) or str(root)
    if isinstance(error, requests.exceptions.SSLError):
        return f"the secure connection failed ({detail})"
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy cannot be reached ({detail})"
    return detail
