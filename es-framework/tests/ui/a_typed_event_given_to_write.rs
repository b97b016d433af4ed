use es_framework::{Event, ExpectedVersion, Store};

#[derive(Event)]
#[es(name = "deposited")]
struct Deposited;

async fn run(store: Store) -> Result<(), Box<dyn std::error::Error>> {
    let account = store.open_stream("account-alice")?;
    account.write(Deposited, ExpectedVersion::Any).await?;
    account.write(vec![Deposited], ExpectedVersion::Any).await?;
    Ok(())
}

fn main() {}
