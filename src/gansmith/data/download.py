"""Fetching one file from the first mirror that has it whole, checked by SHA-256."""

import gzip
import hashlib
import io
import logging
import os
import tempfile
import urllib.request
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

OFFLINE = "GANSMITH_OFFLINE"  # any value: never touch the network
_TIMEOUT_S = 5.0
_MAX_BYTES = 256 * 2**20

logger = logging.getLogger("gansmith")


def download(urls: Sequence[str], path: Path, *, sha256: str) -> bool:
    """Whether `path` now holds a gzip file whose content has this SHA-256.

    Mirrors are tried in order. The file appears under its name only once it is complete and right.
    """
    for url in urls:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
                body = response.read(_MAX_BYTES + 1)
            if len(body) > _MAX_BYTES or _content_sha256(body) != sha256:
                logger.warning("%s sent another content than the official one; trying elsewhere", url)
                continue
        except (OSError, HTTPException, EOFError, zlib.error) as error:
            logger.info("%s could not be fetched: %s", url, error)
            continue
        return _keep(body, path)
    return False


def _keep(body: bytes, path: Path) -> bool:
    """Whether these bytes could be put under this name, all at once."""
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as file:
            part = Path(file.name)
            file.write(body)
        part.chmod(0o644)  # temporary files are their maker's alone, and a cache may be shared
        os.replace(part, path)
    except OSError as error:
        logger.warning("%s cannot be kept: %s", path, error.strerror)
        if part is not None:
            part.unlink(missing_ok=True)
        return False
    return True


def _content_sha256(body: bytes) -> str:
    """The SHA-256 of what a gzip file holds; empty where that is more than the limit."""
    digest, size = hashlib.sha256(), 0
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
            size += len(chunk)
            if size > 4 * _MAX_BYTES:
                return ""
    return digest.hexdigest()
