//! What users' types and callers may do at the wrong moment.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::Poll;

use es_framework::{
    Aggregate, Apply, Context, Envelope, Event, ExecuteError, Handle, Json, MemoryStore, Repository, Store,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[es(name = "hostile.happened")]
struct Happened(u64);

struct Happen(u64);

macro_rules! happens {
    ($state:ident) => {
        impl Handle<Happen> for $state {
            type Error = Infallible;
            fn handle(&self, command: &Happen, _: &Context<'_, Self>) -> Result<Vec<Happened>, Infallible> {
                Ok(vec![Happened(command.0)])
            }
        }
    };
}

#[derive(Debug, Default, Clone, Serialize, Deserialize, Aggregate)]
#[es(category = "plain", event = Happened, snapshot(every = 1))]
struct Plain(u64);

impl Apply for Plain {
    fn apply(&mut self, event: &Happened, _: Envelope<'_>) {
        self.0 += event.0;
    }
}
happens!(Plain);

/// A future of `snapshots_settled` was polled once and kept. It held the permits of all saves, so that this repository never
/// saved a snapshot again.
#[tokio::test]
async fn a_wait_for_snapshots_that_is_kept_keeps_none_from_being_saved() {
    let plain = Repository::<Plain>::new(MemoryStore::new());
    plain.execute("a", Happen(1)).await.unwrap();
    let mut kept = pin!(plain.snapshots_settled());
    assert!(poll_fn(|context| Poll::Ready(kept.as_mut().poll(context).is_pending())).await);
    for n in 2..=5 {
        plain.execute("a", Happen(1)).await.unwrap();
        plain.snapshots_settled_by_others(n).await;
    }
}

trait Settled {
    async fn snapshots_settled_by_others(&self, saved: u64);
}

impl Settled for Repository<Plain> {
    async fn snapshots_settled_by_others(&self, saved: u64) {
        for _ in 0..1_000 {
            if self.metrics().snapshots_saved >= saved {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("only {} are saved of {saved}", self.metrics().snapshots_saved);
    }
}

/// Not equal to itself, and with a field that serde skips.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, Aggregate)]
#[es(category = "ratio", event = Happened, snapshot(every = 1))]
struct Ratio {
    ratio: f64,
    #[serde(skip)]
    times: u64,
}

impl Apply for Ratio {
    fn apply(&mut self, _: &Happened, _: Envelope<'_>) {
        self.ratio = f64::NAN;
        self.times += 1;
    }
}
happens!(Ratio);

/// A state with a NaN is not equal to itself, so it was not compared, and was saved without what serde skips.
#[tokio::test]
async fn a_state_with_no_number_in_it_is_compared_all_the_same() {
    let store = Store::from(MemoryStore::new());
    let ratios = Repository::<Ratio>::new(&store);
    ratios.execute("a", Happen(1)).await.unwrap();
    ratios.snapshots_settled().await;
    assert_eq!(Repository::<Ratio>::new(&store).load("a").await.unwrap().state.times, 1);
    assert_eq!(ratios.metrics().snapshots_unfaithful, 1);
}

/// How many copies can be made, or dropped, until one panics.
static COPIES: AtomicI32 = AtomicI32::new(i32::MAX);
static DROPS: AtomicI32 = AtomicI32::new(i32::MAX);

#[derive(Debug, Default, Serialize, Deserialize, Aggregate)]
#[es(category = "touchy", event = Touched)]
struct Touchy(u64);

impl Clone for Touchy {
    fn clone(&self) -> Self {
        assert_ne!(COPIES.fetch_sub(1, Ordering::SeqCst), 1, "no more copies");
        Self(self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Event)]
#[es(name = "touchy.touched")]
struct Touched(Bomb);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Bomb(u64);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert_ne!(DROPS.fetch_sub(1, Ordering::SeqCst), 1, "not dropped");
    }
}

impl Apply for Touchy {
    fn apply(&mut self, event: &Touched, _: Envelope<'_>) {
        self.0 += event.0.0;
    }
}

impl Handle<Happen> for Touchy {
    type Error = Infallible;
    fn handle(&self, command: &Happen, _: &Context<'_, Self>) -> Result<Vec<Touched>, Infallible> {
        Ok(vec![Touched(Bomb(command.0))])
    }
}

/// A receipt was kept, so that the state was cloned after the next append. A `Clone` that panicked then looked as if nothing
/// had been written, and so did an event's `Drop`.
#[tokio::test]
async fn a_panic_anywhere_never_hides_that_events_were_written() {
    for counter in [&COPIES, &DROPS] {
        for until in 1..8 {
            let store = Store::from(MemoryStore::new());
            let touchy = Repository::<Touchy>::new(&store);
            // Holds on to the state, which is copied for the next event.
            let held = touchy.execute("a", Happen(1)).await.unwrap();
            let other = touchy.clone();
            counter.store(until, Ordering::SeqCst);
            let outcome = tokio::spawn(async move { other.execute("a", Happen(1)).await }).await;
            counter.store(i32::MAX, Ordering::SeqCst);
            let written = store.head().get() - 1;
            match outcome {
                Err(panicked) => assert!(panicked.is_panic() && written == 0, "{until}: {written} written"),
                Ok(Ok(receipt)) => assert_eq!((receipt.state.0, written), (2, 1)),
                Ok(Err(ExecuteError::WrittenUnfoldable { .. })) => assert_eq!(written, 1),
                Ok(Err(error)) => assert_eq!(written, 0, "{error}"),
            }
            assert_eq!(touchy.load("a").await.unwrap().state.0, 1 + written);
            assert_eq!(touchy.execute("a", Happen(1)).await.unwrap().state.0, 2 + written);
            assert_eq!(held.state.0, 1);
        }
    }
}

// States that are hard to save.

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Key {
    One,
    Two(u8),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Loose {
    Number(i64),
    Float(f64),
    Text(String),
    Pair { a: u8, b: u8 },
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Tree {
    leaf: u64,
    branches: Vec<Self>,
    next: Option<Box<Self>>,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Rest {
    #[serde(flatten)]
    rest: BTreeMap<String, u64>,
    #[serde(rename(serialize = "written", deserialize = "read"), default)]
    two_names: u64,
}

macro_rules! states {
    ($($state:ident: $type:ty, $codec:ty = $value:expr, $saved:expr;)*) => {
        $(
            #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, Aggregate)]
            #[es(category = "hard", event = Happened, snapshot(every = 1, codec = $codec))]
            struct $state {
                value: $type,
                after: u64,
            }

            impl Apply for $state {
                fn apply(&mut self, _: &Happened, _: Envelope<'_>) {
                    self.value = $value;
                    self.after = 7;
                }
            }
            happens!($state);
        )*

        /// What a codec loses is not guessed from a type, but seen from the value.
        #[tokio::test]
        async fn every_state_is_saved_as_it_is_or_not_at_all() {
            $(
                let store = Store::from(MemoryStore::new());
                let states = Repository::<$state>::new(&store);
                let state = states.execute("a", Happen(1)).await.unwrap().state;
                states.snapshots_settled().await;
                let metrics = states.metrics();
                let cold = Repository::<$state>::new(&store);
                let loaded = cold.load("a").await.unwrap().state;
                assert_eq!(format!("{loaded:?}"), format!("{state:?}"), stringify!($state));
                assert_eq!(metrics.snapshots_saved + metrics.snapshots_failed, 1, stringify!($state));
                assert_eq!((metrics.snapshots_saved == 1, cold.metrics().snapshots_used == 1), ($saved, $saved), stringify!($state));
            )*
        }
    };
}

type Bincode = es_framework::Bincode;

/// With its feature `arbitrary_precision`, serde_json hands numbers over as maps, which no untagged variant takes.
fn keeps_untagged_numbers() -> bool {
    serde_json::from_str::<serde_json::Value>("1e400").is_err()
}

states! {
    KeyedByEnum: BTreeMap<Key, u8>, Bincode = [(Key::One, 1), (Key::Two(2), 3)].into(), true;
    KeyedByEnumInJson: BTreeMap<Key, u8>, Json = [(Key::Two(2), 3)].into(), false;
    KeyedByUnit: BTreeMap<Key, u8>, Json = [(Key::One, 3)].into(), true;
    KeyedByOption: BTreeMap<Option<u8>, u8>, Bincode = [(None, 1), (Some(0), 2)].into(), true;
    KeyedByOptionInJson: BTreeMap<Option<u8>, u8>, Json = [(None, 1)].into(), false;
    KeyedByArray: BTreeMap<[u8; 2], Vec<Option<(u8, bool)>>>, Bincode = [([1, 2], vec![None, Some((1, true))])].into(), true;
    KeyedByBool: BTreeMap<bool, char>, Json = [(true, 'é'), (false, '\0')].into(), true;
    KeyedByWide: BTreeMap<i128, u128>, Json = [(i128::MIN, u128::MAX)].into(), true;
    LooseFloat: Vec<Loose>, Json = vec![Loose::Float(1.0), Loose::Float(-0.0), Loose::Number(-1)], keeps_untagged_numbers();
    LooseHuge: Vec<Loose>, Json = vec![Loose::Float(1e300), Loose::Text("x".into()), Loose::Pair { a: 1, b: 2 }], keeps_untagged_numbers();
    LooseInfinite: Vec<Loose>, Json = vec![Loose::Float(f64::INFINITY)], false;
    Nested: Tree, Bincode = Tree { leaf: 1, branches: vec![Tree::default(); 3], next: Some(Box::default()) }, true;
    NestedInJson: Tree, Json = Tree { leaf: 1, branches: vec![Tree::default(); 3], next: Some(Box::default()) }, true;
    TooDeep: Tree, Bincode = (0..200).fold(Tree::default(), |tree, _| Tree { next: Some(Box::new(tree)), ..Tree::default() }), false;
    TooDeepInJson: Tree, Json = (0..200).fold(Tree::default(), |tree, _| Tree { next: Some(Box::new(tree)), ..Tree::default() }), false;
    Flattened: Rest, Json = Rest { rest: [("a".into(), 1)].into(), two_names: 0 }, false;
    Negative: (f32, f64), Json = (-0.0, -0.0), true;
    Single: Vec<f32>, Json = vec![0.1, 16_777_216.0, f32::MIN_POSITIVE, 3.402_823_5e38], true;
    Text: Vec<String>, Json = vec!["\0\u{7f}\u{2028}\u{10ffff}\"\\".into()], true;
    Nothing: (), Json = (), true;
    Ordering3: Option<std::cmp::Reverse<u8>>, Bincode = Some(std::cmp::Reverse(1)), true;
    Durations: (std::time::Duration, std::ops::Range<u8>, Option<std::net::IpAddr>), Json = (std::time::Duration::MAX, 1..2, Some([1, 2, 3, 4].into())), true;
    Large: Vec<String>, Bincode = (0..10_000).map(|n| format!("{n}").repeat(5)).collect(), true;
}
