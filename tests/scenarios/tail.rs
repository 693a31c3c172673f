//! `keyledger audit tail`: what it prints, and that it goes on after its server went away, without a gap or a repeat.

use std::process::Stdio;

use keyledger_proto::*;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;

use crate::harness::*;

/// One address in front of one replica after the other, as a balancer is.
struct Front {
    address: String,
    behind: watch::Sender<String>,
}

impl Front {
    async fn new(replica: &Replica) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (behind, target) = watch::channel(replica.address.clone());
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let target = target.borrow().clone();
                tokio::spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(target).await {
                        let _ = copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        });
        Front { address, behind }
    }

    fn put(&self, replica: &Replica) {
        self.behind.send_replace(replica.address.clone());
    }
}

/// A tail that runs, and its lines.
struct Tail {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(d: &Deployment, address: &str, token: &str, options: &[&str]) -> Tail {
        let mut tail = d.program();
        tail.env("KEYLEDGER_TOKEN", token).env("KEYLEDGER_ENDPOINT", format!("http://{address}"));
        tail.args(["audit", "tail", "-o", "json"]).args(options);
        tail.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).kill_on_drop(true);
        let mut process = tail.spawn().expect("the program under test starts");
        let stdout = process.stdout.take().expect("it is piped");
        Tail { process, lines: BufReader::new(stdout).lines() }
    }

    /// The resources of the next events.
    async fn next(&mut self, count: usize) -> Vec<String> {
        let mut resources = vec![];
        while resources.len() < count {
            let line = self.lines.next_line().await.unwrap().expect("it goes on for ever");
            let line: Value = serde_json::from_str(&line).expect("each line is JSON");
            resources.push(line["event"]["resource"].as_str().unwrap_or_default().to_string());
        }
        resources
    }

    async fn stop(mut self) {
        self.process.kill().await.expect("a process of ours can be killed");
    }
}

async fn record(replica: &Replica, numbers: std::ops::Range<usize>) -> Vec<String> {
    let event = |n: usize| NewEvent {
        resource: format!("jobs/{n}"),
        ..login(["alice@example.com", "bob@example.com"][n % 2], "jobs")
    };
    record_in_order(replica, numbers.map(event).collect()).await
}

#[test]
fn a_tail_goes_on_after_its_server_was_killed_or_stopped_without_a_gap_or_a_repeat() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let front = Front::new(&a).await;
        let reads = vec![grant("audit.read", "logs/jobs")];
        let token = a.admin().call(service_key("siem", reads)).await.unwrap().token;
        let mut expected = record(&a, 0..20).await;
        let options = ["--from-start", "--category", "jobs"];
        let mut tail = Tail::start(d, &front.address, &token, &options);
        let mut printed = tail.next(20).await;

        front.put(&b);
        a.kill().await;
        expected.extend(record(&b, 20..40).await);
        printed.extend(tail.next(20).await);

        let c = d.replica().await;
        front.put(&c);
        assert!(b.stop().await.success());
        expected.extend(record(&c, 40..60).await);
        printed.extend(tail.next(20).await);
        tail.stop().await;
        assert_eq!(printed, expected);
    });
}

#[test]
fn a_tail_begins_where_it_is_told_and_prints_what_it_is_asked_for() {
    scenario(async |d| {
        let replica = d.replica().await;
        let token = &d.tokens.admin;
        let early = record(&replica, 0..5).await;
        record(&replica, 5..10).await;
        let all = ListEventsRequest { category: "jobs".into(), ..Default::default() };
        let all = replica.admin().call(all).await.unwrap().events;
        let newest = all[0].time.unwrap();
        let late = all.iter().rev().filter(|e| e.time == Some(newest));
        let late: Vec<String> = late.map(|e| e.resource.clone()).collect();
        let since = newest.to_string();
        let of_bob = |resource: &&String| ["jobs/1", "jobs/3"].contains(&resource.as_str());
        let by_bob: Vec<String> = early.iter().filter(of_bob).cloned().collect();
        let table: Vec<(Vec<&str>, Vec<String>)> = vec![
            (vec!["--since", &since], late),
            (vec!["--from-start", "--actor", "bob@example.com"], by_bob),
            (vec!["--from-start", "--resource-prefix", "jobs/7"], vec!["jobs/7".into()]),
        ];
        for (options, expected) in table {
            let options = [&["--category", "jobs"], &options[..]].concat();
            let mut tail = Tail::start(d, &replica.address, token, &options);
            assert_eq!(tail.next(expected.len()).await, expected, "{options:?}");
            tail.stop().await;
        }
        let two = ["audit", "tail", "--from-start", "--from", "7"].map(String::from);
        let refused = d.run(two).await;
        assert!(refused.text.contains("cannot be used with"), "{}", refused.text);
    });
}
