"""Fetching a file: from the first mirror that answers, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backhand.datasets.base import DataError, MissingDataError
from backhand.datasets.file_kinds import kind_of

CHUNK = 1 << 16


def download(
    urls: str | Sequence[str],
    path: str | os.PathLike[str],
    checksum: str,
    *,
    timeout: float = 30.0,
    progress: bool = True,
) -> Path:
    """Fetch a file once, check it, and only then give it its name.

    What has arrived stands in `path` + ".part"; when the connection breaks, the next mirror, or the next call, goes on
    from there. What does not have the checksum is deleted. A file that stands at `path` already is never
    overwritten: with the right checksum it is returned, with another one that is an error.

    urls : the same file on one or more servers, tried in turn
    checksum : "md5:..." or "sha256:...", any name that hashlib knows, in hexadecimal
    timeout : in seconds, for each answer of the server, not for the whole file
    progress : a bar on stderr, where that is a terminal
    """
    urls = [urls] if isinstance(urls, str) else list(urls or ())
    if not all(isinstance(url, str) for url in urls):
        raise DataError(f"urls: expected addresses as text, got {urls!r}")
    path = Path(path)
    part = path.with_name(path.name + ".part")
    _hasher(checksum)
    try:
        if path.exists():
            if (found := _digest(path, checksum)) != checksum.lower():
                what = f"{found}{_what(path)}"
                raise DataError(f"{path}: expected {checksum}, got {what}; move it away to have it fetched again")
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        part.open("ab").close()  # an unwritable folder shows here, before any server is asked
    except OSError as error:
        raise DataError(f"{path}: cannot be written or read: {error.strerror or error}") from None

    failures = []
    for url in urls:
        problem = _fetch(url, part, checksum, timeout, progress)
        if problem is None:
            os.replace(part, path)
            return path
        failures.append(f"{url}: {problem}")
    kept = part.stat().st_size if part.exists() else 0
    if kept == 0:
        part.unlink(missing_ok=True)
    raise MissingDataError(
        f"{path.name} could not be downloaded ({'; '.join(failures) or 'no address given'}). "
        + (f"Its first {kept} bytes are kept in {part}: the next try goes on from there. " if kept else "")
        + f"By hand: download {' or '.join(urls)} and save it as {path.absolute()} ({checksum})"
    )


def _fetch(url: str, part: Path, checksum: str, timeout: float, progress: bool) -> str | None:
    """Bring `part` to its full length from this server: None if it then has the checksum, else what went wrong."""
    from http.client import HTTPException
    from urllib.error import HTTPError

    try:
        if _digest(part, checksum) != checksum.lower():  # it may be whole already
            _append(url, part, timeout, progress)
    except HTTPError as error:
        error.close()
        return f"HTTP error {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:  # ValueError: not a URL
        return str(getattr(error, "reason", error)) or type(error).__name__
    found = _digest(part, checksum)
    if found == checksum.lower():
        return None
    what = f"{found}{_what(part)}"
    part.unlink()
    return f"expected {checksum}, got {what}"


def _append(url: str, part: Path, timeout: float, progress: bool) -> None:
    from tqdm import tqdm

    part.touch()
    have = part.stat().st_size
    with _open(url, have, timeout) as response:
        length = response.headers.get("Content-Length")
        # A server that knows nothing of ranges sends everything from the start, with status 200.
        start = have if response.status == 206 else 0
        total = start + int(length) if length is not None and length.isdecimal() else None
        bar = tqdm(
            total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None if progress else True
        )
        with bar, part.open("ab" if start else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size < total:
        raise OSError(f"the connection ended after {size} of {total} bytes")


def _open(url: str, have: int, timeout: float) -> Any:
    """The answer of the server, from byte `have` on if it can do that, else from the start."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    headers = {"User-Agent": "backhand"}
    if have:
        try:
            response = urlopen(Request(url, headers={**headers, "Range": f"bytes={have}-"}), timeout=timeout)
        except HTTPError as error:
            if error.code != 416:
                raise
            error.close()  # there is nothing from that byte on: what we have is of another file
        else:
            if response.status != 206 or re.match(rf"bytes {have}-", response.headers.get("Content-Range", "")):
                return response
            response.close()
    return urlopen(Request(url, headers=headers), timeout=timeout)


def _what(path: Path) -> str:
    """What a file is that is not what it should be, in brackets; a page to log in to a network, say."""
    with path.open("rb") as file:
        kind = kind_of(file.read(1 << 16))
    return f" ({kind})" if kind else ""


def _hasher(checksum: object) -> Any:
    name, _, digest = checksum.partition(":") if isinstance(checksum, str) else ("", "", "")
    try:
        hasher = hashlib.new(name, usedforsecurity=False)
    except ValueError:
        hasher = None
    if hasher is None or not hasher.digest_size or not re.fullmatch(f"[0-9a-fA-F]{{{2 * hasher.digest_size}}}", digest):
        raise DataError(f'checksum: expected "md5:..." or "sha256:..." in hexadecimal, got {checksum!r}')
    return hasher


def _digest(path: Path, checksum: str) -> str:
    """The checksum that the file has, written like the one that it should have."""
    hasher = _hasher(checksum)
    if path.exists():
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                hasher.update(chunk)
    return f"{checksum.partition(':')[0]}:{hasher.hexdigest()}".lower()
