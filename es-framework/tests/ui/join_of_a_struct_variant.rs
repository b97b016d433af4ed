use es_framework::Event;

#[derive(Event)]
#[es(name = "opened")]
struct Opened;

#[derive(Event)]
#[es(join)]
enum BankEvent {
    Opened { event: Opened },
    #[es(name = "other")]
    Other(Opened),
}

fn main() {}
