//! What holds for every sequence of reports, repeats, gaps and crashes: the core alone, without a server.

use std::collections::BTreeMap;

use keyledger_ledger::body::{Kind, ReportDoubt, Use, UseColumn};
use keyledger_ledger::command::{
    Action, Answer, ChangeKind, Command, Expiry, Refusal, SECOND, UpdatePolicy,
};
use keyledger_ledger::id::{Time, Trace};
use keyledger_ledger::page::{PageWriter, read_uses};
use keyledger_ledger::policy::Policy;
use keyledger_ledger::reports::{self, Claim, KeptAnswer, Report, Session};
use keyledger_ledger::state::Owner;
use keyledger_ledger::token::Token;
use keyledger_ledger::verify::{Found, NoKeys, Problem, Verifier};
use proptest::prelude::*;
use prost::Message;

use crate::world::{World, grant, verify};

const STALENESS: i64 = 30 * SECOND;

/// A ledger in which one key may keep answers about another one.
struct Story {
    world: World,
    gateway: Token,
    answer: KeptAnswer,
}

impl Story {
    fn begin() -> Story {
        let mut world = World::new("keys.example.test/system");
        let (gateway, reader) = (world.new_key(), world.new_key());
        let policy = Policy { max_staleness: STALENESS, ..Policy::default() };
        let changed = vec!["max_staleness".into()];
        let policy = UpdatePolicy { etag: String::new(), changed, to: policy };
        let role = ChangeKind::CreateRole {
            name: "readers".into(),
            grants: vec![grant(&["audit.read"], "logs/*", false)],
            rotation: None,
            max_staleness: STALENESS,
        };
        let own = vec![grant(&["keys.verify"], "keys", false)];
        let service = || Owner::Service("gateway".into());
        let gateway_key = world.create_key(&gateway, service(), own, vec![], Expiry::Never);
        let roles = vec!["readers".into()];
        let reader_key = world.create_key(&reader, service(), vec![], roles, Expiry::Never);
        for kind in [ChangeKind::UpdatePolicy(policy), role, gateway_key, reader_key] {
            let change = world.by_itself(kind, vec![]);
            world.run(vec![change]);
        }
        let call = world.call(&gateway.reveal(), "KeyService/VerifyKey", "keys.verify", "keys");
        let mut ask = verify(call, &reader.reveal(), "audit.read", "logs/error", vec![]);
        let Action::Verify(check) = &mut ask.action else { unreachable!("it is a check") };
        check.keep = 2 * STALENESS;
        let answers = world.run(vec![ask]);
        let [Answer::Verdict(verdict)] = answers.as_slice() else { panic!("it is answered") };
        assert_eq!(verdict.keep, STALENESS);
        let answer = KeptAnswer {
            key_id: reader.key_id,
            version: 1,
            permission: "audit.read".into(),
            resource: "logs/error".into(),
            audience: "exports".into(),
            at: verdict.at,
            time: verdict.time,
            max_staleness: verdict.keep,
        };
        Story { world, gateway, answer }
    }

    fn report(&mut self, session: [u8; 16], first_number: u64, uses: u64, end: bool) -> Command {
        let claims = (0..uses).map(|n| Claim {
            answer: self.answer.clone(),
            // What is told of a number is the same each time.
            time: self.answer.time.plus_micros((first_number + n) as i64),
            address: None,
            trace: Trace::default(),
            texts: vec![],
            salt: self.world.draw(),
        });
        let report = Report { session, first_number, claims: claims.collect(), end };
        let token = self.gateway.reveal();
        let call = self.world.call(&token, "KeyService/ReportUses", "keys.verify", "keys");
        Command { call, action: Action::Report(Box::new(report)) }
    }

    /// All uses that pages hold, and whether all of it verifies and comes to the same state.
    fn uses(&self) -> Vec<Use> {
        let mut verifier = Verifier::default();
        let mut uses = vec![];
        for entry in &self.world.entries {
            verifier.push(&found(entry), &mut NoKeys).expect("what the core writes verifies");
            if let Some(Kind::UsePage(page)) = &entry.event.kind {
                let read = read_uses(page, &entry.uses).expect("the uses are the page's");
                uses.extend(read.into_iter().map(|read| read.r#use));
            }
        }
        assert!(verifier.state().same_fold(&self.world.head.state));
        uses
    }
}

fn found(entry: &keyledger_ledger::batch::NewEntry) -> Found {
    Found {
        position: entry.position,
        entry: entry.entry.clone(),
        sealed: None,
        uses: entry.uses.clone(),
        columns: None,
    }
}

/// The id of a session that was made at a time.
fn session_id(made: Time, number: u8) -> [u8; 16] {
    let millis = made.micros() as u64 / 1_000;
    *uuid::Builder::from_unix_timestamp_millis(millis, &[number; 10]).into_uuid().as_bytes()
}

#[derive(Clone, Debug)]
struct Step {
    session: u8,
    /// Where it begins, from the next number that the reporter knows to be due.
    from: i64,
    uses: u64,
    end: bool,
}

#[derive(Clone, Debug)]
struct Moment {
    wait: i64,
    steps: Vec<Step>,
    /// The batch is never committed: nothing of it is true.
    crash: bool,
}

fn moments() -> impl Strategy<Value = Vec<Moment>> {
    let step = (0..3u8, -4..3i64, 0..5u64, proptest::bool::weighted(0.05))
        .prop_map(|(session, from, uses, end)| Step { session, from, uses, end });
    let wait = prop_oneof![8 => 0..SECOND, 1 => Just(700 * SECOND), 1 => Just(3_700 * SECOND)];
    let moment = (wait, prop::collection::vec(step, 1..5), proptest::bool::weighted(0.2))
        .prop_map(|(wait, steps, crash)| Moment { wait, steps, crash });
    prop::collection::vec(moment, 1..20)
}

/// What the reporter of a session may expect.
#[derive(Clone, Copy, Default)]
struct Expected {
    recorded: u64,
    ended: bool,
    newest: Time,
}

fn tell(
    story: &mut Story,
    expected: &mut BTreeMap<[u8; 16], Expected>,
    moment: &Moment,
    began: Time,
) {
    story.world.now = story.world.now.plus_micros(moment.wait);
    let (now, before) = (story.world.now, (story.world.head.clone(), story.world.entries.len()));
    let mut model = expected.clone();
    let mut commands = vec![];
    let mut answers = vec![];
    for step in &moment.steps {
        let id = session_id(began, step.session);
        let next = model.get(&id).map_or(0, |e| e.recorded);
        let first = next.saturating_add_signed(step.from);
        commands.push(story.report(id, first, step.uses, step.end));
        let last = first + step.uses;
        let known = model.get(&id).copied().filter(|e| {
            let session = Session { recorded: e.recorded, newest: e.newest, ended: e.ended };
            !session.has_lapsed(now)
        });
        let fresh = now.micros() - began.micros() <= reports::FRESH;
        let session = known.or((first == 0 && fresh).then(Expected::default));
        answers.push(match session {
            None => Err(Refusal::ReportSessionOver),
            Some(s) if first > s.recorded => Err(Refusal::ReportGap { recorded: s.recorded }),
            Some(s) if s.ended && last > s.recorded => Err(Refusal::ReportSessionOver),
            Some(s) => {
                let recorded = s.recorded.max(last);
                let told = recorded > s.recorded || step.end && !s.ended;
                let newest = if told { now } else { s.newest };
                if known.is_some() || told {
                    model.insert(id, Expected { recorded, ended: s.ended || step.end, newest });
                }
                Ok(recorded)
            }
        });
    }
    let given = story.world.run(commands);
    for (answer, expected) in given.iter().zip(&answers) {
        match (answer, expected) {
            (Answer::Reported { recorded }, Ok(expected)) => assert_eq!(recorded, expected),
            (Answer::Refused { refusal } | Answer::Folded { refusal }, Err(expected)) => {
                assert_eq!(refusal, expected)
            }
            other => panic!("{other:?}"),
        }
    }
    match moment.crash {
        true => {
            story.world.head = before.0;
            story.world.entries.truncate(before.1);
        }
        false => *expected = model,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn each_number_of_a_session_is_recorded_once_and_in_order(moments in moments()) {
        let mut story = Story::begin();
        let began = story.world.now;
        let mut expected = BTreeMap::new();
        for moment in &moments {
            tell(&mut story, &mut expected, moment, began);
            let state = &story.world.head.state;
            prop_assert_eq!(reports::decode(&reports::encode(&state.sessions)), Some(state.sessions.clone()));
        }
        let mut numbers: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        for reported in story.uses().into_iter().filter_map(|u| u.reported) {
            let late = reported.doubts.contains(&(ReportDoubt::Late as i32));
            prop_assert_eq!(late, !reported.doubts.is_empty());
            numbers.entry(reported.session_id).or_default().push(reported.number);
        }
        for (id, session) in &expected {
            let recorded = numbers.remove(id.as_slice()).unwrap_or_default();
            prop_assert_eq!(recorded, (0..session.recorded).collect::<Vec<_>>());
        }
        prop_assert!(numbers.is_empty(), "nothing else was recorded");
    }
}

/// A ledger with a use that its gateway reported, in which one thing was changed before all was signed.
fn spoilt(spoil: impl Fn(&mut Use)) -> Result<(), Problem> {
    let mut story = Story::begin();
    let session = session_id(story.world.now, 1);
    let report = story.report(session, 0, 2, false);
    story.world.run(vec![report]);
    let entry = story.world.entries.last_mut().expect("the report is recorded");
    let mut writer = PageWriter::default();
    for record in UseColumn::decode(entry.uses.as_slice()).expect("we wrote it").uses {
        let mut r#use = Use::decode(record.r#use.as_slice()).expect("we wrote it");
        if r#use.reported.as_ref().is_some_and(|r| r.number == 1) {
            spoil(&mut r#use);
        }
        let salt = record.salt.try_into().expect("16 bytes");
        writer.add(&r#use, salt, record.sealed);
    }
    let Some(Kind::UsePage(page)) = entry.event.kind.take() else { panic!("it is a page") };
    let time = Time(entry.event.time_us);
    let (number, told) = (page.number, page.reported);
    let (page, uses) = writer.finish(number, time, page.shed, page.spent, page.bounded, told);
    entry.event.kind = Some(Kind::UsePage(page));
    entry.uses = uses;
    entry.entry = story.world.signer.sign(entry.event.encode_to_vec()).expect("it is small");
    let mut verifier = Verifier::default();
    let push = |entry| verifier.push(&found(entry), &mut NoKeys).map_err(|f| f.problem);
    story.world.entries.iter().try_for_each(push)
}

#[test]
fn who_holds_the_ledgers_key_can_not_invent_reported_uses_either() {
    type Spoil = fn(&mut keyledger_ledger::body::Reported);
    assert_eq!(spoilt(|_| {}), Ok(()));
    let spoils: [(&str, Spoil); 8] = [
        ("a number left out", |r| r.number = 2),
        ("a number twice", |r| r.number = 0),
        ("another strict answer", |r| r.answer_index += 1),
        ("another position", |r| r.answer_position -= 1),
        ("another time of the answer", |r| r.answer_time_us -= 1),
        ("a longer permission", |r| r.max_staleness_us += 1),
        ("a doubt that is none", |r| r.doubts = vec![ReportDoubt::Stale as i32]),
        ("a doubt that isn't told", |r| r.time_us = r.answer_time_us + STALENESS + 1),
    ];
    for (what, spoil) in spoils {
        let found = spoilt(|u| spoil(u.reported.as_mut().expect("it is a reported one")));
        assert_eq!(found, Err(Problem::Report { index: 2 }), "{what}");
    }
    let other = spoilt(|u| u.resource = "logs/secret".into());
    assert_eq!(other, Err(Problem::Report { index: 2 }), "another resource");
    let session = spoilt(|u| u.reported.as_mut().expect("it is one").session_id[15] ^= 1);
    assert!(session.is_err(), "another session");
}
