"""Spans of calls to Keyledger, by the OpenTelemetry API: one for each call, its ids in the `traceparent` that is sent."""

import os

import grpc
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def start(service_name: str) -> trace.Tracer:
    """Makes spans, and exports them if there is somewhere to send them: what is left, when the program ends.

    The exporter reads the other OTEL_EXPORTER_OTLP_* variables by itself.
    """
    provider = TracerProvider(resource=Resource.create({"service.name": service_name}))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return trace.get_tracer("keyledger-example")


class CallInterceptor(grpc.UnaryUnaryClientInterceptor):
    """Puts each call into a span, and sends the token of the key that calls."""

    def __init__(self, tracer: trace.Tracer, token: str, limit_seconds: float) -> None:
        self._tracer = tracer
        self._token = token
        self._limit_seconds = limit_seconds

    def intercept_unary_unary(self, continuation, client_call_details, request):
        method = client_call_details.method.lstrip("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        with self._tracer.start_as_current_span(method, kind=trace.SpanKind.CLIENT, attributes=attributes):
            headers = {"authorization": f"Bearer {self._token}"}
            propagate.inject(headers)
            details = client_call_details._replace(
                metadata=tuple(headers.items()), timeout=self._limit_seconds
            )
            call = continuation(details, request)
            # Waits for the answer; an error passes through the span, which notes it.
            call.result()
            return call
