//! What a decision reads: one state, several of a kind, or a tuple.

use super::super::aggregate::{Apply, State};
use super::current::Current;
use super::part::{AnyPart, Keep, Part};
use crate::log::{InvalidName, Store};

/// What a [decision](crate::Decide) can be over: an [aggregate](trait@crate::Aggregate), a [view](trait@crate::View), a
/// [`Vec`] of one kind, or a tuple of up to eight of these.
///
/// It is implemented for these and need not be implemented otherwise.
#[diagnostic::on_unimplemented(
    message = "a decision cannot be over `{Self}`",
    label = "not an aggregate, a view, a `Vec` or a tuple of these",
    note = "derive `Aggregate` or `View` for it and implement `Apply`; a tuple has up to eight of them"
)]
pub trait Over: 'static {
    /// What names them.
    type Names;

    /// References to their current states.
    type States<'a>;

    #[doc(hidden)]
    type Parts: Send + 'static;

    #[doc(hidden)]
    fn parts(names: Self::Names, store: Option<&Store>) -> Result<Self::Parts, InvalidName>;

    #[doc(hidden)]
    fn states(parts: &Self::Parts) -> Self::States<'_>;

    #[doc(hidden)]
    fn each<'p>(parts: &'p mut Self::Parts, all: &mut Vec<&'p mut dyn AnyPart>);
}

#[diagnostic::do_not_recommend]
impl<S> Over for S
where
    S: State + Apply,
    S::Kind: Keep<S>,
{
    type Names = S::Name;
    type States<'a> = &'a Current<S>;
    type Parts = Part<S>;

    fn parts(name: S::Name, store: Option<&Store>) -> Result<Part<S>, InvalidName> {
        Part::new(name, store)
    }

    fn states(part: &Part<S>) -> &Current<S> {
        part.current()
    }

    fn each<'p>(part: &'p mut Part<S>, all: &mut Vec<&'p mut dyn AnyPart>) {
        all.push(part);
    }
}

impl<O: Over> Over for Vec<O> {
    type Names = Vec<O::Names>;
    type States<'a> = Vec<O::States<'a>>;
    type Parts = Vec<O::Parts>;

    fn parts(names: Vec<O::Names>, store: Option<&Store>) -> Result<Vec<O::Parts>, InvalidName> {
        names.into_iter().map(|names| O::parts(names, store)).collect()
    }

    fn states(parts: &Vec<O::Parts>) -> Vec<O::States<'_>> {
        parts.iter().map(O::states).collect()
    }

    fn each<'p>(parts: &'p mut Vec<O::Parts>, all: &mut Vec<&'p mut dyn AnyPart>) {
        for parts in parts {
            O::each(parts, all);
        }
    }
}

macro_rules! tuple {
    ($($part:ident $place:tt),*) => {
        impl<$($part: Over),*> Over for ($($part,)*) {
            type Names = ($($part::Names,)*);
            type States<'a> = ($($part::States<'a>,)*);
            type Parts = ($($part::Parts,)*);

            #[allow(unused_variables, clippy::allow_attributes, reason = "the empty tuple reads nothing")]
            fn parts(names: Self::Names, store: Option<&Store>) -> Result<Self::Parts, InvalidName> {
                Ok(($($part::parts(names.$place, store)?,)*))
            }

            #[allow(unused_variables, clippy::allow_attributes, clippy::unused_unit, reason = "the empty tuple reads nothing")]
            fn states(parts: &Self::Parts) -> Self::States<'_> {
                ($($part::states(&parts.$place),)*)
            }

            #[allow(unused_variables, clippy::allow_attributes, reason = "the empty tuple reads nothing")]
            fn each<'p>(parts: &'p mut Self::Parts, all: &mut Vec<&'p mut dyn AnyPart>) {
                $($part::each(&mut parts.$place, all);)*
            }
        }
    };
}

tuple!();
tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
