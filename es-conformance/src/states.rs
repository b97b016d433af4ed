//! States that a snapshot must not be used for, or that must not be saved.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;

use es_framework::{Aggregate, Apply, Context, Envelope, Event, Handle, Json};
use serde::{Deserialize, Serialize};

/// Something was entered.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[es(name = "state.entered")]
pub(crate) struct Entered {
    pub(crate) debit: u64,
    pub(crate) credit: u64,
}

/// A code that accepts only its own text, so that none can be made up.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Code(u64);

impl TryFrom<String> for Code {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let number = text.strip_prefix("code-").and_then(|number| number.parse().ok());
        number.map(Self).ok_or_else(|| format!("{text:?} is no code"))
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        format!("code-{}", code.0)
    }
}

/// Enters a debit and a credit.
pub(crate) struct Enter(pub(crate) u64, pub(crate) u64);

macro_rules! enters {
    ($state:ident) => {
        impl Handle<Enter> for $state {
            type Error = Infallible;
            fn handle(&self, enter: &Enter, _: &Context<'_, Self>) -> Result<Vec<Entered>, Infallible> {
                Ok(vec![Entered { debit: enter.0, credit: enter.1 }])
            }
        }
    };
}

/// One ledger in several programs, which agree on its events but not on its state.
macro_rules! ledger {
    ($program:ident: $codec:ty, {$($field:ident),*}, {$($variant:ident),*}, $number:ty) => {
        pub(crate) mod $program {
            use super::*;

            #[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub(crate) struct Line {
                $(pub(crate) $field: u64,)*
            }

            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub(crate) enum Side {
                $($variant(u64),)*
            }

            #[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, Aggregate)]
            #[es(category = "ledger", event = Entered, snapshot(every = 1, codec = $codec))]
            pub(crate) struct Ledger {
                pub(crate) in_pairs: Vec<(Code, Line)>,
                pub(crate) in_map: BTreeMap<(Code, u8), Line>,
                pub(crate) sides: Option<(Code, Vec<Side>)>,
                pub(crate) number: Option<(Code, $number)>,
            }

            impl Apply for Ledger {
                fn apply(&mut self, event: &Entered, _: Envelope<'_>) {
                    let line = Line { debit: event.debit, credit: event.credit };
                    self.in_pairs.push((Code(1), line.clone()));
                    self.in_map.insert((Code(2), 0), line);
                    self.sides = Some((Code(3), vec![Side::Debit(event.debit), Side::Credit(event.credit)]));
                    self.number = Some((Code(4), 7));
                }
            }
            enters!(Ledger);
        }
    };
}

ledger!(first: es_framework::Bincode, {debit, credit}, {Debit, Credit}, u32);
ledger!(same: es_framework::Bincode, {debit, credit}, {Debit, Credit}, u32);
ledger!(fields_swapped: es_framework::Bincode, {credit, debit}, {Debit, Credit}, u32);
ledger!(variants_swapped: es_framework::Bincode, {debit, credit}, {Credit, Debit}, u32);
ledger!(wider: es_framework::Bincode, {debit, credit}, {Debit, Credit}, u64);
ledger!(signed: es_framework::Bincode, {debit, credit}, {Debit, Credit}, i32);
ledger!(in_json: Json, {debit, credit}, {Debit, Credit}, u32);

/// States with one field, which gets one value with the first event.
macro_rules! states {
    ($($(#[$attribute:meta])* $state:ident($type:ty, $codec:ty) = $value:expr;)*) => {
        $(
            #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, Aggregate)]
            #[es(category = "state", event = Entered, snapshot(every = 1, codec = $codec))]
            pub(crate) struct $state {
                pub(crate) entered: u64,
                $(#[$attribute])*
                pub(crate) value: $type,
            }

            impl Apply for $state {
                fn apply(&mut self, _: &Entered, _: Envelope<'_>) {
                    self.entered += 1;
                    self.value = $value;
                }
            }
            enters!($state);
        )*
    };
}

/// Two variants that are the same to serde.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Alike {
    A(u8),
    B(u8),
}

impl Default for Alike {
    fn default() -> Self {
        Self::A(0)
    }
}

/// A part of a state with a field that is never written.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Nested {
    kept: u8,
    #[serde(skip)]
    skipped: u8,
}

type Bincode = es_framework::Bincode;

// States that the codec does not round-trip.
states! {
    NothingInSomething(Option<Option<u8>>, Json) = Some(None);
    UnitInSomething(Option<()>, Json) = Some(());
    Infinite(f64, Json) = f64::INFINITY;
    NotANumber(Option<f64>, Json) = Some(f64::NAN);
    Untagged(Alike, Json) = Alike::B(1);
    UntaggedInBincode(Alike, Bincode) = Alike::B(1);
    #[serde(skip)]
    Skipped(u8, Bincode) = 1;
    #[serde(skip)]
    SkippedInJson(u8, Json) = 1;
    #[serde(skip_serializing, default)]
    NotWritten(u8, Json) = 1;
    #[serde(skip_serializing_if = "Option::is_none")]
    SkippedIf(Option<u8>, Bincode) = None;
    SkippedInside(Vec<Nested>, Bincode) = vec![Nested { kept: 1, skipped: 1 }];
}

// States that it does round-trip.
states! {
    NothingInSomethingInBincode(Option<Option<u8>>, Bincode) = Some(None);
    NotANumberInBincode(f64, Bincode) = f64::NAN;
    LastDigit(Vec<f64>, Json) = vec![31.245_270_191_439_438, 2.225_073_858_507_201_4e-308, 5e-324, 0.1 + 0.2, -0.0, 1e23];
    Hashed(HashMap<u32, HashSet<u32>>, Bincode) = (0..50).map(|n| (n, (0..n).collect())).collect();
    HashedInJson(HashMap<u32, HashSet<u32>>, Json) = (0..50).map(|n| (n, (0..n).collect())).collect();
    Wide(Vec<i128>, Json) = vec![i128::MIN, i128::MAX, 0];
    #[serde(skip)]
    SkippedAndTheSame(u8, Bincode) = 0;
}

/// A state without `PartialEq` whose skipped field only `Debug` can see.
#[derive(Debug, Default, Clone, Serialize, Deserialize, Aggregate)]
#[es(category = "state", event = Entered, snapshot(every = 1))]
pub(crate) struct Incomparable {
    pub(crate) hashed: HashSet<u64>,
    #[serde(skip)]
    pub(crate) skipped: u64,
}

impl Apply for Incomparable {
    fn apply(&mut self, event: &Entered, _: Envelope<'_>) {
        self.hashed.extend(0..50);
        self.skipped = event.debit;
    }
}
enters!(Incomparable);
