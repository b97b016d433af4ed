//! A client that tells a short story over HTTP, and prints what was sent and what came back.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use es_framework::BoxError;
use ureq::{Agent, http::Request};

/// Tells the story to the server at `url`; blocks.
pub(crate) fn story(url: &str) -> Result<(), BoxError> {
    let timeout = Some(Duration::from_secs(30));
    let agent: Agent = Agent::config_builder().http_status_as_error(false).timeout_global(timeout).build().into();
    let send = |request: &str, header: (&str, &str), body: &str| send(&agent, url, request, header, body);

    println!("1. Alice opens an account, which has to be a new one, and deposits 5 euros");
    send("POST /accounts/alice", ("If-None-Match", "*"), r#"{"open": {"owner": "Alice"}}"#)?;
    send("POST /accounts/alice", ("Idempotency-Key", "payment-17"), r#"{"deposit": {"cents": 500}}"#)?;
    println!("2. As if the response had been lost, she sends it again: the same response, and nothing is written");
    send("POST /accounts/alice", ("Idempotency-Key", "payment-17"), r#"{"deposit": {"cents": 500}}"#)?;
    println!("3. Whoever saw version 1 is told that it is outdated; and nobody gets more than there is");
    send("POST /accounts/alice", ("If-Match", "\"1\""), r#"{"withdraw": {"cents": 100}}"#)?;
    send("POST /accounts/alice", ("If-Match", "\"2\""), r#"{"withdraw": {"cents": 900}}"#)?;
    println!("4. The table of balances, once it shows position 2");
    send("GET /balances?after=2", ("Accept", "application/json"), "")?;
    println!("5. What happened after version 1, as the EventSource of a browser gets it");
    send("GET /accounts/alice/events", ("Last-Event-ID", "1"), "")
}

/// Prints a request and its response; of one without end, the first event.
fn send(agent: &Agent, url: &str, request: &str, (name, value): (&str, &str), body: &str) -> Result<(), BoxError> {
    println!("   > {request}\n   > {name}: {value}");
    let (method, path) = request.split_once(' ').ok_or("a request is a method and a path")?;
    let request = Request::builder().method(method).uri(format!("{url}{path}")).header(name, value);
    let mut response = if body.is_empty() {
        agent.run(request.body(())?)?
    } else {
        println!("   > {body}");
        agent.run(request.header("Content-Type", "application/json").body(body)?)?
    };
    println!("   < {}", response.status());
    if let Some(tag) = response.headers().get("ETag") {
        println!("   < ETag: {}", tag.to_str()?);
    }
    for line in BufReader::new(response.body_mut().as_reader()).lines() {
        match line? {
            end if end.is_empty() => break,
            line => println!("   < {line}"),
        }
    }
    println!();
    Ok(())
}
