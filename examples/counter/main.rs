//! The log on its own: one stream of typed events, without an aggregate.
//!
//! ```text
//! cargo run --release --example counter
//! ```
//!
//! It writes and reads a stream, folds events into state, watches the stream while it is written, and saves a snapshot
//! so that the next start reads only the events since. The store is in memory; to use a file, replace it with
//! `SqliteStore::open("counter.db").await?` and change nothing else.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;

use es_framework::{Event, ExpectedVersion, MemoryStore, Store, Stream, TypedWatch, Version};

type BoxError = Box<dyn Error + Send + Sync>;

/// The events of a counter.
#[derive(Debug, Clone, PartialEq, Event)]
enum CounterEvent {
    #[es(name = "counter.increased")]
    Increased { by: u32 },
    #[es(name = "counter.decreased")]
    Decreased { by: u32 },
    #[es(name = "counter.reset")]
    Reset,
}

/// The state, which results from the events and nothing else.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counter {
    value: i64,
}

impl Counter {
    fn apply(&mut self, event: &CounterEvent) {
        match event {
            CounterEvent::Increased { by } => self.value += i64::from(*by),
            CounterEvent::Decreased { by } => self.value -= i64::from(*by),
            CounterEvent::Reset => self.value = 0,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let store = Store::from(MemoryStore::new());
    let stream = store.open_stream("counter-visitors")?;

    println!("1. write");
    let first = [CounterEvent::Increased { by: 10 }, CounterEvent::Decreased { by: 3 }];
    let written = stream.write_events(&first, ExpectedVersion::NoStream).await?;
    println!("   {} is at version {}, the log at position {}", stream.id(), written.version(), written.position);

    println!("\n2. read, and fold the events into state");
    let mut counter = Counter::default();
    for event in stream.read_as::<CounterEvent>().await? {
        counter.apply(&event);
        println!("   version {} at {}: {:?}, so the value is {}", event.version(), event.time(), *event, counter.value);
    }

    println!("\n3. an expectation that no longer holds writes nothing");
    match stream.write_events(&[CounterEvent::Reset], Version::new(1)).await {
        Ok(_) => return Err("a write with an old version must not succeed".into()),
        Err(refused) => println!("   {refused}"),
    }

    println!("\n4. watch: the events since version 1, then whatever is written");
    let watch = stream.watch_as().after(Version::new(1)).await?;
    let watcher = tokio::spawn(until_reset(watch));
    for by in [5, 20] {
        stream.write_events(&[CounterEvent::Increased { by }], ExpectedVersion::StreamExists).await?;
    }
    stream.write_events(&[CounterEvent::Reset], ExpectedVersion::Any).await?;
    println!("   the watcher saw {} events, the last of them a reset", watcher.await??);

    println!("\n5. a snapshot, and the events since");
    let (counter, version) = replay(&stream, Counter::default(), Version::ZERO).await?;
    stream.snapshot("value", version, counter.value.to_le_bytes().to_vec()).await?;
    println!("   saved the value {} at version {version}", counter.value);
    for by in 1..=4 {
        stream.write_events(&[CounterEvent::Increased { by }], ExpectedVersion::Any).await?;
    }
    let saved = stream.load_snapshot("value").await?.ok_or("the snapshot was just saved")?;
    let start = Counter { value: i64::from_le_bytes(saved.state.as_ref().try_into()?) };
    let since = Version::new(saved.at);
    let (fast, version) = replay(&stream, start, since).await?;
    let (slow, _) = replay(&stream, Counter::default(), Version::ZERO).await?;
    println!("   from the snapshot: {} events read, value {}", version.get() - since.get(), fast.value);
    println!("   from the start:    {} events read, value {}", version.get(), slow.value);
    if fast != slow {
        return Err("a snapshot and the events since must lead to the same state".into());
    }

    let metrics = stream.metrics().await?;
    println!("\n{} ends at version {}, position {}", stream.id(), metrics.version, metrics.position);
    store.close().await?;
    Ok(())
}

/// Folds the events after a version.
async fn replay(stream: &Stream, mut counter: Counter, mut version: Version) -> Result<(Counter, Version), BoxError> {
    let mut events = stream.read_as().after(version).stream();
    while let Some(event) = events.next().await {
        let event = event?;
        counter.apply(&event);
        version = event.version();
    }
    Ok((counter, version))
}

/// Prints events as they arrive, until the counter is reset; returns their number.
async fn until_reset(mut watch: TypedWatch<CounterEvent>) -> Result<u32, BoxError> {
    let mut seen = 0;
    while let Some(event) = watch.next().await {
        let event = event?;
        seen += 1;
        println!("   watcher: version {} {:?}", event.version(), *event);
        if *event == CounterEvent::Reset {
            break;
        }
    }
    Ok(seen)
}
