// A key's life from Go, by nothing but Keyledger's proto files: it is created, checked, refused and revoked, an event is
// recorded, and the ledger is asked what it holds of this trace.
//
// KEYLEDGER_ENDPOINT and KEYLEDGER_TOKEN say where Keyledger is and who calls; spans are exported if
// OTEL_EXPORTER_OTLP_ENDPOINT is set, and the ids of the trace are sent to Keyledger in any case.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"net/url"
	"os"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	entry "example.com/keyledger-example/gen/keyledger/entry/v1"
	keyledger "example.com/keyledger-example/gen/keyledger/v1"
)

const limit = 30 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	stopTracing, err := startTracing(ctx)
	if err != nil {
		log.Fatal(err)
	}
	err = connectAndRun(ctx)
	if failed := stopTracing(ctx); failed != nil {
		log.Print("spans were not exported: ", failed)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func connectAndRun(ctx context.Context) error {
	connection, err := connect(os.Getenv("KEYLEDGER_ENDPOINT"))
	if err != nil {
		return err
	}
	defer connection.Close()
	// Every call carries the token of the key that calls.
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("KEYLEDGER_TOKEN"))
	ctx, span := otel.Tracer("keyledger-example").Start(ctx, "life of a key")
	defer span.End()
	traceID := span.SpanContext().TraceID().String()
	fmt.Println("trace", traceID)
	return lifeOfAKey(ctx, keyledger.NewKeyServiceClient(connection), keyledger.NewAuditServiceClient(connection), traceID)
}

// connect takes a URL: https:// for TLS, http:// for plaintext on this machine.
func connect(endpoint string) (*grpc.ClientConn, error) {
	parsed, err := url.Parse(endpoint)
	if err != nil || parsed.Host == "" {
		return nil, fmt.Errorf("KEYLEDGER_ENDPOINT should be a URL such as http://127.0.0.1:7420")
	}
	transport := credentials.NewTLS(nil)
	if parsed.Scheme == "http" {
		transport = insecure.NewCredentials()
	}
	return grpc.NewClient(parsed.Host,
		grpc.WithTransportCredentials(transport),
		// Makes a span of each call, and sends its ids in `traceparent`.
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()))
}

func lifeOfAKey(ctx context.Context, keys keyledger.KeyServiceClient, audit keyledger.AuditServiceClient, traceID string) error {
	created, err := keys.CreateKey(ctx, &keyledger.CreateKeyRequest{
		Owner:   &keyledger.Owner{Owner: &keyledger.Owner_Service{Service: "example/go"}},
		Purpose: "read error logs at night",
		Grants:  []*entry.Grant{{Permissions: []string{"audit.read"}, Resource: "logs/error"}},
		Expiry:  &keyledger.CreateKeyRequest_Ttl{Ttl: durationpb.New(time.Hour)},
		Reason:  "the Go example",
	})
	if err != nil {
		return fmt.Errorf("CreateKey: %w", err)
	}
	keyID := created.GetKey().GetKeyId()
	fmt.Println("created", keyID)

	// What a service does with a token that a client presents. The first may, the second may not.
	for _, resource := range []string{"logs/error", "logs/payroll"} {
		if err := verify(ctx, keys, created.GetToken(), resource); err != nil {
			return err
		}
	}
	if err := record(ctx, audit); err != nil {
		return err
	}

	revoked, err := keys.RevokeKey(ctx, &keyledger.RevokeKeyRequest{
		KeyId:  keyID,
		Kind:   entry.RevocationKind_REVOCATION_KIND_UNUSED,
		Reason: "the example is over",
	})
	if err != nil {
		return fmt.Errorf("RevokeKey: %w", err)
	}
	fmt.Println("revoked at", revoked.GetPosition())
	if err := verify(ctx, keys, created.GetToken(), "logs/error"); err != nil {
		return err
	}
	return listTrace(ctx, audit, traceID)
}

// verify asks for a verdict. A refusal is an answer, not an error.
func verify(ctx context.Context, keys keyledger.KeyServiceClient, token, resource string) error {
	verdict, err := keys.VerifyKey(ctx, &keyledger.VerifyKeyRequest{
		Token:      token,
		Permission: "audit.read",
		Resource:   resource,
		Client:     &keyledger.Client{Address: "203.0.113.7", UserAgent: "keyledger-example"},
		Reason:     "nightly export",
	})
	if err != nil {
		return fmt.Errorf("VerifyKey: %w", err)
	}
	fmt.Println("verified", resource, verdict.GetDecision(), verdict.GetReason())
	return nil
}

// record tells the ledger what happened in this service. A repeat with the same event id is recorded once.
func record(ctx context.Context, audit keyledger.AuditServiceClient) error {
	reply, err := audit.RecordEvents(ctx, &keyledger.RecordEventsRequest{Events: []*keyledger.NewEvent{{
		EventId:  rand.Text(),
		Actor:    &keyledger.Actor{Actor: &keyledger.Actor_Service{Service: "example/go"}},
		Action:   "report.export",
		Resource: "reports/2026-11",
		Outcome:  entry.Outcome_OUTCOME_SUCCESS,
		Category: "example/reports",
	}}})
	if err != nil {
		return fmt.Errorf("RecordEvents: %w", err)
	}
	outcome := reply.GetOutcomes()[0]
	if refusal := outcome.GetRefusal(); refusal != nil {
		return fmt.Errorf("RecordEvents: %s", refusal.GetMessage())
	}
	fmt.Println("recorded at", outcome.GetPosition())
	return nil
}

// listTrace prints what the ledger holds of this trace, oldest first.
func listTrace(ctx context.Context, audit keyledger.AuditServiceClient, traceID string) error {
	request := &keyledger.ListEventsRequest{
		Filter: &keyledger.EventFilter{TraceId: traceID},
		Order:  keyledger.EventOrder_EVENT_ORDER_OLDEST_FIRST,
	}
	for {
		reply, err := audit.ListEvents(ctx, request)
		if err != nil {
			return fmt.Errorf("ListEvents: %w", err)
		}
		for _, event := range reply.GetEvents() {
			fmt.Println("listed", event.GetPosition(), event.GetType(), event.GetKeyId())
		}
		if reply.GetNextPageToken() == "" {
			return nil
		}
		request.PageToken = reply.GetNextPageToken()
	}
}
