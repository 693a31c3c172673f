"""A service that knows nothing of Keyledger: it writes an audit log by the OpenTelemetry API.

OTEL_EXPORTER_OTLP_LOGS_ENDPOINT names the port of a collector that sends such records into the ledger
(deploy/otel-collector.yaml: http://127.0.0.1:4327). It exits with 1 if the record was not taken.
"""

import sys
import uuid

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider


class Noting(OTLPLogExporter):
    """Remembers whether everything was taken: an audit log must not be lost unseen."""

    all_taken = True

    def export(self, batch):
        result = super().export(batch)
        self.all_taken = self.all_taken and result == LogRecordExportResult.SUCCESS
        return result


def main() -> int:
    exporter = Noting(insecure=True)
    provider = LoggerProvider(resource=Resource.create({"service.name": "payroll"}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger = provider.get_logger("payroll")
    tracer = TracerProvider().get_tracer("payroll")
    # What is logged in a span carries its ids.
    with tracer.start_as_current_span("delete a payslip") as span:
        print("trace", format(span.get_span_context().trace_id, "032x"))
        logger.emit(
            LogRecord(
                event_name="payslip.deleted",
                context=trace.set_span_in_context(span),
                severity_number=SeverityNumber.WARN,
                body="a payslip was deleted",
                attributes={
                    "user.id": "alice@example.com",
                    "keyledger.category": "services/payroll",
                    "keyledger.resource": "payslips/2026-11",
                    "keyledger.outcome": "success",
                    "log.record.uid": str(uuid.uuid4()),
                },
            )
        )
    provider.shutdown()
    print("taken" if exporter.all_taken else "not taken")
    return 0 if exporter.all_taken else 1


if __name__ == "__main__":
    sys.exit(main())
