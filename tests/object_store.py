"""A local S3 server for the tests (moto's, in a process of its own), and faults on the way to it.

Tests fork; connections that a server in their own process had accepted would stay open in forks.
"""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import AWSResponse
from botocore.httpsession import URLLib3Session
from urllib3.response import HTTPResponse

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Refusal:
    """The server answers with an error instead of doing what it is asked."""

    status: int
    code: str


LOST = Refusal(500, "lost")
"""The server does what it is asked, and its answer does not arrive."""

Fault = Callable[[str, str], Refusal | None]
"""Of a request's method and key: what goes wrong with it."""


class Server:
    """Runs while it is entered, and answers at `url`."""

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.object_store"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def new_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )


class Wire:
    """What this process sends to an object store: `send` takes the place of boto3's own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._fault: Fault = lambda method, key: None
        self._counts: Counter | None = None
        self._send = URLLib3Session.send
        self._counting = threading.Lock()

    def send(self, session: URLLib3Session, request) -> AWSResponse:
        with self._counting:
            if self._counts is not None:
                self._counts[request.method] += 1
            fault = self._fault(request.method, urlsplit(request.url).path.split("/", 2)[-1])
        if fault in (None, LOST):
            answer = self._send(session, request)
        return _answer(request, fault) if fault else answer

    @contextlib.contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Fail as `fault` says, for a while."""
        before, self._fault = self._fault, fault
        try:
            yield
        finally:
            self._fault = before

    @contextlib.contextmanager
    def counted(self) -> Iterator[Counter]:
        """The requests of a while, by method."""
        self._counts = Counter()
        try:
            yield self._counts
        finally:
            self._counts = None


def _answer(request, fault: Refusal) -> AWSResponse:
    text = f"<Error><Code>{fault.code}</Code><Message>no</Message></Error>"
    raw = HTTPResponse(io.BytesIO(text.encode()), preload_content=False)
    return AWSResponse(request.url, fault.status, {}, raw)


def _serve() -> None:
    from moto.server import create_backend_app
    from werkzeug.serving import make_server
    from werkzeug.wrappers import Request, Response

    app, one_at_a_time = create_backend_app("s3"), threading.Lock()

    def answer(environ, start_response):
        # All of it, before anything is done: a client that is killed has sent a part.
        environ["wsgi.input"] = io.BytesIO(Request(environ).get_data())
        with one_at_a_time:  # so that conditional writes are decided as a real server does
            response = Response.from_app(app, environ, buffered=True)
        return response(environ, start_response)

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = make_server("127.0.0.1", 0, answer, threaded=True)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve()
