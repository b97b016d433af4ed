//! Compares two states with what their type implements: `PartialEq`, else `Debug`, else not at all. A state with a NaN in it
//! does not equal itself, so `PartialEq` says nothing about it, and `Debug` decides.
//!
//! Generated code calls `(&&&&States(a, b)).equal()`. The compiler picks the method that needs the fewest dereferences,
//! so of the impls whose bounds hold, the one for the reference with the most `&` wins.

use std::fmt::{self, Write};

/// Two states of one type.
#[derive(Debug)]
pub struct States<'a, A>(pub &'a A, pub &'a A);

/// For states with `PartialEq` and `Debug`.
pub trait ByBoth {
    /// Whether they are equal, or the same is written for both where they are not equal to themselves.
    fn equal(&self) -> bool;
}

#[expect(clippy::eq_op, reason = "a float that is no number is not equal to itself")]
impl<A: PartialEq + fmt::Debug> ByBoth for &&&States<'_, A> {
    fn equal(&self) -> bool {
        self.0 == self.1 || (self.0 != self.0 && self.1 != self.1 && Histogram::of(self.0) == Histogram::of(self.1))
    }
}

/// For states with `PartialEq`.
pub trait ByPartialEq {
    /// Whether they are equal.
    fn equal(&self) -> bool;
}

impl<A: PartialEq> ByPartialEq for &&States<'_, A> {
    fn equal(&self) -> bool {
        self.0 == self.1
    }
}

/// For states with `Debug`.
pub trait ByDebug {
    /// Whether both print the same bytes in any order: the order of a `HashMap` differs each time.
    fn equal(&self) -> bool;
}

impl<A: fmt::Debug> ByDebug for &States<'_, A> {
    fn equal(&self) -> bool {
        Histogram::of(self.0) == Histogram::of(self.1)
    }
}

/// For all other states.
pub trait ByNothing {
    /// Always true: nothing is known.
    fn equal(&self) -> bool;
}

impl<A> ByNothing for States<'_, A> {
    fn equal(&self) -> bool {
        true
    }
}

/// How often each byte is written.
#[derive(PartialEq)]
struct Histogram([u64; 256]);

impl Histogram {
    /// [`None`] if the type's `Debug` fails.
    fn of(value: &impl fmt::Debug) -> Option<Self> {
        let mut histogram = Self([0; 256]);
        write!(histogram, "{value:?}").ok()?;
        Some(histogram)
    }
}

impl Write for Histogram {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(count) = self.0.get_mut(usize::from(byte)) {
                *count += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    macro_rules! equal {
        ($a:expr, $b:expr) => {
            (&&&&States(&$a, &$b)).equal()
        };
    }

    #[test]
    fn states_are_compared_by_the_best_there_is() {
        #[derive(PartialEq)]
        struct Comparable(u8);
        #[derive(Debug)]
        struct Shown(#[expect(dead_code, reason = "shown only")] HashSet<u32>);
        /// Equal by definition, whatever is shown.
        #[derive(Debug)]
        struct Both(#[expect(dead_code, reason = "shown only")] u8);
        impl PartialEq for Both {
            fn eq(&self, _: &Self) -> bool {
                true
            }
        }
        struct Neither(#[expect(dead_code, reason = "nobody can look")] u8);

        assert!(equal!(Comparable(1), Comparable(1)) && !equal!(Comparable(1), Comparable(2)));
        let shown = |end: u32| Shown((0..end).collect());
        assert!(equal!(shown(100), shown(100)) && !equal!(shown(100), shown(99)));
        assert!(equal!(Both(1), Both(2)));
        assert!(equal!(Neither(1), Neither(2)));
    }
}
