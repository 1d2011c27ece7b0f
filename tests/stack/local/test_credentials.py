"""The command line takes its credentials from wherever the AWS CLI takes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from callers import run_program

from http_server import Request, Response, Server

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


class Aws(Server):
    """IAM Identity Center, STS and the submit function, as far as a call of `show` needs them."""

    def __init__(self) -> None:
        super().__init__(self._respond)
        # Another name of 127.0.0.1. For 127.0.0.1 itself, the program signs with made-up credentials.
        self.submit_url = f"http://127.1:{self.port}"
        self.signatures: list[str] = []

    def _respond(self, request: Request) -> Response:
        if request.method == "POST":
            return Response(FROM_STS.encode())
        if request.path.startswith("/federation/credentials"):
            return Response.of_json(FROM_SSO)
        self.signatures.append(request.headers["Authorization"])
        return Response.of_json({"submission_id": "a", "state": "queued"})


@pytest.fixture
def aws() -> Iterator[Aws]:
    with Aws() as server:
        yield server


@pytest.mark.parametrize(("profile", "key"), [("process", "AKIDPROCESS"), ("sso", "AKIDSSO"), ("role", "AKIDROLE")])
def test_request_is_signed_with_the_profiles_credentials(aws: Aws, tmp_path: Path, profile: str, key: str) -> None:
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
