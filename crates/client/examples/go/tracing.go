package main

import (
	"context"
	"os"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
)

// startTracing makes spans, and exports them if there is somewhere to send them. The exporter reads the other
// OTEL_EXPORTER_OTLP_* variables by itself. What it returns sends what is left.
func startTracing(ctx context.Context) (func(context.Context) error, error) {
	options := []trace.TracerProviderOption{
		trace.WithResource(resource.NewWithAttributes(semconv.SchemaURL, semconv.ServiceName("keyledger-example-go"))),
	}
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		exporter, err := otlptracegrpc.New(ctx)
		if err != nil {
			return nil, err
		}
		options = append(options, trace.WithBatcher(exporter))
	}
	provider := trace.NewTracerProvider(options...)
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	return provider.Shutdown, nil
}
