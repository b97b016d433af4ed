//! H14: process managers over an engine.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use es_framework::testing::{Call, Fault, FaultPlan, FaultyEngine, ManualClock};
use es_framework::{
    Actions, Aggregate, Apply, Backoff, CandidateEvent, Command, CommandKey, Correlation, Envelope, Event,
    ExpectedVersion, ListCells, OnRejection, Policy, Process, ProcessManager, Provenance, Recorded, Rejected,
    Repository, RunError, Running, Store, Timeout, Timestamp, commands,
};
use serde::Serialize;

use crate::fixture::{Durable, Fixture, Setup, Shared};
use crate::support::{PATIENCE, events_of, log, stream, within};

/// What happens to a wallet.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
enum WalletEvent {
    #[es(name = "wallet.closed")]
    Closed,
    #[es(name = "wallet.sent")]
    Sent { transfer: String, to: String, cents: u64 },
    #[es(name = "wallet.received")]
    Received { transfer: String, cents: u64 },
    #[es(name = "wallet.returned")]
    Returned { transfer: String, reason: String },
    #[es(name = "wallet.noted")]
    Noted { transfer: String, text: String },
}

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "wallet", event = WalletEvent)]
struct Wallet {
    closed: bool,
}

impl Apply for Wallet {
    fn apply(&mut self, event: &WalletEvent, _: Envelope<'_>) {
        self.closed |= *event == WalletEvent::Closed;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the wallet is closed")]
struct IsClosed;

#[derive(Debug, Serialize, Command)]
#[es(name = "wallet.receive")]
struct Receive {
    transfer: String,
    cents: u64,
}

#[derive(Debug, Serialize, Command)]
#[es(name = "wallet.return")]
struct Return {
    transfer: String,
    reason: String,
}

#[derive(Debug, Serialize, Command)]
#[es(name = "wallet.note")]
struct Note {
    transfer: String,
    text: String,
}

#[commands(error = IsClosed)]
impl Wallet {
    fn receive(&self, command: &Receive) -> Result<WalletEvent, IsClosed> {
        let Receive { transfer, cents } = command;
        if self.closed {
            Err(IsClosed)
        } else {
            Ok(WalletEvent::Received { transfer: transfer.clone(), cents: *cents })
        }
    }

    fn give_back(&self, command: &Return) -> WalletEvent {
        WalletEvent::Returned { transfer: command.transfer.clone(), reason: command.reason.clone() }
    }

    fn note(&self, command: &Note) -> WalletEvent {
        WalletEvent::Noted { transfer: command.transfer.clone(), text: command.text.clone() }
    }
}

/// One instance for each transfer. What it does about rejections depends on the beginning of its id.
#[derive(Debug, Default, PartialEq, Event)]
#[es(name = "transfer")]
struct Transfer {
    from: String,
    handled: Vec<u64>,
}

/// How long the receiver may take.
const HOUR: Duration = Duration::from_secs(3_600);

/// Ids of transfers that fail.
static POISON: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// Ids of transfers that decide otherwise now.
static OTHERWISE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl ProcessManager for Transfer {
    type Event = WalletEvent;
    const NAME: &'static str = "transfer";

    fn correlate(event: &Recorded<WalletEvent>) -> Correlation {
        match event.event() {
            WalletEvent::Sent { transfer, .. } => Correlation::start(transfer),
            WalletEvent::Received { transfer, .. } | WalletEvent::Returned { transfer, .. } => {
                Correlation::proceed(transfer)
            }
            WalletEvent::Closed | WalletEvent::Noted { .. } => Correlation::Ignore,
        }
    }

    fn handle(&mut self, event: &Recorded<WalletEvent>, actions: &mut Actions) {
        if POISON.lock().expect("nobody panicked with it").contains(actions.instance()) {
            actions.fail("poison");
        }
        self.handled.push(event.position().get());
        match event.event() {
            WalletEvent::Sent { transfer, to, cents } => {
                event.aggregate_id().clone_into(&mut self.from);
                let text = if OTHERWISE.lock().expect("nobody panicked with it").contains(transfer) {
                    "otherwise"
                } else {
                    "sending"
                };
                let note = Note { transfer: transfer.clone(), text: text.to_owned() };
                actions.execute::<Wallet, _>(&self.from, note);
                actions.set_timeout("late", HOUR);
                actions.set_timeout("very late", 2 * HOUR);
                if transfer.starts_with("silent") {
                    return;
                }
                let receive = Receive { transfer: transfer.clone(), cents: *cents };
                let issued = actions.execute::<Wallet, _>(to, receive);
                match transfer.split('-').next() {
                    Some("ignored") => issued.on_rejection(|IsClosed| OnRejection::Ignore),
                    Some("retried") => issued.on_rejection(|IsClosed| OnRejection::Retry),
                    Some("explained") => {
                        issued.on_rejection(|error| OnRejection::Handle(format!("because {error}")));
                    }
                    _ => drop(issued),
                }
                let text = "sent".to_owned();
                actions.execute::<Wallet, _>(&self.from, Note { transfer: transfer.clone(), text });
            }
            _ => actions.complete(),
        }
    }

    fn timed_out(&mut self, timeout: &Timeout, actions: &mut Actions) {
        assert!(!actions.instance().starts_with("silent-panic"), "the process breaks");
        let text = format!("{} at {}", timeout.name, timeout.due.as_micros() / 1_000_000);
        let note = Note { transfer: actions.instance().to_owned(), text };
        actions.execute::<Wallet, _>(&self.from, note);
    }

    fn rejected(&mut self, rejected: &Rejected, actions: &mut Actions) {
        let transfer = actions.instance().to_owned();
        actions.execute::<Wallet, _>(&self.from, Return { transfer, reason: rejected.reason.clone() });
    }
}

fn sent(transfer: &str, to: &str) -> WalletEvent {
    WalletEvent::Sent { transfer: transfer.to_owned(), to: to.to_owned(), cents: 5 }
}

async fn write(store: &Store, wallet: &str, event: WalletEvent) {
    let event = event.encode().expect("it encodes");
    stream(store, &format!("wallet-{wallet}")).write(event, ExpectedVersion::Any).await.expect("it writes");
}

/// Runs the process until there is nothing more to do.
async fn run(store: &Store) -> Result<(), RunError> {
    loop {
        let head = store.head();
        Process::<Transfer>::new(store).policy(at_once()).catch_up().await?;
        if store.head() == head {
            return Ok(());
        }
    }
}

fn at_once() -> Policy {
    let mut policy = Policy::default();
    (policy.user_code, policy.panic) = (Backoff::NONE, Backoff::NONE);
    policy
}

/// The events of a wallet, without those of its transfers' ids.
async fn wallet(store: &Store, id: &str) -> Vec<String> {
    let events = events_of(&stream(store, &format!("wallet-{id}"))).await;
    let told = |event| match Recorded::<WalletEvent>::decode(event).expect("it decodes").event() {
        WalletEvent::Closed => "closed".to_owned(),
        WalletEvent::Sent { to, .. } => format!("sent to {to}"),
        WalletEvent::Received { cents, .. } => format!("received {cents}"),
        WalletEvent::Returned { reason, .. } => format!("returned, {reason}"),
        WalletEvent::Noted { text, .. } => format!("noted {text}"),
    };
    events.into_iter().map(told).collect()
}

async fn completed(store: &Store, transfer: &str) -> bool {
    let instance = Process::<Transfer>::new(store).instance(transfer).await.expect("it loads");
    instance.expect("it was started").completed
}

async fn scheduled(store: &Store) -> usize {
    store.cells(ListCells::new().prefix("process/transfer/timeout/")).await.expect("cells are listed").len()
}

fn hours(hours: i64) -> Timestamp {
    Timestamp::from_micros(hours * 3_600_000_000)
}

async fn with_clock(fixture: &impl Fixture) -> (Store, ManualClock) {
    let clock = ManualClock::new();
    (fixture.open_with(Setup::default().clock(clock.clone())).await, clock)
}

/// An event becomes commands, each event of the instance one step in its stream, and the last one completes it.
pub async fn h14_events_become_commands(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&store, "alice", sent("1", "bob")).await;
    run(&store).await.expect("it runs");
    assert_eq!(wallet(&store, "alice").await, ["sent to bob", "noted sending", "noted sent"]);
    assert_eq!(wallet(&store, "bob").await, ["received 5"]);
    let instance = Process::<Transfer>::new(&store).instance("1").await.expect("it loads").expect("it was started");
    let received = events_of(&stream(&store, "wallet-bob")).await.remove(0);
    assert_eq!(instance.state, Transfer { from: "alice".into(), handled: vec![1, received.position.get()] });
    assert_eq!((instance.version.get(), instance.completed, instance.timeouts), (2, true, Vec::new()));
    assert_eq!(scheduled(&store).await, 0, "completion cancels timeouts");
    let steps = events_of(&stream(&store, "transfer-1")).await;
    assert!(steps.iter().all(|step| step.name() == "transfer"), "the state is an event like any other");
}

/// Commands carry documented keys, and their events the correlation of what led to them.
pub async fn h14_keys_and_provenance_derive_from_the_event(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&store, "carol", WalletEvent::Closed).await;
    write(&store, "alice", sent("a/b", "bob")).await;
    write(&store, "alice", sent("2", "carol")).await;
    run(&store).await.expect("it runs");
    for key in ["transfer-a%2Fb/2/0", "transfer-a%2Fb/2/1", "transfer-a%2Fb/2/2", "transfer-2/3/0", "transfer-2/3/1/0"]
    {
        let command = store.command(&CommandKey::new(key).expect("a valid key")).await.expect("it can be asked");
        assert!(command.is_some(), "{key}");
    }
    let all = log(&store).await;
    let cause = &all[1];
    let text = |event: &es_framework::StoredEvent, key| event.metadata.as_ref().and_then(|metadata| metadata.text(key));
    let caused = |id: &str| all.iter().find(|event| text(event, Provenance::CAUSATION_ID).as_deref() == Some(id));
    let step = caused(&cause.id.to_string()).expect("the step is caused by the event");
    assert_eq!(step.stream, *"transfer-a/b");
    let received = caused(&step.id.to_string()).expect("the command is caused by the step");
    assert_eq!(text(received, Provenance::CORRELATION_ID), Some(cause.id.to_string()));
    assert_eq!(text(received, Provenance::ACTOR).as_deref(), Some("transfer"));
}

/// A rejected command is handled as its process says.
pub async fn h14_rejections_are_handled(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&store, "bob", WalletEvent::Closed).await;
    for (transfer, told) in [
        ("plain", &["sent to bob", "noted sending", "returned, the wallet is closed"][..]),
        ("explained", &["sent to bob", "noted sending", "returned, because the wallet is closed"]),
        ("ignored", &["sent to bob", "noted sending", "noted sent"]),
    ] {
        write(&store, transfer, sent(transfer, "bob")).await;
        run(&store).await.expect("it runs");
        assert_eq!(wallet(&store, transfer).await, told);
        assert_eq!(completed(&store, transfer).await, transfer != "ignored");
    }
    assert_eq!(wallet(&store, "bob").await, ["closed"]);

    write(&store, "retried", sent("retried", "bob")).await;
    let error = run(&store).await.expect_err("it is rejected each time");
    assert!(format!("{error:?}").contains("IsClosed"), "{error:?}");
    assert_eq!(wallet(&store, "retried").await, ["sent to bob", "noted sending"], "what came before is done, once");
    run(&store).await.expect_err("it is rejected each time");
    assert_eq!(wallet(&store, "retried").await, ["sent to bob", "noted sending"]);
}

/// Wherever the process dies, or whatever answer is lost, in the end everything was done once and nothing is missing.
///
/// Every append goes wrong, and every third of the other calls; [`at_every_call`] leaves none out.
pub async fn h14_a_crash_at_any_step_loses_and_repeats_nothing(fixture: &impl Fixture) {
    let mut crashes = 0;
    for fault in [Fault::Crash, Fault::CrashAfter, Fault::Conflict] {
        crashes += goes_wrong(fixture, Call::Append, fault, 1).await;
    }
    for call in [Call::Read, Call::Load, Call::Command, Call::Cell, Call::Cells, Call::SetCell] {
        crashes += goes_wrong(fixture, call, Fault::Crash, 3).await;
    }
    assert!(crashes > 30, "there were {crashes} crashes");
}

/// The same with every call that goes wrong in every way; takes long where a commit does.
pub async fn at_every_call(fixture: &impl Fixture) {
    let mut crashes = 0;
    for call in [Call::Append, Call::Read, Call::Load, Call::Command, Call::Cell, Call::Cells, Call::SetCell] {
        for fault in [Fault::Crash, Fault::CrashAfter, Fault::LostAnswer, Fault::Busy, Fault::Conflict] {
            crashes += goes_wrong(fixture, call, fault, 1).await;
        }
    }
    assert!(crashes > 300, "there were {crashes} crashes");
}

/// Tells the story again and again, and lets a later call go wrong each time. Returns how often it had to be told again.
async fn goes_wrong(fixture: &impl Fixture, call: Call, fault: Fault, step: usize) -> u32 {
    let mut crashes = 0;
    for number in (1..).step_by(step) {
        let (store, clock) = with_clock(fixture).await;
        let plan = FaultPlan::none().at(call, number, fault);
        let faulty = FaultyEngine::over(store.engine(), plan.clone());
        for n in 0..2 {
            crashes += u32::from(the_story_goes_wrong(&faulty.store(), &store, &clock, n, &plan).await);
        }
        if faulty.faults().injected() == FaultPlan::none() {
            break;
        }
        assert_eq!(wallet(&store, "bob").await, ["received 5"], "{plan}");
        assert_eq!(wallet(&store, "alice").await, ["sent to bob", "noted sending", "noted sent"], "{plan}");
        let told = ["sent to carol", "noted sending", "returned, the wallet is closed"];
        assert_eq!(wallet(&store, "dave").await, told, "{plan}");
        let told = ["sent to bob", "noted sending", "noted late at 3600", "noted very late at 7200"];
        assert_eq!(wallet(&store, "erin").await, told, "{plan}");
        for (transfer, steps) in [("1", 2), ("2", 3), ("silent", 3)] {
            let taken = events_of(&stream(&store, &format!("transfer-{transfer}"))).await.len();
            assert_eq!(taken, steps, "{plan}: {transfer}");
        }
        assert_eq!(scheduled(&store).await, 0, "{plan}");
    }
    crashes
}

/// One half of the story: the process runs on a store on which something goes wrong, and then on the same without. Returns
/// whether the first run failed.
async fn the_story_goes_wrong(faulty: &Store, store: &Store, clock: &ManualClock, half: u32, plan: &FaultPlan) -> bool {
    if half == 0 {
        write(store, "carol", WalletEvent::Closed).await;
        write(store, "alice", sent("1", "bob")).await;
        write(store, "dave", sent("2", "carol")).await;
        write(store, "erin", sent("silent", "bob")).await;
    } else {
        clock.turn_to(hours(5));
    }
    let failed = run(faulty).await.is_err();
    run(store).await.unwrap_or_else(|error| panic!("{plan}: {error:?}"));
    failed
}

/// Two owners that handle the same events take each step once, and execute each command once.
pub async fn h14_two_owners_do_everything_once(fixture: &impl Fixture) {
    let store = fixture.open().await;
    Box::pin(owners_fight(&store, &store)).await;
}

/// The same over two handles, as two processes have them.
pub async fn h14_two_processes_do_everything_once(fixture: &impl Shared) {
    let store = fixture.open().await;
    let second = fixture.second(&store).await;
    Box::pin(owners_fight(&store, &second)).await;
}

async fn owners_fight(store: &Store, second: &Store) {
    write(store, "closed", WalletEvent::Closed).await;
    for n in 0..30 {
        let (from, to) = (format!("from{n}"), if n % 3 == 0 { "closed".to_owned() } else { format!("to{n}") });
        write(store, &from, sent(&format!("{n}"), &to)).await;
    }
    let fights = |store: Store| async move {
        // Whoever loses begins again.
        for _ in 0..200 {
            match run(&store).await {
                Ok(()) => return,
                Err(RunError::Model(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        panic!("it loses each time");
    };
    tokio::join!(fights(store.clone()), fights(second.clone()), fights(store.clone()));
    run(store).await.expect("it runs");
    for n in 0..30 {
        let from = wallet(store, &format!("from{n}")).await;
        if n % 3 == 0 {
            assert_eq!(from, ["sent to closed", "noted sending", "returned, the wallet is closed"], "{n}");
        } else {
            assert_eq!(from[1..], ["noted sending", "noted sent"], "{n}");
            assert_eq!(wallet(store, &format!("to{n}")).await, ["received 5"], "{n}");
        }
        assert!(completed(store, &n.to_string()).await, "{n}");
    }
}

/// Timeouts are handled once each, in the order in which they are due, however long the process was down.
pub async fn h14_timeouts_are_handled_once_and_in_order(fixture: &impl Fixture) {
    let (store, clock) = with_clock(fixture).await;
    for (wallet, hour) in [("a", 3), ("b", 1), ("c", 2)] {
        // The log's time never runs backwards, so the hours are added up.
        clock.turn_to(hours(hour));
        write(&store, wallet, sent(&format!("silent-{wallet}"), "nobody")).await;
        run(&store).await.expect("it runs");
    }
    assert_eq!(scheduled(&store).await, 6);
    clock.turn_to(hours(100));
    run(&store).await.expect("it runs");
    run(&store).await.expect("it runs");
    let notes: Vec<_> = log(&store).await.into_iter().filter(|event| event.name() == "wallet.noted").collect();
    let notes: Vec<_> =
        notes.into_iter().map(|event| Recorded::<WalletEvent>::decode(event).expect("it decodes")).collect();
    let due: Vec<_> = notes
        .iter()
        .filter_map(|note| match note.event() {
            WalletEvent::Noted { text, .. } => text.split(" at ").nth(1)?.parse::<u64>().ok(),
            _ => None,
        })
        .collect();
    assert_eq!(due.len(), 6);
    assert!(due.is_sorted(), "{due:?}");
    assert_eq!(scheduled(&store).await, 0);
}

/// A timeout that was cancelled is never handled, and neither is one of an instance that is completed.
pub async fn h14_a_cancelled_timeout_is_never_handled(fixture: &impl Fixture) {
    let (store, clock) = with_clock(fixture).await;
    write(&store, "alice", sent("1", "bob")).await;
    run(&store).await.expect("it runs");
    clock.turn_to(hours(100));
    run(&store).await.expect("it runs");
    assert_eq!(wallet(&store, "alice").await, ["sent to bob", "noted sending", "noted sent"]);
}

/// A timeout comes before the events of its instance that are later, even if the process was down.
pub async fn h14_a_timeout_comes_before_later_events(fixture: &impl Fixture) {
    let (store, clock) = with_clock(fixture).await;
    write(&store, "alice", sent("silent", "bob")).await;
    run(&store).await.expect("it runs");
    clock.turn_to(Timestamp::from_micros(5_400_000_000));
    write(&store, "bob", WalletEvent::Received { transfer: "silent".into(), cents: 5 }).await;
    clock.turn_to(hours(100));
    run(&store).await.expect("it runs");
    assert_eq!(wallet(&store, "alice").await, ["sent to bob", "noted sending", "noted late at 3600"]);
    assert!(completed(&store, "silent").await, "and the second one not at all");
    assert_eq!(scheduled(&store).await, 0);
}

/// A process that runs handles timeouts when their time comes.
pub async fn h14_a_running_process_is_woken_by_the_clock(fixture: &impl Fixture) {
    let (store, clock) = with_clock(fixture).await;
    let running = Process::<Transfer>::new(&store).start().await.expect("it starts");
    write(&store, "alice", sent("silent", "bob")).await;
    running.wait_for(store.head(), PATIENCE).await.expect("it gets there");
    for (hour, told) in [(1, "noted late at 3600"), (2, "noted very late at 7200")] {
        let mut watch = stream(&store, "wallet-alice").watch().await.expect("it is watched");
        clock.turn_to(hours(hour));
        within("the timeout", watch.next()).await.expect("an event").expect("no error");
        assert_eq!(wallet(&store, "alice").await.pop().as_deref(), Some(told));
    }
    running.stop().await.expect("it stops");
}

/// A timeout that fails is tried again, and others are handled meanwhile.
pub async fn h14_a_timeout_that_fails_delays_no_other(fixture: &impl Fixture) {
    let (store, clock) = with_clock(fixture).await;
    write(&store, "alice", sent("silent-panic", "bob")).await;
    write(&store, "carol", sent("silent", "bob")).await;
    let running = Process::<Transfer>::new(&store).policy(Policy::park()).start().await.expect("it starts");
    running.wait_for(store.head(), PATIENCE).await.expect("it gets there");
    let mut watch = stream(&store, "wallet-carol").watch().await.expect("it is watched");
    clock.turn_to(hours(50));
    for _ in 0..2 {
        within("the timeout", watch.next()).await.expect("an event").expect("no error");
    }
    within("the failure", async {
        while running.status().last_failure.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let failure = running.status().last_failure.expect("it failed");
    assert!(failure.error.contains("transfer-silent-panic"), "{failure:?}");
    running.stop().await.expect("it stops");
    assert_eq!(wallet(&store, "alice").await.len(), 2);
    assert_eq!(scheduled(&store).await, 2, "they are still to be handled");
}

/// After a reset every event is met again, and nothing is done again.
pub async fn h14_a_reset_repeats_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&store, "closed", WalletEvent::Closed).await;
    let running = Process::<Transfer>::new(&store).start().await.expect("it starts");
    write(&store, "alice", sent("1", "bob")).await;
    write(&store, "carol", sent("2", "closed")).await;
    settled(&running, &store).await;
    let before = log(&store).await;
    assert_eq!(before.len(), 13);
    for _ in 0..2 {
        running.reset().await.expect("it can be reset");
        settled(&running, &store).await;
    }
    running.stop().await.expect("it stops");
    assert_eq!(log(&store).await, before);
    // Not even if it forgets that it was there.
    let checkpoint = es_framework::CellKey::new("consumer/transfer/record/effects").expect("a valid key");
    let cell = store.cell(&checkpoint).await.expect("it can be read").expect("it was reset");
    store.set_cell(&checkpoint, cell.revision, None).await.expect("it can be removed");
    let running = Process::<Transfer>::new(&store).start().await.expect("it starts");
    running.reset().await.expect("it can be reset");
    settled(&running, &store).await;
    running.stop().await.expect("it stops");
    assert_eq!(log(&store).await, before);
}

async fn settled(running: &Running, store: &Store) {
    loop {
        let head = store.head();
        running.wait_for(head, PATIENCE).await.expect("it gets there");
        if store.head() == head {
            return;
        }
    }
}

/// An instance that is completed ignores what comes later, even what would start it.
pub async fn h14_a_completed_instance_ignores_events(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&store, "alice", sent("1", "bob")).await;
    run(&store).await.expect("it runs");
    write(&store, "alice", sent("1", "carol")).await;
    write(&store, "dave", WalletEvent::Received { transfer: "unknown".into(), cents: 5 }).await;
    run(&store).await.expect("it runs");
    assert!(wallet(&store, "carol").await.is_empty());
    let unknown = Process::<Transfer>::new(&store).instance("unknown").await.expect("it can be asked");
    assert!(unknown.is_none(), "an event that does not start it");
}

/// An instance that fails is parked, with its later events; others go on.
pub async fn h14_a_poison_instance_is_parked(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let poison = format!("poison-{}", store.id());
    POISON.lock().expect("nobody panicked with it").insert(poison.clone());
    let mut policy = Policy::park();
    policy.user_code = Backoff::NONE;
    let running = Process::<Transfer>::new(&store).policy(policy).start().await.expect("it starts");
    write(&store, "alice", sent(&poison, "bob")).await;
    write(&store, "bob", WalletEvent::Received { transfer: poison.clone(), cents: 1 }).await;
    write(&store, "alice", sent("1", "dave")).await;
    settled(&running, &store).await;
    assert_eq!(wallet(&store, "dave").await, ["received 5"]);
    let parked = running.parked(None).await.expect("it can be asked");
    assert_eq!(parked.iter().map(|event| event.key.as_str()).collect::<Vec<_>>(), [&poison, &poison]);
    POISON.lock().expect("nobody panicked with it").remove(&poison);
    assert_eq!(running.retry_parked(None).await.expect("it can be retried").applied, 2);
    settled(&running, &store).await;
    running.stop().await.expect("it stops");
    assert!(completed(&store, &poison).await);
    assert_eq!(wallet(&store, "bob").await, ["received 1", "received 5"]);
}

/// If the program decides otherwise than the step that it finds unfinished says, that is an error and nothing is sent.
pub async fn h14_a_process_that_decides_otherwise_sends_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let transfer = format!("changed-{}", store.id());
    write(&store, "alice", sent(&transfer, "bob")).await;
    let faulty = FaultyEngine::over(store.engine(), "append 1 crash-after".parse().expect("a plan"));
    run(&faulty.store()).await.expect_err("it dies after the step was written");
    assert_eq!(events_of(&stream(&store, &format!("transfer-{transfer}"))).await.len(), 1);
    OTHERWISE.lock().expect("nobody panicked with it").insert(transfer.clone());
    let error = run(&store).await.expect_err("it decides otherwise");
    assert!(format!("{error:?}").contains("NotRepeatable"), "{error:?}");
    assert_eq!(wallet(&store, "alice").await, ["sent to bob"]);
    OTHERWISE.lock().expect("nobody panicked with it").remove(&transfer);
    run(&store).await.expect("it goes on where it was");
    assert_eq!(wallet(&store, "alice").await, ["sent to bob", "noted sending", "noted sent"]);
}

/// Whatever a stream of the process holds that is no step is a typed error.
pub async fn h14_what_is_no_step_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let foreign = CandidateEvent::new("transfer", "not a state").expect("a valid type");
    stream(&store, "transfer-1").write(foreign, ExpectedVersion::Any).await.expect("it writes");
    write(&store, "alice", sent("1", "bob")).await;
    let error = run(&store).await.expect_err("it cannot go on");
    assert!(format!("{error:?}").contains("NotAStep"), "{error:?}");
    write(&store, "alice", sent("", "bob")).await;
    assert!(Process::<Transfer>::new(&store).instance("").await.is_err());
}

/// A process can share a repository with the rest of the program.
pub async fn h14_a_process_uses_the_repository_it_is_given(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&store, "alice", sent("1", "bob")).await;
    let wallets = Repository::<Wallet>::new(&store);
    Process::<Transfer>::new(&store).repository(&wallets).catch_up().await.expect("it runs");
    assert!(wallets.metrics().cache_misses >= 2, "{:?}", wallets.metrics());
}

/// Timeouts, and steps that were not finished, survive a reopening.
pub async fn h14_timeouts_survive_a_reopening(fixture: &impl Durable) {
    let clock = ManualClock::new();
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    write(&store, "alice", sent("silent", "bob")).await;
    write(&store, "carol", sent("1", "bob")).await;
    let faulty = FaultyEngine::over(store.engine(), "append 4 crash".parse().expect("a plan"));
    run(&faulty.store()).await.expect_err("it dies");
    let store = fixture.reopen_with(store, Setup::default().clock(clock.clone())).await;
    run(&store).await.expect("it runs");
    let store = fixture.reopen_with(store, Setup::default().clock(clock.clone())).await;
    clock.turn_to(hours(100));
    run(&store).await.expect("it runs");
    let told = ["sent to bob", "noted sending", "noted late at 3600", "noted very late at 7200"];
    assert_eq!(wallet(&store, "alice").await, told);
    assert_eq!(wallet(&store, "bob").await, ["received 5"]);
}
