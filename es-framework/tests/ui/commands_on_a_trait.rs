struct Deposit;

#[es_framework::commands]
impl Clone for Deposit {
    fn clone(&self) -> Self {
        Self
    }
}

fn main() {}
