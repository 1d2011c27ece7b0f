"""Networks with proxies and authorities of their own: found as boto3 finds them, or named by the connection."""

from __future__ import annotations

import ipaddress
import json
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fake_bridge import FakeBridge, Server
from test_executor import launched
from workloads import beat_until, run, task

from airflow_ecs_bridge.bridge import Unhealthy
from airflow_ecs_bridge.keys import key_of

NOWHERE = "http://bridge.invalid"


@pytest.fixture
def connection(configure, monkeypatch) -> Any:
    """Set the executor's connection."""

    def set_connection(**extra: Any) -> None:
        value = {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_BRIDGE", json.dumps(value))
        configure(aws_conn_id="bridge")

    return set_connection


def works(start: Any, bridge: FakeBridge) -> None:
    """Run a task: it needs the function URL and the table."""
    executor = start()
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: key_of(item.ti) in executor.event_buffer)


@pytest.fixture
def unreachable(options, configure, monkeypatch) -> None:
    """A bridge and a table that are reached through a proxy only."""
    configure(submit_url=NOWHERE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", NOWHERE)


def test_the_environment_s_proxy_is_used(unreachable, start, bridge, url, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", url)
    works(start, bridge)
    assert f"{NOWHERE}/v1/submissions" in bridge.proxied
    assert f"{NOWHERE}/" in bridge.proxied


def test_no_proxy_is_obeyed(start, bridge, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    works(start, bridge)
    assert bridge.proxied == []


def test_the_connection_s_proxy_is_used(unreachable, connection, start, bridge, url):
    connection(config_kwargs={"proxies": {"http": url}})
    works(start, bridge)
    assert f"{NOWHERE}/v1/submissions" in bridge.proxied
    assert f"{NOWHERE}/" in bridge.proxied


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The certificate, and key, of a server on 127.0.0.1 that no known authority has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return pem


@pytest.fixture
def with_tls(options, configure, bridge, authority, monkeypatch) -> Iterator[None]:
    """The bridge and the table, by TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    with Server(bridge, tls=context) as server:
        configure(submit_url=server.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", server.url)
        yield


def test_a_server_of_an_unknown_authority_is_refused(with_tls, start):
    with pytest.raises(Unhealthy, match="SSLError"):
        start()


def test_aws_ca_bundle_is_used(with_tls, start, bridge, authority, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
    works(start, bridge)


def test_the_connection_s_verify_is_used(with_tls, connection, start, bridge, authority):
    connection(verify=str(authority))
    works(start, bridge)


def test_the_connection_s_timeouts_come_before_ours(connection, options):
    from airflow_ecs_bridge.aws import Aws
    from airflow_ecs_bridge.executor import EcsBridgeExecutor
    from ecs_bridge.aws import READ_TIMEOUT

    connection(config_kwargs={"connect_timeout": 41})
    config = Aws(EcsBridgeExecutor().settings).dynamodb().meta.config
    assert (config.connect_timeout, config.read_timeout) == (41, READ_TIMEOUT)


def test_a_signature_is_made_of_credentials_that_belong_together(start, bridge, monkeypatch):
    from botocore.credentials import Credentials, ReadOnlyCredentials

    from airflow_ecs_bridge.aws import Aws

    class Refreshing(Credentials):
        """Another thread refreshes them between any two reads."""

        def get_frozen_credentials(self) -> ReadOnlyCredentials:
            return ReadOnlyCredentials("whole", "test", None)

    monkeypatch.setattr(Aws, "credentials", lambda self: Refreshing("half", "test"))
    executor = start()
    run(executor, item := task(executor))
    launched(bridge, item)
    assert any("Credential=whole/" in each for each in bridge.signatures)
    assert not any("Credential=half/" in each and "/lambda/" in each for each in bridge.signatures)
