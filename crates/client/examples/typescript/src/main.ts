// A key's life from TypeScript, by nothing but Keyledger's proto files: it is created, checked, refused and revoked, an event
// is recorded, and the ledger is asked what it holds of this trace.
//
// KEYLEDGER_ENDPOINT and KEYLEDGER_TOKEN say where Keyledger is and who calls; spans are exported if
// OTEL_EXPORTER_OTLP_ENDPOINT is set, and the ids of the trace are sent to Keyledger in any case.

import { randomUUID } from "node:crypto";
import { createClient, type Client } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Decision, DecisionReason, Outcome, RevocationKind } from "./gen/keyledger/entry/v1/event_pb.js";
import { AuditService, EventOrder } from "./gen/keyledger/v1/audit_service_pb.js";
import { KeyService } from "./gen/keyledger/v1/key_service_pb.js";
import { inSpan, inSpanOfEachCall, startTracing } from "./tracing.js";
import { withToken } from "./token.js";

type Keys = Client<typeof KeyService>;
type Audit = Client<typeof AuditService>;

const LIMIT_MS = 30_000;
const SERVICE = "example/typescript";

async function main(): Promise<void> {
  const stopTracing = startTracing("keyledger-example-typescript");
  const transport = createGrpcTransport({
    // https:// for TLS, http:// for plaintext on this machine.
    baseUrl: required("KEYLEDGER_ENDPOINT"),
    defaultTimeoutMs: LIMIT_MS,
    interceptors: [inSpanOfEachCall, withToken(required("KEYLEDGER_TOKEN"))],
  });
  try {
    await inSpan("life of a key", async (traceId) => {
      console.log("trace", traceId);
      await lifeOfAKey(createClient(KeyService, transport), createClient(AuditService, transport), traceId);
    });
  } finally {
    await stopTracing();
  }
}

async function lifeOfAKey(keys: Keys, audit: Audit, traceId: string): Promise<void> {
  const created = await keys.createKey({
    owner: { owner: { case: "service", value: SERVICE } },
    purpose: "read error logs at night",
    grants: [{ permissions: ["audit.read"], resource: "logs/error" }],
    expiry: { case: "ttl", value: { seconds: 3600n } },
    reason: "the TypeScript example",
  });
  const keyId = created.key?.keyId;
  console.log("created", keyId);

  // What a service does with a token that a client presents. The first may, the second may not.
  await verify(keys, created.token, "logs/error");
  await verify(keys, created.token, "logs/payroll");
  await record(audit);

  const revoked = await keys.revokeKey({
    keyId,
    kind: RevocationKind.UNUSED,
    reason: "the example is over",
  });
  console.log("revoked at", `${revoked.position}`);
  await verify(keys, created.token, "logs/error");
  await listTrace(audit, traceId);
}

// Asks for a verdict. A refusal is an answer, not an error.
async function verify(keys: Keys, token: string, resource: string): Promise<void> {
  const verdict = await keys.verifyKey({
    token,
    permission: "audit.read",
    resource,
    client: { address: "203.0.113.7", userAgent: "keyledger-example" },
    reason: "nightly export",
  });
  console.log("verified", resource, `DECISION_${Decision[verdict.decision]}`, `DECISION_REASON_${DecisionReason[verdict.reason]}`);
}

// Tells the ledger what happened in this service. A repeat with the same event id is recorded once.
async function record(audit: Audit): Promise<void> {
  const reply = await audit.recordEvents({
    events: [
      {
        eventId: randomUUID(),
        actor: { actor: { case: "service", value: SERVICE } },
        action: "report.export",
        resource: "reports/2026-11",
        outcome: Outcome.SUCCESS,
        category: "example/reports",
      },
    ],
  });
  const outcome = reply.outcomes[0];
  if (outcome?.refusal !== undefined) {
    throw new Error(`RecordEvents: ${outcome.refusal.message}`);
  }
  console.log("recorded at", `${outcome?.position}`);
}

// Prints what the ledger holds of this trace, oldest first.
async function listTrace(audit: Audit, traceId: string): Promise<void> {
  let pageToken = "";
  do {
    const reply = await audit.listEvents({ filter: { traceId }, order: EventOrder.OLDEST_FIRST, pageToken });
    for (const event of reply.events) {
      console.log("listed", `${event.position}`, event.type, event.keyId);
    }
    pageToken = reply.nextPageToken;
  } while (pageToken !== "");
}

function required(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === "") {
    throw new Error(`${name} is not set`);
  }
  return value;
}

await main();
