"""The command line takes its credentials from wherever the AWS CLI takes them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from callers import run_program

CONFIG = """
[profile process]
credential_process = echo '{"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "secret"}'

[profile sso]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = operator

[sso-session corp]
sso_region = eu-west-1
sso_start_url = https://corp.awsapps.com/start

[profile role]
role_arn = arn:aws:iam::123456789012:role/operator
source_profile = process
"""

FROM_SSO = {
    "roleCredentials": {
        "accessKeyId": "AKIDSSO",
        "secretAccessKey": "secret",
        "sessionToken": "token",
        "expiration": 4_070_908_800_000,
    }
}

FROM_STS = """
<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>AKIDROLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration>
</Credentials></AssumeRoleResult></AssumeRoleResponse>
"""


class Aws(ThreadingHTTPServer):
    """IAM Identity Center, STS and the submit function, as far as a call of `show` needs them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        # Another name of 127.0.0.1: the program signs for that one with made-up credentials.
        self.submit_url = f"http://127.1:{self.server_port}"
        self.signatures: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Aws

    def do_GET(self) -> None:
        if self.path.startswith("/federation/credentials"):
            self.answer(json.dumps(FROM_SSO))
        else:
            self.server.signatures.append(self.headers["Authorization"])
            self.answer('{"submission_id": "a", "state": "queued"}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(FROM_STS)

    def answer(self, body: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def aws() -> Iterator[Aws]:
    with Aws() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("profile", "key"), [("process", "AKIDPROCESS"), ("sso", "AKIDSSO"), ("role", "AKIDROLE")])
def test_a_call_is_signed_with_the_credentials_of_the_profile(aws: Aws, tmp_path: Path, profile: str, key: str) -> None:
    config = tmp_path / "config"
    config.write_text(CONFIG)
    cache = tmp_path / ".aws/sso/cache"
    cache.mkdir(parents=True)
    token = {"accessToken": "token", "expiresAt": "2099-01-01T00:00:00Z", "region": "eu-west-1"}
    (cache / f"{hashlib.sha1(b'corp').hexdigest()}.json").write_text(json.dumps(token))
    answer = run_program(
        *("show", "--url", aws.submit_url, "a"),
        HOME=tmp_path,
        AWS_CONFIG_FILE=config,
        AWS_PROFILE=profile,
        AWS_REGION="eu-west-1",
        AWS_ENDPOINT_URL_SSO=aws.url,
        AWS_ENDPOINT_URL_STS=aws.url,
    )
    assert answer.returncode == 0, answer.stderr
    assert [f"Credential={key}/" in signature for signature in aws.signatures] == [True]
