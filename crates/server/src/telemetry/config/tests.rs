//! What variables mean, and what is said of those that can't be followed.

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
    Settings::from(|name| find(name).map(|(_, value)| value.to_string()))
}

const EVERYWHERE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

#[test]
fn a_signal_is_exported_only_where_an_endpoint_or_its_exporter_is_named() {
    let none = ("", "");
    for (first, second, expected) in [
        (none, none, (false, false, false)),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", " "), none, (false, false, false)),
        (EVERYWHERE, none, (true, true, true)),
        (EVERYWHERE, ("OTEL_TRACES_EXPORTER", "none"), (false, true, true)),
        (EVERYWHERE, ("OTEL_LOGS_EXPORTER", "NONE"), (true, true, false)),
        (EVERYWHERE, ("OTEL_METRICS_EXPORTER", "prometheus"), (true, false, true)),
        (EVERYWHERE, ("OTEL_SDK_DISABLED", "true"), (false, false, false)),
        (EVERYWHERE, ("OTEL_SDK_DISABLED", "false"), (true, true, true)),
        (("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:1"), none, (true, false, false)),
        (("OTEL_TRACES_EXPORTER", "otlp"), none, (true, false, false)),
        (("OTEL_METRICS_EXPORTER", "otlp, prometheus"), none, (false, true, false)),
    ] {
        let settings = read(&[first, second]).unwrap();
        let found =
            (settings.traces.is_some(), settings.metrics.otlp.is_some(), settings.logs.is_some());
        assert_eq!(found, expected, "{first:?} {second:?}");
    }
}

#[test]
fn what_one_signal_says_goes_before_what_is_said_for_all() {
    let settings = read(&[
        EVERYWHERE,
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, X-Other=2"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=3"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "2000"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "logs:4317"),
        ("OTEL_EXPORTER_OTLP_LOGS_INSECURE", "true"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ])
    .unwrap();
    let (traces, logs) = (settings.traces.unwrap(), settings.logs.unwrap());
    assert_eq!(traces.endpoint, "http://collector:4317/");
    assert_eq!(logs.endpoint, "http://logs:4317/");
    assert_eq!(traces.metadata().get("api-key").unwrap(), "3");
    assert_eq!(logs.metadata().get("api-key").unwrap(), "a b");
    assert_eq!(logs.metadata().get("x-other").unwrap(), "2");
    assert_eq!((traces.timeout.as_millis(), logs.timeout.as_millis()), (1_000, 2_000));
    assert!(traces.gzip);
    assert!(!format!("{logs:?}").contains("a b"), "headers are secret");
}

#[test]
fn an_endpoint_has_a_port_that_is_one() {
    let endpoint = |text| read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", text)]);
    for good in ["http://[::1]:4317", "http://[::1]", "https://collector", "http://10.0.0.1:65535"]
    {
        assert!(endpoint(good).is_ok(), "{good}");
    }
    for bad in ["http://localhost:4317x", "http://127.0.0.1:99999", "http://127.0.0.1:", "c:0"] {
        assert!(endpoint(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_endpoint_without_a_scheme_is_encrypted_unless_it_is_said_to_be_insecure() {
    let endpoint =
        |variables: &[(&str, &str)]| read(variables).unwrap().traces.unwrap().endpoint.to_string();
    let bare = ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
    assert_eq!(endpoint(&[bare]), "https://collector:4317/");
    assert_eq!(endpoint(&[bare, insecure]), "http://collector:4317/");
    assert_eq!(endpoint(&[("OTEL_TRACES_EXPORTER", "otlp")]), "http://localhost:4317/");
}

#[test]
fn samplers_are_those_of_the_specification() {
    for (name, argument, parent_based, ratio) in [
        ("", "", true, 1.0),
        ("always_on", "", false, 1.0),
        ("always_off", "0.5", false, 0.0),
        ("traceidratio", "0.5", false, 0.5),
        ("traceidratio", "", false, 1.0),
        ("parentbased_always_on", "", true, 1.0),
        ("parentbased_always_off", "", true, 0.0),
        ("ParentBased_TraceIdRatio", "0.01", true, 0.01),
    ] {
        let variables = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        let expected = Sampling { parent_based, ratio };
        assert_eq!(read(&variables).unwrap().sampling, expected, "{name} {argument}");
    }
}

#[test]
fn the_general_limit_counts_where_no_other_is_given() {
    let limits = read(&[
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "10"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "3"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "99"),
    ])
    .unwrap()
    .limits;
    assert_eq!((limits.attributes, limits.event_attributes, limits.link_attributes), (10, 10, 3));
    assert_eq!((limits.links, limits.value_length), (128, Some(99)));
}

#[test]
fn the_resource_is_named_by_the_service_name_first() {
    let of = |variables: &[(&str, &str)]| {
        let mut all = read(variables).unwrap().resource;
        all.sort();
        all.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,region=e%2Cu");
    assert_eq!(of(&[]), "service.name=keyledger");
    assert_eq!(of(&[attributes]), "region=e,u service.name=a");
    assert_eq!(of(&[attributes, ("OTEL_SERVICE_NAME", "b")]), "region=e,u service.name=b");
}

#[test]
fn callers_context_is_read_unless_the_propagators_say_otherwise() {
    let of = |text| read(&[("OTEL_PROPAGATORS", text)]).unwrap().propagators;
    for (text, trace_context, baggage) in [
        ("", true, true),
        ("tracecontext", true, false),
        ("baggage,tracecontext", true, true),
        ("baggage", false, true),
        ("none", false, false),
    ] {
        assert_eq!(of(text), Propagators { trace_context, baggage }, "{text}");
    }
}

#[test]
fn what_is_not_supported_is_an_error_that_names_the_variable_and_what_is_allowed() {
    let errors: Vec<String> = [
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_PROPAGATORS", "none,baggage"),
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_METRICS_EXPORTER", "console"),
        ("OTEL_LOGS_EXPORTER", "otlp,none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://user:word@host"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://host:4318/v1/logs"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "unix:///run/collector"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hidden"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key.pem"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1000000"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a"),
        ("OTEL_CONFIG_FILE", "otel.yaml"),
    ]
    .into_iter()
    .map(|variable| read(&[EVERYWHERE, variable]).unwrap_err().to_string())
    .collect();
    assert_eq!(
        errors,
        [
            "OTEL_PROPAGATORS is `b3`: Keyledger supports tracecontext, baggage, none",
            "OTEL_PROPAGATORS is `none,baggage`: `none` must stand alone",
            "OTEL_SDK_DISABLED is `yes`: Keyledger supports true, false",
            "OTEL_TRACES_EXPORTER is `zipkin`: Keyledger supports otlp, none",
            "OTEL_METRICS_EXPORTER is `console`: Keyledger supports otlp, prometheus, none",
            "OTEL_LOGS_EXPORTER is `otlp,none`: `none` must stand alone",
            "OTEL_EXPORTER_OTLP_PROTOCOL is `http/protobuf`: Keyledger supports grpc",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION is `zstd`: Keyledger supports gzip, none",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: a name and password belong into OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: it has a path or query, which OTLP over gRPC has no use for: give scheme, host and port",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: it must be a URL such as http://localhost:4317",
            "OTEL_EXPORTER_OTLP_HEADERS: it must be `name=value,…`, values percent-encoded: at most 64 headers in 8192 bytes",
            "OTEL_EXPORTER_OTLP_TIMEOUT is `10s`: it must be a whole number from 1 to 86400000",
            "OTEL_EXPORTER_OTLP_CLIENT_KEY is `key.pem`: certificate and key of the client must be given together",
            "OTEL_TRACES_SAMPLER is `xray`: Keyledger supports always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio",
            "OTEL_BSP_MAX_QUEUE_SIZE is `1000000`: it must be a whole number from 1 to 65536",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE is `4096`: it must be a whole number from 1 to 2048",
            "OTEL_SPAN_LINK_COUNT_LIMIT is `-1`: it must be a whole number from 0 to 1024",
            "OTEL_RESOURCE_ATTRIBUTES is `a`: it must be `name=value,…`, values percent-encoded",
            "OTEL_CONFIG_FILE is `otel.yaml`: Keyledger is configured by variables alone",
        ]
    );
}

#[test]
fn a_server_that_exports_nothing_starts_whatever_else_is_said_of_exporting() {
    let settings = read(&[("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "zipkin")]);
    assert!(settings.unwrap().traces.is_none());
}
