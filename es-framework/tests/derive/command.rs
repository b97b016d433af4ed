//! What `#[derive(Command)]` says about a type.

use std::fmt::Debug;

use es_framework::Command;

#[derive(Command)]
#[es(name = "account.deposit")]
struct Struct {
    #[expect(dead_code, reason = "only its type matters")]
    cents: u64,
}

#[derive(Command)]
#[es(name = "account.close")]
struct Unit;

#[derive(Command)]
#[es(name = "account.rename")]
struct Tuple<'a>(#[expect(dead_code, reason = "only its type matters")] &'a str);

#[derive(Command)]
#[es(name = "account.any")]
#[expect(dead_code, reason = "only its type matters")]
enum Enum {
    Open,
    Deposit { cents: u64 },
    Rename(String),
}

#[derive(Command)]
#[es(name = "nothing.can.be.done")]
enum Empty {}

#[derive(Command)]
#[es(name = "tally.set")]
struct Generic<'a, T, const N: usize = 2>(#[expect(dead_code, reason = "only its type matters")] &'a [T; N])
where
    T: Debug + Copy;

#[expect(non_camel_case_types, reason = "a raw identifier")]
#[derive(Command)]
#[es(r#name = "grüße – \"q\"")]
struct r#type {
    #[expect(dead_code, reason = "only its type matters")]
    r#fn: u8,
}

/// A scope in which nothing is what it seems.
mod hostile {
    #![no_implicit_prelude]
    #![expect(dead_code, non_camel_case_types, reason = "names that generated code must not use")]

    struct str;
    trait Command {}
    mod core {}
    mod es_framework {}

    #[derive(::es_framework::Command)]
    #[es(name = "hostile")]
    pub(super) struct Plain;
}

fn name<C: Command + ?Sized>() -> &'static str {
    C::NAME
}

#[test]
fn structs_enums_and_generic_types_are_commands() {
    assert_eq!(name::<Struct>(), "account.deposit");
    assert_eq!(name::<Unit>(), "account.close");
    assert_eq!(name::<Tuple<'_>>(), "account.rename");
    assert_eq!(name::<Enum>(), "account.any");
    assert_eq!(name::<Empty>(), "nothing.can.be.done");
    assert_eq!(name::<Generic<'_, u8>>(), "tally.set");
    assert_eq!(name::<Generic<'_, i64, 9>>(), "tally.set");
    assert_eq!(name::<r#type>(), "grüße – \"q\"");
    assert_eq!(name::<hostile::Plain>(), "hostile");
}

#[test]
fn the_name_of_a_command_is_known_when_the_program_is_compiled() {
    const NAME: &str = Struct::NAME;
    assert_eq!(NAME, "account.deposit");
}
