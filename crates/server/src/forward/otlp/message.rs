//! What is sent: an `ExportLogsServiceRequest` whose records were encoded one by one when they were read.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use crate::names;

/// As opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    /// Each is an encoded `LogRecord`: a message in a message is its bytes, with their length before them.
    #[prost(bytes = "vec", repeated, tag = "2")]
    log_records: Vec<Vec<u8>>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

/// Log records of one resource and scope.
pub(super) fn export(resource: &Resource, log_records: Vec<Vec<u8>>) -> Export {
    let scope = InstrumentationScope {
        name: names::OWN_SCOPE.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let scope_logs =
        ScopeLogs { scope: Some(scope), log_records, schema_url: names::SCHEMA_URL.into() };
    let resource_logs = ResourceLogs {
        resource: Some(resource.clone()),
        scope_logs: vec![scope_logs],
        schema_url: names::SCHEMA_URL.into(),
    };
    Export { resource_logs: vec![resource_logs] }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::LogRecord;

    use super::*;

    #[test]
    fn what_is_sent_is_the_message_that_collectors_read() {
        let record = |name: &str| LogRecord { event_name: name.into(), ..LogRecord::default() };
        let records = [record("first"), record("second")];
        let encoded = records.iter().map(Message::encode_to_vec).collect();
        let bytes = export(&Resource::default(), encoded).encode_to_vec();
        let read = ExportLogsServiceRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(read.resource_logs[0].scope_logs[0].log_records, records);
        assert_eq!(read.resource_logs[0].scope_logs[0].schema_url, names::SCHEMA_URL);
        assert_eq!(read.encode_to_vec(), bytes);
    }
}
