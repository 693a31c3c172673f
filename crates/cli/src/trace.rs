//! `keyledger trace`: from a trace to its keys, and from a key to its traces.

mod life;
pub(crate) mod links;
mod timeline;

use keyledger_proto::document::trace_links::TraceLinks;
use keyledger_proto::parse::trace_id;
use keyledger_proto::{GetKeyRequest, GetTraceRequest, GetTraceResponse, TraceEvent, TraceKey};
use prost_types::Timestamp;
use uuid::Uuid;

use crate::Ending;
use crate::connection::{Connection, DataDir, Session};
use crate::failure::Failure;
use crate::json::{self, Output};
use crate::screen::Screen;
use crate::token::Usual;
use links::TraceUrl;

/// Events of a page, and most pages: what is drawn is held in memory.
const PAGE: i32 = 1_000;
const PAGES: usize = 10;

/// Draw what happened in a trace, and with which keys; or in which traces a key was changed and used.
///
/// A trace is drawn as a timeline: when, how long after its first event, where in the ledger, what, with which key, why allowed
/// or denied, and in which span. The column AT is the position of the entry, and for a use its index in the page (`17.0`). What is
/// signed of a call is Keyledger's own span if that is sampled, else the span that the caller sent and Keyledger continued; of other
/// calls no trace is known. It is told as far as the token may read the log. With -o json nothing is drawn, and no links are printed.
#[derive(clap::Args)]
#[command(after_help = links::EXAMPLE, after_long_help = links::TEMPLATES)]
pub(crate) struct Trace {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    data_dir: DataDir,
    /// A trace id (W3C: 32 lower-case hexadecimal digits), or a key id (a UUID with its hyphens).
    #[arg(value_name = "TRACE_ID|KEY_ID", value_parser = parse_asked)]
    asked: Asked,
    #[command(flatten)]
    url: TraceUrl,
    #[command(flatten)]
    output: Output,
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Trace(String),
    Key(Uuid),
}

fn parse_asked(text: &str) -> Result<Asked, String> {
    let form = "must be a trace id (32 lower-case hexadecimal digits, not all 0) or a key id (a UUID with its hyphens)";
    if trace_id(text).is_some() {
        return Ok(Asked::Trace(text.into()));
    }
    let is_key = text.contains('-');
    text.parse().ok().filter(|_| is_key).map(Asked::Key).ok_or_else(|| form.into())
}

impl Trace {
    pub(crate) async fn run(self) -> anyhow::Result<Ending> {
        let screen = Screen::stdout();
        let session = self.connection.open(&self.data_dir, Usual::Admin).await?;
        let links = self.url.links.as_ref();
        match &self.asked {
            Asked::Trace(id) => self.draw_trace(&session, &screen, id, links).await?,
            Asked::Key(id) => self.draw_key(&session, &screen, id, links).await?,
        }
        Ok(Ending::Good)
    }

    async fn draw_trace(
        &self,
        session: &Session,
        screen: &Screen,
        id: &str,
        links: Option<&TraceLinks>,
    ) -> anyhow::Result<()> {
        let mut whole = Whole::default();
        for number in 0..PAGES {
            let page_token = whole.next.clone();
            let request = GetTraceRequest { trace_id: id.into(), page_size: PAGE, page_token };
            let reply = session.audit().get_trace(session.call(request)).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            if self.output.is_json() {
                let all = number > 0 || !reply.next_page_token.is_empty();
                json::print_page(screen, "GetTraceResponse", &reply, all)?;
            }
            if !reply.next_page_token.is_empty() && reply.next_page_token == whole.next {
                return Err(Failure::new("the server gave the same page twice").into());
            }
            whole.add(reply);
            if whole.next.is_empty() {
                break;
            }
        }
        if !self.output.is_json() {
            timeline::print(screen, id, &whole.events, &whole.keys, links)?;
        }
        if !whole.next.is_empty() {
            eprintln!(
                "There is more: `keyledger audit list --trace-id {id} --oldest-first --all` gives all."
            );
        }
        Ok(())
    }

    async fn draw_key(
        &self,
        session: &Session,
        screen: &Screen,
        id: &Uuid,
        links: Option<&TraceLinks>,
    ) -> anyhow::Result<()> {
        let request = GetKeyRequest { key_id: id.to_string(), as_of: None, include_traces: true };
        let reply = session.keys().get_key(session.call(request)).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "GetKeyResponse", &reply);
        }
        let (key, traces) = (reply.key.unwrap_or_default(), reply.traces.unwrap_or_default());
        Ok(life::print(screen, &key, &traces, links)?)
    }
}

/// All pages of a trace as one.
#[derive(Default)]
struct Whole {
    events: Vec<TraceEvent>,
    keys: Vec<TraceKey>,
    next: String,
}

impl Whole {
    fn add(&mut self, page: GetTraceResponse) {
        self.events.extend(page.events);
        for key in page.keys {
            match self.keys.iter_mut().find(|known| known.key_id == key.key_id) {
                None => self.keys.push(key),
                Some(known) => {
                    known.last_time = key.last_time;
                    known.events = known.events.saturating_add(key.events);
                    known.key = known.key.take().or(key.key);
                }
            }
        }
        self.next = page.next_page_token;
    }
}

/// Microseconds since 1970.
fn micros(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |t| {
        t.seconds.saturating_mul(1_000_000).saturating_add(i64::from(t.nanos) / 1_000)
    })
}

/// `+1.002000 s`
fn show_offset(micros: i64) -> String {
    let sign = if micros < 0 { '-' } else { '+' };
    let size = micros.unsigned_abs();
    format!("{sign}{}.{:06} s", size / 1_000_000, size % 1_000_000)
}

/// Position, and for a use its index: `17.0`.
fn address(position: Option<u64>, index: Option<u32>) -> String {
    let position = position.map(|p| p.to_string()).unwrap_or_default();
    index.map_or(position.clone(), |index| format!("{position}.{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_about_is_a_trace_or_a_key() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(parse_asked(trace), Ok(Asked::Trace(trace.into())));
        let key = "0198c5a0-0000-8000-8000-000000000001";
        assert_eq!(parse_asked(key), Ok(Asked::Key(key.parse().unwrap())));
        for bad in [
            "",
            "0AF7651916CD43DD8448EB211C80319C",
            "00000000000000000000000000000000",
            "0af7651916cd43dd8448eb211c80319",
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            "x",
        ] {
            assert!(parse_asked(bad).unwrap_err().contains("lower-case"), "{bad}");
        }
    }

    #[test]
    fn an_offset_is_told_to_the_microsecond() {
        assert_eq!(show_offset(0), "+0.000000 s");
        assert_eq!(show_offset(61_002_003), "+61.002003 s");
        assert_eq!(show_offset(-5), "-0.000005 s");
    }

    #[test]
    fn pages_of_a_trace_become_one() {
        let key = |id: &str, seconds, events| TraceKey {
            key_id: id.into(),
            first_time: Some(Timestamp { seconds, nanos: 0 }),
            last_time: Some(Timestamp { seconds, nanos: 0 }),
            events,
            ..TraceKey::default()
        };
        let page = |keys, next: &str| GetTraceResponse {
            events: vec![TraceEvent::default()],
            keys,
            next_page_token: next.into(),
        };
        let mut whole = Whole::default();
        whole.add(page(vec![key("a", 1, 1)], "x"));
        whole.add(page(vec![key("b", 2, 1), key("a", 3, 2)], ""));
        assert_eq!((whole.events.len(), whole.next.as_str()), (2, ""));
        let told: Vec<_> = whole.keys.iter().map(|k| (k.key_id.as_str(), k.events)).collect();
        assert_eq!(told, [("a", 3), ("b", 1)]);
        let seconds = [&whole.keys[0].first_time, &whole.keys[0].last_time];
        assert_eq!(seconds.map(|t| t.unwrap().seconds), [1, 3]);
    }
}
