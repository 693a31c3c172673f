// Spans of calls to Keyledger, by the OpenTelemetry API: one for each call, its ids in the `traceparent` that is sent.

import type { Interceptor } from "@connectrpc/connect";
import { context, propagation, SpanKind, SpanStatusCode, trace, type Span } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-grpc";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";
import { ATTR_SERVICE_NAME } from "@opentelemetry/semantic-conventions";

const tracer = trace.getTracer("keyledger-example");

// Makes spans, and exports them if there is somewhere to send them. The exporter reads the other OTEL_EXPORTER_OTLP_*
// variables by itself. What it returns sends what is left.
export function startTracing(serviceName: string): () => Promise<void> {
  const exports = Boolean(process.env.OTEL_EXPORTER_OTLP_ENDPOINT);
  const provider = new NodeTracerProvider({
    resource: resourceFromAttributes({ [ATTR_SERVICE_NAME]: serviceName }),
    spanProcessors: exports ? [new BatchSpanProcessor(new OTLPTraceExporter())] : [],
  });
  provider.register();
  return () => provider.shutdown();
}

// Runs something in a span, which notes an error that passes through.
export function inSpan<T>(name: string, work: (traceId: string) => Promise<T>): Promise<T> {
  return tracer.startActiveSpan(name, (span) => ended(span, () => work(span.spanContext().traceId)));
}

export const inSpanOfEachCall: Interceptor = (next) => (request) => {
  const method = `${request.service.typeName}/${request.method.name}`;
  const attributes = { "rpc.system.name": "grpc", "rpc.method": method };
  return tracer.startActiveSpan(method, { kind: SpanKind.CLIENT, attributes }, (span) => {
    propagation.inject(context.active(), request.header, { set: (headers, name, value) => headers.set(name, value) });
    return ended(span, () => next(request));
  });
};

async function ended<T>(span: Span, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    span.setStatus({ code: SpanStatusCode.ERROR, message: error instanceof Error ? error.message : String(error) });
    throw error;
  } finally {
    span.end();
  }
}
