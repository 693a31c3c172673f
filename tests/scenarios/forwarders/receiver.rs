//! What forwarders send to in these scenarios: little servers that read HTTP and syslog by themselves, with and without TLS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

/// A test that hangs must fail: nothing that is waited for takes nearly this long.
const HANGS: Duration = Duration::from_secs(60);

/// Most requests or messages that wait until a scenario looks at them.
const MOST_WAITING: usize = 4_096;

/// The secret that requests are signed with, and what it stands for.
pub(super) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How a receiver answers.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A status line, and more lines of the head.
    Status(&'static str, String),
    /// Never.
    Nothing,
}

impl Answer {
    pub(super) fn good() -> Answer {
        Answer::Status("204 No Content", String::new())
    }

    pub(super) fn status(line: &'static str) -> Answer {
        Answer::Status(line, String::new())
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(super) line: String,
    headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name}: {:?}", self.headers))
    }

    /// The events in it. Panics if they are not signed as the specification says.
    pub(crate) fn events(&self) -> Vec<Value> {
        let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let (id, timestamp) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        let signed = hmac::sign(&key, format!("{id}.{timestamp}.{}", self.body).as_bytes());
        assert_eq!(self.header("webhook-signature"), format!("v1,{}", STANDARD.encode(signed)));
        assert_eq!(self.header("content-type"), "application/json");
        let events: Value = serde_json::from_str(&self.body).expect("the body is JSON");
        let events = events.as_array().expect("the body is an array").clone();
        assert!((1..=100).contains(&events.len()), "{} events at once", events.len());
        events
    }
}

/// A server for webhooks.
pub(crate) struct Receiver {
    pub(super) port: u16,
    requests: mpsc::Receiver<Got>,
    answer: watch::Sender<Answer>,
}

impl Receiver {
    pub(crate) async fn new(encrypted: bool) -> Receiver {
        let (answer, answers) = watch::channel(Answer::good());
        let (sender, requests) = mpsc::channel(MOST_WAITING);
        let port = listen(encrypted, move |stream| take(stream, sender.clone(), answers.clone()));
        Receiver { port: port.await, requests, answer }
    }

    /// From now on requests are answered so.
    pub(super) fn answers(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// From now on nothing is taken.
    pub(crate) fn refuse(&self) {
        self.answers(Answer::status("503 Service Unavailable"));
    }

    /// The next request, whatever it is answered.
    pub(crate) async fn next(&mut self) -> Got {
        let got = tokio::time::timeout(HANGS, self.requests.recv()).await;
        got.expect("a request comes").expect("the server runs as long as we do")
    }

    /// A request that came already, if there is one.
    pub(crate) fn waiting(&mut self) -> Option<Got> {
        self.requests.try_recv().ok()
    }
}

/// Reads one request of HTTP/1.1 and answers it.
async fn take(
    mut stream: Box<dyn Stream>,
    sender: mpsc::Sender<Got>,
    answers: watch::Receiver<Answer>,
) {
    let mut bytes = vec![];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).expect("a head is ASCII");
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default().to_string();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a header has a value");
        (name.to_lowercase(), value.to_string())
    };
    let headers: BTreeMap<String, String> = lines.map(header).collect();
    let length: usize = headers["content-length"].parse().expect("a length is a number");
    while bytes.len() < head + 4 + length {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let body = String::from_utf8(bytes.split_off(head + 4)).expect("JSON is UTF-8");
    let answer = answers.borrow().clone();
    if sender.send(Got { line, headers, body }).await.is_err() {
        return;
    }
    match answer {
        Answer::Nothing => {
            // Until they give up.
            let _ = stream.read(&mut [0]).await;
        }
        Answer::Status(status, more) => {
            let reply = format!("HTTP/1.1 {status}\r\n{more}content-length: 0\r\n\r\n");
            let _ = stream.write_all(reply.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}

/// A server for syslog: the messages of each connection, once the sender has ended it.
pub(super) struct SyslogServer {
    pub(super) port: u16,
    messages: mpsc::Receiver<String>,
    broken: watch::Sender<bool>,
}

impl SyslogServer {
    pub(super) async fn new(encrypted: bool) -> SyslogServer {
        let (sender, messages) = mpsc::channel(MOST_WAITING);
        let (broken, breaks) = watch::channel(false);
        let read = move |mut stream: Box<dyn Stream>| {
            let (sender, breaks) = (sender.clone(), *breaks.borrow());
            async move {
                let mut bytes = vec![];
                if breaks {
                    // What was not read when we close resets the connection.
                    let _ = stream.read(&mut [0]).await;
                    return;
                }
                if stream.read_to_end(&mut bytes).await.is_ok() {
                    for message in split(&bytes) {
                        let _ = sender.send(message).await;
                    }
                    let _ = stream.shutdown().await;
                }
            }
        };
        SyslogServer { port: listen(encrypted, read).await, messages, broken }
    }

    /// From now on connections break before they were read.
    pub(super) fn breaks(&self, breaks: bool) {
        self.broken.send_replace(breaks);
    }

    pub(super) async fn next(&mut self) -> Message {
        let message = tokio::time::timeout(HANGS, self.messages.recv()).await;
        Message::parse(&message.expect("a message comes").expect("the server runs with us"))
    }
}

/// RFC 6587 §3.4.1: a count, a space, as many bytes.
fn split(mut bytes: &[u8]) -> Vec<String> {
    let mut messages = vec![];
    while !bytes.is_empty() {
        let space = bytes.iter().position(|b| *b == b' ').expect("a count ends with a space");
        let count = std::str::from_utf8(&bytes[..space]).unwrap().parse::<usize>();
        let (message, rest) = bytes[space + 1..].split_at(count.expect("a count is a number"));
        messages.push(String::from_utf8(message.to_vec()).expect("a message is UTF-8"));
        bytes = rest;
    }
    messages
}

/// A message of RFC 5424.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) priority: u8,
    pub(super) hostname: String,
    pub(super) msgid: String,
    pub(super) data: BTreeMap<String, String>,
    pub(super) text: String,
}

impl Message {
    fn parse(whole: &str) -> Message {
        let (priority, rest) = whole.strip_prefix('<').unwrap().split_once('>').unwrap();
        let fields: Vec<&str> = rest.splitn(7, ' ').collect();
        let [version, time, hostname, app, procid, msgid, rest] = fields[..] else {
            panic!("seven fields: {whole}")
        };
        assert_eq!((version, app, procid), ("1", "keyledger", "-"));
        time.parse::<prost_types::Timestamp>().expect("a time of RFC 3339");
        let (data, rest) = structured_data(rest);
        let text = rest.strip_prefix(" \u{feff}").expect("a message with a byte order mark");
        Message {
            priority: priority.parse().unwrap(),
            hostname: hostname.into(),
            msgid: msgid.into(),
            data,
            text: text.into(),
        }
    }
}

/// One element of structured data, and what comes behind it.
fn structured_data(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut rest = text.strip_prefix("[keyledger@32473").expect("our element");
    let mut data = BTreeMap::new();
    while let Some(parameter) = rest.strip_prefix(' ') {
        let (name, value) = parameter.split_once("=\"").expect("a quoted value");
        let (mut text, mut chars) = (String::new(), value.char_indices());
        let end = loop {
            match chars.next().expect("a value ends with a quotation mark") {
                (at, '"') => break at,
                (_, '\\') => text.extend(chars.next().map(|(_, c)| c)),
                (_, c) => text.push(c),
            }
        };
        data.insert(name.to_string(), text);
        rest = &value[end + 1..];
    }
    (data, rest.strip_prefix(']').expect("the element ends"))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Serves connections, each by itself, and tells the port.
async fn listen<F: Future<Output = ()> + Send + 'static>(
    encrypted: bool,
    serve: impl Fn(Box<dyn Stream>) -> F + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let tls = encrypted.then(|| TlsAcceptor::from(tls()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &tls {
                None => drop(tokio::spawn(serve(Box::new(stream)))),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        tokio::spawn(serve(Box::new(stream)));
                    }
                }
            }
        }
    });
    port
}

pub(super) fn fixture(name: &str) -> String {
    format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn tls() -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_file(fixture("receiver.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(fixture("receiver.key")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    Arc::new(config.expect("key and certificate belong together"))
}
