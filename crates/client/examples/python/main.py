"""A key's life from Python, by nothing but Keyledger's proto files: it is created, checked, refused and revoked, an event is
recorded, and the ledger is asked what it holds of this trace.

KEYLEDGER_ENDPOINT and KEYLEDGER_TOKEN say where Keyledger is and who calls; spans are exported if
OTEL_EXPORTER_OTLP_ENDPOINT is set, and the ids of the trace are sent to Keyledger in any case.
"""

import os
import uuid
from urllib.parse import urlsplit

import grpc
from google.protobuf.duration_pb2 import Duration

import tracing
from keyledger.entry.v1 import event_pb2 as entry
from keyledger.v1 import audit_service_pb2 as audit
from keyledger.v1 import audit_service_pb2_grpc as audit_grpc
from keyledger.v1 import key_service_pb2 as keys
from keyledger.v1 import key_service_pb2_grpc as keys_grpc
from keyledger.v1 import resources_pb2 as resources

SERVICE = "example/python"
LIMIT_SECONDS = 30


def main() -> None:
    token = os.environ["KEYLEDGER_TOKEN"]
    tracer = tracing.start("keyledger-example-python")
    with connect(os.environ["KEYLEDGER_ENDPOINT"]) as channel:
        channel = grpc.intercept_channel(channel, tracing.CallInterceptor(tracer, token, LIMIT_SECONDS))
        with tracer.start_as_current_span("life of a key") as span:
            trace_id = format(span.get_span_context().trace_id, "032x")
            print("trace", trace_id)
            life_of_a_key(keys_grpc.KeyServiceStub(channel), audit_grpc.AuditServiceStub(channel), trace_id)


def connect(endpoint: str) -> grpc.Channel:
    """Takes a URL: https:// for TLS, http:// for plaintext on this machine."""
    url = urlsplit(endpoint)
    if url.scheme == "http":
        return grpc.insecure_channel(url.netloc)
    return grpc.secure_channel(url.netloc, grpc.ssl_channel_credentials())


def life_of_a_key(keys_stub, audit_stub, trace_id: str) -> None:
    created = keys_stub.CreateKey(
        keys.CreateKeyRequest(
            owner=resources.Owner(service=SERVICE),
            purpose="read error logs at night",
            grants=[entry.Grant(permissions=["audit.read"], resource="logs/error")],
            ttl=Duration(seconds=3600),
            reason="the Python example",
        )
    )
    print("created", created.key.key_id)

    # What a service does with a token that a client presents. The first may, the second may not.
    verify(keys_stub, created.token, "logs/error")
    verify(keys_stub, created.token, "logs/payroll")
    record(audit_stub)

    revoked = keys_stub.RevokeKey(
        keys.RevokeKeyRequest(
            key_id=created.key.key_id,
            kind=entry.REVOCATION_KIND_UNUSED,
            reason="the example is over",
        )
    )
    print("revoked at", revoked.position)
    verify(keys_stub, created.token, "logs/error")
    list_trace(audit_stub, trace_id)


def verify(keys_stub, token: str, resource: str) -> None:
    """Asks for a verdict. A refusal is an answer, not an error."""
    verdict = keys_stub.VerifyKey(
        keys.VerifyKeyRequest(
            token=token,
            permission="audit.read",
            resource=resource,
            client=keys.Client(address="203.0.113.7", user_agent="keyledger-example"),
            reason="nightly export",
        )
    )
    decision = entry.Decision.Name(verdict.decision)
    print("verified", resource, decision, entry.DecisionReason.Name(verdict.reason))


def record(audit_stub) -> None:
    """Tells the ledger what happened in this service. A repeat with the same event id is recorded once."""
    event = audit.NewEvent(
        event_id=str(uuid.uuid4()),
        actor=audit.Actor(service=SERVICE),
        action="report.export",
        resource="reports/2026-11",
        outcome=entry.OUTCOME_SUCCESS,
        category="example/reports",
    )
    [outcome] = audit_stub.RecordEvents(audit.RecordEventsRequest(events=[event])).outcomes
    if outcome.HasField("refusal"):
        raise RuntimeError(f"RecordEvents: {outcome.refusal.message}")
    print("recorded at", outcome.position)


def list_trace(audit_stub, trace_id: str) -> None:
    """Prints what the ledger holds of this trace, oldest first."""
    request = audit.ListEventsRequest(
        filter=audit.EventFilter(trace_id=trace_id),
        order=audit.EVENT_ORDER_OLDEST_FIRST,
    )
    while True:
        reply = audit_stub.ListEvents(request)
        for event in reply.events:
            print("listed", event.position, event.type, event.key_id)
        if not reply.next_page_token:
            return
        request.page_token = reply.next_page_token


if __name__ == "__main__":
    main()
