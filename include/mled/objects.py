"""Object storage: files by key in a bucket of an S3-compatible server, and one-step swaps.

`MLED_OBJECT_STORE` names the bucket; where the server is and who may use it comes from the
standard `AWS_…` environment variables, which boto3 reads.
"""

from __future__ import annotations

import functools
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from mled.settings import Settings

PART_BYTES = 64 * 2**20
"""Larger files are sent in parts of this size, each a request."""

ATTEMPTS = 5
"""How often a request is sent, with growing pauses, before it counts as failed."""

AT_ONCE = 8
"""Files that are sent or fetched at the same time."""

ABANDONED = timedelta(days=1)
"""The age from which an object that nothing refers to was left by a process that died."""


class ObjectStoreError(OSError):
    """The object store cannot be used; the message says why and what to do."""


class MissingObjectError(ObjectStoreError):
    """There is no object of this key."""


@dataclass(frozen=True)
class Found:
    """The content of an object, and the tag by which the server tells it from any other."""

    content: bytes
    tag: str


class Objects:
    """The objects below `MLED_OBJECT_STORE`; keys are relative to it.

    Every method raises ObjectStoreError when the server cannot be reached, refuses, or fails
    `ATTEMPTS` times.
    """

    def __init__(self, settings: Settings):
        self.url = settings.object_store
        parts = urlsplit(self.url)
        self._bucket = parts.netloc
        self._prefix = f"{parts.path.strip('/')}/".lstrip("/")
        try:
            self._client = _client(os.getpid(), _variables())
        except (BotoCoreError, ValueError) as error:
            raise ObjectStoreError(
                f"MLED_OBJECT_STORE={self.url} cannot be used: {error}; correct the AWS_… variables"
            ) from error

    @property
    def endpoint(self) -> str:
        """The server's address, without a user or password."""
        parts = urlsplit(self._client.meta.endpoint_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def check(self) -> None:
        """Raise ObjectStoreError, with what to do, unless objects can be read."""
        self.read("any")

    def read(self, key: str) -> Found | None:
        """A small object; None when there is none of this key."""
        try:
            with self._explained(), self._get(key) as answer:
                return Found(answer["Body"].read(), answer["ETag"])
        except MissingObjectError:
            return None

    def swap(self, key: str, content: bytes, expected: Found | None) -> bool:
        """Put a small object in the place of `expected`, in one step.

        False when something else is there by now, and then nothing has changed. No two contents
        of a key may ever be equal: they could not be told apart.
        """
        if expected is None:
            self._check_conditions(f"{key}-{uuid.uuid4()}")
        condition = {"IfMatch": expected.tag} if expected else {"IfNoneMatch": "*"}
        if self._put_if(key, content, condition):
            return True
        # The first attempt may have succeeded and its answer been lost on the way.
        found = self.read(key)
        return found is not None and found.content == content

    def _put_if(self, key: str, content: bytes, condition: dict[str, str]) -> bool:
        with self._explained():
            try:
                self._client.put_object(
                    Bucket=self._bucket, Key=self._prefix + key, Body=content, **condition
                )
            except ClientError as error:
                gone = _status(error) == 404 and _code(error) != "NoSuchBucket"
                if gone or _status(error) in (409, 412):
                    return False
                raise
        return True

    def _check_conditions(self, key: str) -> None:
        """Refuse a server that would let two machines overwrite each other's commits."""
        self._put_if(key, b"", {"IfNoneMatch": "*"})
        ignored = [
            header
            for header, value in (("IfNoneMatch", "*"), ("IfMatch", f'"{"0" * 32}"'))
            if self._put_if(key, b"", {header: value})
        ]
        self.delete([key])
        if ignored:
            raise ObjectStoreError(
                f"MLED_OBJECT_STORE={self.url}: {self.endpoint} ignores conditional writes "
                f"({', '.join(ignored)}), so two machines could undo each other's work: use a "
                "server that honours them"
            )

    def upload(self, path: Path, key: str, sent: Callable[[int], None] | None = None) -> None:
        """Send a file; the object is there whole, or not at all.

        `sent` is told the number of bytes that have gone since it was told before.
        """
        with path.open("rb") as file, self._explained():
            self._client.upload_fileobj(
                file,
                self._bucket,
                self._prefix + key,
                Callback=sent,
                Config=_transfer(path.stat().st_size),
            )

    def download(self, key: str, path: Path, sha256: str) -> None:
        """Fetch an object into a new file, and check it. A failure leaves no file.

        Raises:
            MissingObjectError: there is none of this key.
            ObjectStoreError: its content is not what `sha256` says, too.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                digest = self._stream(key, path)
                break
            except BaseException as error:
                path.unlink(missing_ok=True)
                if not isinstance(error, BotoCoreError):
                    raise
                # boto3 does not try again once the content has begun to arrive.
                if attempt == ATTEMPTS:
                    raise self._problem(error) from error
        if digest != sha256:
            path.unlink()
            raise ObjectStoreError(
                f"{self.url}/{key} is damaged: its SHA-256 is {digest} instead of {sha256}; put "
                "the object back from a copy or an older version of it"
            )

    def _stream(self, key: str, path: Path) -> str:
        digest = hashlib.sha256()
        with self._get(key) as answer, path.open("wb") as file:
            for chunk in answer["Body"].iter_chunks(2**20):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    @contextmanager
    def _get(self, key: str) -> Iterator[dict[str, Any]]:
        with self._explained(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        with answer["Body"]:
            yield answer

    def exists(self, key: str) -> bool:
        """Whether there is an object of this key."""
        with self._explained():
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
            except ClientError as error:
                if _status(error) == 404:
                    return False
                raise
        return True

    def keys(self, folder: str = "") -> dict[str, datetime]:
        """The keys below `folder` (all by default), each with when it was written."""
        prefix = self._prefix + (f"{folder}/" if folder else "")
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        with self._explained():
            return {
                found["Key"].removeprefix(self._prefix): found["LastModified"]
                for page in pages
                for found in page.get("Contents", ())
            }

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there count as removed."""

        def remove(key: str) -> None:
            with self._explained():
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

        together(remove, keys)

    def sweep(self, folder: str, kept: Iterable[str]) -> None:
        """Remove what dead processes left in `folder`: all that is old and not in `kept`.

        `kept` are keys, and folders with all that is in them.
        """
        kept = set(kept)
        limit = datetime.now(UTC) - ABANDONED
        self.delete(
            key
            for key, written in self.keys(folder).items()
            if written < limit and kept.isdisjoint((key, key.rpartition("/")[0]))
        )

    @contextmanager
    def _explained(self, key: str | None = None) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            if key is not None and _code(error) == "NoSuchKey":
                raise MissingObjectError(f"{self.url}/{key} is not there") from error
            raise self._problem(error) from error
        except BotoCoreError as error:
            raise self._problem(error) from error

    def _problem(self, error: BotoCoreError | ClientError) -> ObjectStoreError:
        setting, server = f"MLED_OBJECT_STORE={self.url}", self.endpoint
        if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
            text = (
                f"{setting} needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE"
            )
        elif isinstance(error, CredentialRetrievalError):
            text = f"{setting}: {error}; correct the AWS_… variables"
        elif isinstance(error, (ConnectionError, HTTPClientError)):
            text = (
                f"{setting}: {server} does not answer ({type(error).__name__}); wait until it "
                "does, or correct AWS_ENDPOINT_URL"
            )
        elif not isinstance(error, ClientError):
            text = f"{setting}: {error}"
        elif _code(error) == "NoSuchBucket":
            text = (
                f"{setting}: there is no bucket {self._bucket!r} at {server}: create it, or "
                "correct MLED_OBJECT_STORE or AWS_ENDPOINT_URL"
            )
        elif _status(error) in (401, 403) or "Token" in _code(error):
            text = (
                f"{setting}: {server} refused the request ({_code(error)}): correct "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or let this user read, write, list "
                "and delete objects there"
            )
        elif _status(error) in (301, 307) or _code(error) == "AuthorizationHeaderMalformed":
            text = f"{setting}: the bucket is in another region: set AWS_REGION to it"
        elif _status(error) >= 500 or _status(error) == 429:
            text = (
                f"{setting}: {server} answered {_status(error)} ({_code(error)}) to "
                f"{ATTEMPTS} attempts: try again when it is well"
            )
        else:
            text = f"{setting}: {server} answered: {error}"
        return ObjectStoreError(text)


def together(action: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Do something to many items, `AT_ONCE` at a time; the first failure is raised at the end."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(action, items):
            pass


def _variables() -> frozenset[tuple[str, str]]:
    return frozenset((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))


# A fork must not use its parent's connections, nor a process another one's credentials.
@functools.lru_cache(maxsize=1)
def _client(_process: int, variables: frozenset[tuple[str, str]]) -> Any:
    region = dict(variables).get("AWS_REGION")  # boto3 reads AWS_DEFAULT_REGION only
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=2 * AT_ONCE,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
    )
    return boto3.session.Session(region_name=region).client("s3", config=config)


def _transfer(size: int) -> TransferConfig:
    # Without threads a small file is one plain request.
    return TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        use_threads=size > PART_BYTES,
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
