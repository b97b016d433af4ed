use es_framework::Command;

#[derive(Command)]
#[es(nmae = "account.deposit")]
struct Misspelt;

#[derive(Command)]
#[es(name = "account.deposit", name = "account.withdraw")]
struct Twice;

#[derive(Command)]
#[es(name = "", version = 2)]
struct Nameless;

#[derive(Command)]
#[es(name = 7)]
struct Number;

#[derive(Command)]
#[es(name = "account.\n")]
struct Control;

#[derive(Command)]
#[es]
struct Empty;

#[derive(Command)]
#[es(name = "account.any")]
enum Any {
    #[es(name = "account.deposit")]
    Deposit {
        #[es(name = "cents")]
        cents: u64,
    },
}

#[derive(Command)]
#[es(name = "account.union")]
union Either {
    small: u8,
    large: u64,
}

/// The implementations are there all the same, so nothing else is wrong.
fn name<C: Command>() -> &'static str {
    C::NAME
}

fn main() {
    let _ = (name::<Misspelt>(), name::<Twice>(), name::<Nameless>(), name::<Number>(), name::<Control>());
    let _ = (name::<Empty>(), name::<Any>(), name::<Either>());
}
