//! The macros of `es-framework`.
//!
//! Use them through `es-framework`, which re-exports them next to the traits they implement; the generated code refers
//! to `::es_framework` and nothing else. This crate has no API of its own.

mod aggregate;
mod attr;
mod borrowed;
mod check;
mod command;
mod commands;
mod ctxt;
mod event;
mod generate;
mod name;
mod serde_attr;
mod view;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `es_framework::Event`, where it is documented.
#[proc_macro_derive(Event, attributes(es, serde))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    event::derive(&input).into()
}

/// Derives `es_framework::Command`, where it is documented.
#[proc_macro_derive(Command, attributes(es))]
pub fn derive_command(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    command::derive(&input).into()
}

/// Derives `es_framework::Aggregate`, where it is documented.
#[proc_macro_derive(Aggregate, attributes(es))]
pub fn derive_aggregate(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    aggregate::derive(&input).into()
}

/// Derives `es_framework::View`, where it is documented.
#[proc_macro_derive(View, attributes(es))]
pub fn derive_view(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    view::derive(&input).into()
}

/// Turns the methods of an `impl` block into the handlers of an aggregate; documented at `es_framework::commands`.
#[proc_macro_attribute]
pub fn commands(keys: TokenStream, item: TokenStream) -> TokenStream {
    commands::expand(keys.into(), &item.into()).into()
}
