use es_framework::Event;

#[derive(serde::Serialize, serde::Deserialize)]
struct Address {
    city: String,
}

#[derive(Event)]
enum OrderEvent {
    #[es(name = "order.sent")]
    Sent {
        #[serde(flatten)]
        to: Address,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        #[serde(skip_serializing)]
        cache: u8,
    },
    #[es(name = "order.paid", codec = es_framework::Bincode)]
    Paid {
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
}

fn main() {}
