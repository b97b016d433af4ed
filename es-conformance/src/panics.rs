//! G: user code that panics.

use std::error::Error;

use es_framework::{
    Aggregate, Apply, Context, Envelope, ErrorKind, Event, ExecuteError, ExpectedVersion, FoldPanic, Handle, LoadError,
    Progress, Repository,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fixture::Fixture;
use crate::support::{numbered, p, stream, v, write};

/// The text of an event. Decoding panics on `decode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        assert_ne!(text, "decode", "decoding does not like it");
        Ok(Self(text))
    }
}

/// A word was said.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[es(name = "touchy.said")]
pub struct Said(pub Text);

/// Panics on certain words.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, Aggregate)]
#[es(category = "touchy", event = Said, snapshot(when = due))]
pub struct Touchy {
    #[serde(serialize_with = "all_but_state")]
    words: Vec<String>,
}

fn due(state: &Touchy, progress: Progress) -> bool {
    assert_ne!(state.words.last().map(String::as_str), Some("policy"), "the policy does not like it");
    progress.events_since_snapshot >= 2
}

fn all_but_state<S: Serializer>(words: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    assert_ne!(words.last().map(String::as_str), Some("state"), "saving does not like it");
    if words.last().is_some_and(|word| word == "refuse") {
        return Err(serde::ser::Error::custom("saving refuses"));
    }
    words.serialize(serializer)
}

impl Apply for Touchy {
    fn apply(&mut self, event: &Said, at: Envelope<'_>) {
        let word = event.0.0.as_str();
        self.words.push(word.to_owned());
        assert_ne!(word, "apply", "apply does not like it");
        assert!(word != "late" || at.position().get() < 5, "apply does not like the place");
    }
}

/// Says a word; panics on `handle`, and is rejected on `reject`.
#[derive(Debug)]
pub struct Say(pub &'static str);

/// The word is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no")]
pub struct No;

impl Handle<Say> for Touchy {
    type Error = No;
    fn handle(&self, command: &Say, _: &Context<'_, Self>) -> Result<Vec<Said>, No> {
        assert_ne!(command.0, "handle", "the handler does not like it");
        if command.0 == "reject" { Err(No) } else { Ok(vec![Said(Text(command.0.to_owned()))]) }
    }
}

/// Says two words at once.
#[derive(Debug)]
pub struct SayBoth(pub &'static str, pub &'static str);

impl Handle<SayBoth> for Touchy {
    type Error = No;
    fn handle(&self, command: &SayBoth, _: &Context<'_, Self>) -> Result<Vec<Said>, No> {
        Ok(vec![Said(Text(command.0.to_owned())), Said(Text(command.1.to_owned()))])
    }
}

/// A handler that panics on one command brings down nothing else: the caller gets the panic, and the aggregate remains
/// usable.
pub async fn g5_a_panic_in_a_handler_leaves_the_aggregate_usable(fixture: &impl Fixture) {
    let touchy = Repository::<Touchy>::new(fixture.open().await);
    for n in 1..=3 {
        let other = touchy.clone();
        let panicked = tokio::spawn(async move { other.execute("a", Say("handle")).await }).await;
        assert!(panicked.expect_err("the handler panics").is_panic());
        let receipt = touchy.execute("a", Say("fine")).await.expect("it is said");
        assert_eq!(receipt.version, v(n));
    }
    assert_eq!(touchy.metrics().cache_misses, 1, "the state in memory was not lost");
}

/// An event on which `apply` panics was written, and the aggregate could never be loaded again. Now it is rejected.
pub async fn g1_what_cannot_be_folded_is_never_written(fixture: &impl Fixture) {
    let touchy = Repository::<Touchy>::new(fixture.open().await);
    touchy.execute("a", Say("fine")).await.expect("it is said");
    for (word, code) in [("apply", "apply"), ("decode", "decoding")] {
        for cold in [false, true] {
            let touchy = if cold { Repository::new(touchy.store()) } else { touchy.clone() };
            let error = touchy.execute("a", SayBoth("fine", word)).await.expect_err("it could never be loaded again");
            assert_eq!(error.kind(), ErrorKind::Caller);
            let ExecuteError::Unfoldable(FoldPanic { code: found, stream, version, name, message, .. }) = error else {
                panic!("{error:?}");
            };
            assert_eq!((found, stream.as_str(), version, name.as_str()), (code, "touchy-a", v(3), "touchy.said"));
            assert!(message.contains("does not like it"), "{message}");
        }
    }
    let receipt = touchy.execute("a", Say("fine")).await.expect("it is said");
    assert_eq!((receipt.version, receipt.state.words.len()), (v(2), 2), "nothing of it was written or applied");
}

/// A stored event on which the code panics (another program wrote it) produces the same typed error at every load.
pub async fn g4_a_stored_event_that_cannot_be_folded_is_the_same_error_each_time(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for (id, word, code) in [("a", "apply", "apply"), ("b", "decode", "decoding")] {
        let said = [Said(Text("fine".into())), Said(Text(word.into())), Said(Text("fine".into()))];
        let events: Vec<_> = said.iter().map(|event| event.encode().expect("it encodes")).collect();
        write(&stream(&store, &format!("touchy-{id}")), events).await;
        let touchy = Repository::<Touchy>::new(&store);
        let mut errors = Vec::new();
        for _ in 0..3 {
            errors.push(touchy.load(id).await.expect_err("it cannot be folded"));
            match touchy.execute(id, Say("fine")).await.expect_err("it cannot be folded") {
                ExecuteError::Load(error) => errors.push(error),
                other => panic!("{other:?}"),
            }
        }
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Data);
            let LoadError::Panicked(FoldPanic { code: found, stream, version, name, .. }) = error else {
                panic!("{error:?}");
            };
            assert_eq!((found, stream.as_str()), (code, format!("touchy-{id}").as_str()));
            assert_eq!((version, name.as_str()), (v(2), "touchy.said"));
        }
        assert_eq!(touchy.load_as_of(id, v(1)).await.expect("what is before it can be loaded").version, v(1));
    }
}

/// A cached state encounters such an event when it is brought up to date.
pub async fn g4_a_state_in_memory_is_not_spoiled_by_an_event_that_cannot_be_folded(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let touchy = Repository::<Touchy>::new(&store);
    touchy.execute("a", Say("fine")).await.expect("it is said");
    let events = ["fine", "apply"].map(|word| Said(Text(word.into())).encode().expect("it encodes"));
    stream(&store, "touchy-a").write(events, ExpectedVersion::Any).await.expect("it writes");
    for _ in 0..3 {
        let error = touchy.execute("a", Say("fine")).await.expect_err("it cannot be folded");
        let ExecuteError::Load(LoadError::Panicked(panic)) = error else { panic!("{error:?}") };
        assert_eq!(panic.version, v(3));
    }
}

/// `apply` may depend on an event's position, which is unknown before it is written: then the error says that it was
/// written.
pub async fn g5_an_event_that_turns_out_unfoldable_is_said_to_be_written(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let touchy = Repository::<Touchy>::new(&store);
    touchy.execute("a", Say("fine")).await.expect("it is said");
    write(&stream(&store, "other-1"), numbered(1..=6)).await;
    let error = touchy.execute("a", Say("late")).await.expect_err("it turns out");
    assert_eq!(error.kind(), ErrorKind::Data);
    let ExecuteError::WrittenUnfoldable { version, position, source, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*version, *position, source.code), (v(2), p(8), "apply"));
    assert!(error.source().is_some_and(|source| source.to_string().contains("version 2 of touchy-a")), "{error:?}");
    let error = touchy.load("a").await.expect_err("it cannot be folded");
    assert!(matches!(&error, LoadError::Panicked(panic) if panic.version == v(2)), "{error:?}");
}

/// Saving a state happens after the events were written, so neither a panic nor an error in it affects the command.
pub async fn e4_a_panic_in_saving_never_fails_a_command(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for word in ["policy", "state", "refuse"] {
        let touchy = Repository::<Touchy>::new(&store);
        touchy.execute(word, Say("fine")).await.expect("it is said");
        let receipt = touchy.execute(word, Say(word)).await.expect("it is said all the same");
        touchy.snapshots_settled().await;
        assert_eq!(receipt.version, v(2));
        assert_eq!((touchy.metrics().snapshots_failed, touchy.metrics().snapshots_saved), (1, 0), "{word}");
        // Logged, counted, and not retried at every load.
        for _ in 0..10 {
            assert_eq!(touchy.load(word).await.expect("it loads").version, v(2));
        }
        touchy.snapshots_settled().await;
        assert_eq!(touchy.metrics().snapshots_failed, 1, "{word}");
        // It is retried once there are twice as many events.
        for n in 3..=4 {
            assert_eq!(touchy.execute(word, Say("fine")).await.expect("it is said").version, v(n));
        }
        touchy.snapshots_settled().await;
        assert_eq!(touchy.metrics().snapshots_saved, 1, "{word}");
    }
}
