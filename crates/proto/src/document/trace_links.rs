//! Where traces are shown: a template of addresses, and the addresses that are made of it.

use crate::SpanReference;
use crate::parse::trace_id;

/// Longest template, in bytes.
const MAX_TEMPLATE: usize = 2_048;
const TRACE: &str = "{trace_id}";
const SPAN: &str = "{span_id}";

/// A template such as `https://jaeger.example.com/trace/{trace_id}?uiFind={span_id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceLinks(String);

/// An address that was made of a template, and of ids that were looked at: it leads where the template says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceUrl(String);

impl TraceLinks {
    /// What is wrong with it is told in words.
    pub fn parse(template: &str) -> Result<TraceLinks, String> {
        if template.len() > MAX_TEMPLATE {
            return Err(format!("must have at most {MAX_TEMPLATE} bytes"));
        }
        let rest = template.strip_prefix("https://").or(template.strip_prefix("http://"));
        let rest = rest.ok_or("must begin with `http://` or `https://`")?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.is_empty() || host.contains(['{', '@']) {
            return Err("must name a host, without a user or a placeholder in it".into());
        }
        if !template.contains(TRACE) {
            return Err(format!("must hold {TRACE}"));
        }
        match template.replace(TRACE, "").replace(SPAN, "").chars().find(|c| !is_plain(*c)) {
            Some('{' | '}') => Err(format!(
                "may hold the placeholders {TRACE} and {SPAN}; write any other `{{` as %7B and `}}` as %7D"
            )),
            Some(_) => {
                Err("must be written as addresses are: other characters than letters, digits and \
                            `-._~:/?#[]@!$&'()*+,=` as `%` and two digits"
                    .into())
            }
            None => Ok(TraceLinks(template.into())),
        }
    }

    /// The address of a span, unless its ids are none. One that isn't known is left empty; a last parameter for it is left out.
    pub fn url(&self, span: &SpanReference) -> Option<TraceUrl> {
        let id = span.span_id.as_str();
        let is_span = id.is_empty() || (id.len() == 16 && id.bytes().all(is_lower_hex));
        let good = trace_id(&span.trace_id).is_some() && is_span;
        let template = if id.is_empty() { self.without_span() } else { &self.0 };
        good.then(|| TraceUrl(template.replace(TRACE, &span.trace_id).replace(SPAN, id)))
    }

    /// The template without the parameter `span={span_id}` at its end.
    fn without_span(&self) -> &str {
        let without = self.0.strip_suffix(SPAN).and_then(|rest| rest.strip_suffix('='));
        let cut = without.and_then(|rest| {
            let at = rest.rfind(['?', '&'])?;
            rest[at + 1..].bytes().all(|b| b.is_ascii_alphanumeric()).then(|| &rest[..at])
        });
        cut.unwrap_or(&self.0)
    }

    /// Whether each span has an address of its own.
    pub fn tells_spans_apart(&self) -> bool {
        self.0.contains(SPAN)
    }
}

impl TraceUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What stands in an address as it is (RFC 3986 §2.2, §2.3). A semicolon could end a character reference in Markdown.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,=%".contains(c)
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(trace_id: &str, span_id: &str) -> SpanReference {
        SpanReference { trace_id: trace_id.into(), span_id: span_id.into() }
    }

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn an_address_has_the_ids_where_the_template_says() {
        let links = TraceLinks::parse("http://localhost:16686/trace/{trace_id}?uiFind={span_id}");
        let links = links.unwrap();
        let url = |span_id| links.url(&span(ID, span_id)).unwrap().0;
        assert_eq!(
            url("00f067aa0ba902b7"),
            format!("http://localhost:16686/trace/{ID}?uiFind=00f067aa0ba902b7")
        );
        assert_eq!(url(""), format!("http://localhost:16686/trace/{ID}"));
        assert!(links.tells_spans_apart());
        let elsewhere = TraceLinks::parse("https://t.example/?t={trace_id}#s={span_id}").unwrap();
        let url = elsewhere.url(&span(ID, "")).unwrap().0;
        assert_eq!(url, format!("https://t.example/?t={ID}#s="));
    }

    #[test]
    fn what_is_no_id_gets_no_address() {
        let links = TraceLinks::parse("https://t.example/{trace_id}").unwrap();
        assert!(!links.tells_spans_apart());
        for (trace_id, span_id) in
            [("", ""), ("x\" onclick=", ""), (ID, "../"), (ID, "00F067AA0BA902B7"), (&ID[1..], "")]
        {
            assert_eq!(links.url(&span(trace_id, span_id)), None, "{trace_id} {span_id}");
        }
    }

    #[test]
    fn a_template_that_leads_elsewhere_or_nowhere_is_refused() {
        for (bad, why) in [
            ("", "must begin with"),
            ("javascript:alert({trace_id})", "must begin with"),
            ("//t.example/{trace_id}", "must begin with"),
            ("https:///{trace_id}", "must name a host"),
            ("https://{trace_id}.example/", "must name a host"),
            ("https://bank.example@t.example/{trace_id}", "must name a host"),
            ("https://t.example/", "must hold {trace_id}"),
            ("https://t.example/{trace_id}/{traceid}", "may hold the placeholders"),
            ("https://t.example/{trace_id}?a={\"b\":1}", "may hold the placeholders"),
            ("https://t.example/{trace_id}?a=\"b", "must be written as addresses are"),
            ("https://t.example/{trace_id}\u{1b}[31m", "must be written as addresses are"),
            ("https://t.example/{trace_id}>", "must be written as addresses are"),
            ("https://t.example/{trace_id} x", "must be written as addresses are"),
            ("https://t.example/{trace_id}?a=&copy;", "must be written as addresses are"),
        ] {
            let refused = TraceLinks::parse(bad).unwrap_err();
            assert!(refused.starts_with(why), "{bad}: {refused}");
        }
        let long = format!("https://t.example/{{trace_id}}{}", "x".repeat(MAX_TEMPLATE));
        assert!(TraceLinks::parse(&long).unwrap_err().contains("at most"));
    }
}
