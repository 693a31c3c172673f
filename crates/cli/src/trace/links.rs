//! Links to where traces are shown.

use keyledger_proto::SpanReference;
use keyledger_proto::document::trace_links::TraceLinks;

pub(super) const EXAMPLE: &str = "\
Example: keyledger trace 0af7651916cd43dd8448eb211c80319c --trace-url-template 'http://localhost:16686/trace/{trace_id}'

With --help it tells the templates for Jaeger, Tempo and Grafana.";

/// In the pages of Grafana, what is shown stands in the address as JSON, with `{`, `}` and `\"` as %7B, %7D and %22.
pub(super) const TEMPLATES: &str = "\
Templates (between single quotes in a shell; put your own host, and the uid of your data source for DATASOURCE_UID):

  Jaeger:
    http://localhost:16686/trace/{trace_id}?uiFind={span_id}

  Tempo, which Grafana shows (Explore, Grafana 10 and later):
    https://grafana.example.com/explore?schemaVersion=1&panes=%7B%22t%22:%7B%22datasource%22:%22DATASOURCE_UID%22,%22queries%22:%5B%7B%22refId%22:%22A%22,%22datasource%22:%7B%22type%22:%22tempo%22,%22uid%22:%22DATASOURCE_UID%22%7D,%22queryType%22:%22traceql%22,%22query%22:%22{trace_id}%22%7D%5D,%22range%22:%7B%22from%22:%22now-1h%22,%22to%22:%22now%22%7D,%22panelsState%22:%7B%22trace%22:%7B%22spanId%22:%22{span_id}%22%7D%7D%7D%7D

  Grafana with Jaeger as its data source:
    https://grafana.example.com/explore?schemaVersion=1&panes=%7B%22t%22:%7B%22datasource%22:%22DATASOURCE_UID%22,%22queries%22:%5B%7B%22refId%22:%22A%22,%22datasource%22:%7B%22type%22:%22jaeger%22,%22uid%22:%22DATASOURCE_UID%22%7D,%22query%22:%22{trace_id}%22%7D%5D,%22range%22:%7B%22from%22:%22now-1h%22,%22to%22:%22now%22%7D,%22panelsState%22:%7B%22trace%22:%7B%22spanId%22:%22{span_id}%22%7D%7D%7D%7D

Examples:
  keyledger trace 0af7651916cd43dd8448eb211c80319c --trace-url-template 'http://localhost:16686/trace/{trace_id}'
  keyledger trace 0198c5a0-0000-8000-8000-000000000001 -o json";

/// Where traces are shown.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TraceUrl {
    /// Address at which a trace is shown, to print links: with `{trace_id}`, and with `{span_id}` where a span has an address of
    /// its own. `keyledger trace --help` tells the forms for Jaeger, Tempo and Grafana.
    #[arg(
        long = "trace-url-template",
        env = "KEYLEDGER_TRACE_URL_TEMPLATE",
        value_name = "URL",
        value_parser = TraceLinks::parse
    )]
    pub(crate) links: Option<TraceLinks>,
}

/// The address of a span; empty if none is known.
pub(super) fn url(links: Option<&TraceLinks>, trace_id: &str, span_id: &str) -> String {
    let span = SpanReference { trace_id: trace_id.into(), span_id: span_id.into() };
    let url = links.and_then(|links| links.url(&span));
    url.map(|url| url.as_str().to_string()).unwrap_or_default()
}

/// Whether each span has a link of its own.
pub(super) fn of_spans(links: Option<&TraceLinks>) -> bool {
    links.is_some_and(TraceLinks::tells_spans_apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `%` and two digits stand for.
    fn decoded(text: &str) -> String {
        let mut parts = text.split('%');
        let mut whole = String::from(parts.next().unwrap());
        for part in parts {
            whole.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
            whole.push_str(&part[2..]);
        }
        whole
    }

    #[test]
    fn the_templates_of_the_help_are_good_and_those_of_grafana_hold_json() {
        let templates: Vec<&str> =
            TEMPLATES.lines().map(str::trim).filter(|line| line.starts_with("http")).collect();
        assert_eq!(templates.len(), 3);
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7");
        for template in templates {
            let links = TraceLinks::parse(template).unwrap();
            let url = url(Some(&links), trace, span);
            assert!(url.contains(trace) && url.contains(span), "{url}");
            let Some((_, panes)) = url.split_once("&panes=") else { continue };
            let panes: serde_json::Value = serde_json::from_str(&decoded(panes)).unwrap();
            assert_eq!(panes["t"]["queries"][0]["query"], trace);
            assert_eq!(panes["t"]["queries"][0]["datasource"]["uid"], panes["t"]["datasource"]);
            assert_eq!(panes["t"]["panelsState"]["trace"]["spanId"], span);
        }
    }
}
