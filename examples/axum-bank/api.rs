//! The HTTP API: which request is which call of the framework.

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use es_framework::{
    BoxError, ExpectedVersion, Position, Provenance, Recorded, Repository, Running, Timestamp, Version,
};
use es_sqlite::SqliteModel;
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use crate::account::{Account, AccountCommand, AccountEvent};
use crate::balances::{self, Balance};
use crate::problem::Problem;

/// How long a request waits for the read model.
const SOON: Duration = Duration::from_secs(2);

/// What the requests work with.
#[derive(Clone)]
pub(crate) struct Bank {
    pub(crate) accounts: Repository<Account>,
    pub(crate) balances: SqliteModel,
    pub(crate) running: Running,
    /// Becomes true when the server begins to stop.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Waits until the server begins to stop.
pub(crate) async fn stopped(mut stopping: watch::Receiver<bool>) {
    drop(stopping.wait_for(|stopping| *stopping).await);
}

type AccountId = Result<Path<String>, PathRejection>;

pub(crate) fn router(bank: Bank) -> Router {
    Router::new()
        .route("/accounts/{id}", get(account).post(execute))
        .route("/accounts/{id}/events", get(events))
        .route("/balances", get(balances))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is nothing here") })
        .method_not_allowed_fallback(|| async { problem(StatusCode::METHOD_NOT_ALLOWED, "not with this method") })
        .with_state(bank)
}

/// `POST /accounts/{id}`: executes a command.
async fn execute(
    State(bank): State<Bank>,
    id: AccountId,
    headers: HeaderMap,
    command: Result<Json<AccountCommand>, JsonRejection>,
) -> Result<Response, Problem> {
    let (Path(id), Json(command)) = (id?, command?);
    let expected = expected_version(&headers)?;
    let mut provenance = Provenance::new();
    if let Some(traceparent) = header(&headers, "traceparent")? {
        provenance = provenance.traceparent(traceparent);
        if let Some(tracestate) = header(&headers, "tracestate")? {
            provenance = provenance.tracestate(tracestate);
        }
    }
    let mut execute = bank.accounts.execute(id, command).expecting(expected).provenance(provenance);
    if let Some(key) = header(&headers, "idempotency-key")? {
        execute = execute.key(key);
    }
    match execute.await.map_err(Problem::from) {
        Ok(receipt) => Ok(shown(receipt.version, receipt.position, &receipt.state)),
        Err(Problem { status: StatusCode::CONFLICT, detail }) if expected != ExpectedVersion::Any => {
            Err(problem(StatusCode::PRECONDITION_FAILED, detail))
        }
        Err(problem) => Err(problem),
    }
}

/// The past of an account: at a version, or at a time in microseconds since 1970.
#[derive(Deserialize)]
struct Past {
    version: Option<Version>,
    at: Option<Timestamp>,
}

/// `GET /accounts/{id}`: the account now, or in the past.
async fn account(
    State(bank): State<Bank>,
    id: AccountId,
    past: Result<Query<Past>, QueryRejection>,
) -> Result<Response, Problem> {
    let (Path(id), Query(past)) = (id?, past?);
    let account = match (past.version, past.at) {
        (None, None) => bank.accounts.load(id).await?,
        (Some(version), None) => bank.accounts.load_as_of(id, version).await?,
        (None, Some(time)) => bank.accounts.load_as_of(id, time).await?,
        _ => return Err(problem(StatusCode::BAD_REQUEST, "give `version` or `at`, not both")),
    };
    if !account.exists() {
        return Err(problem(StatusCode::NOT_FOUND, "there is no such account"));
    }
    Ok(shown(account.version, account.position, &account.state))
}

/// An account, with its version as its `ETag`.
fn shown(version: Version, position: Position, state: &Account) -> Response {
    let body = json!({ "version": version, "position": position, "state": state });
    ([(ETAG, format!("\"{version}\""))], Json(body)).into_response()
}

/// `GET /accounts/{id}/events`: what happened after `Last-Event-ID`, and from then on what happens, as server-sent events.
async fn events(
    State(bank): State<Bank>,
    id: AccountId,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, BoxError>>>, Problem> {
    let seen = header(&headers, "last-event-id")?.map_or(Ok(Version::ZERO), version)?;
    let watch = bank.accounts.watch(id?.0).after(seen).await?;
    // A watch goes on for ever, and a server that stops waits for its responses.
    let events = watch.take_until(Box::pin(stopped(bank.stopping))).map(|event| sent(&event?));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn sent(event: &Recorded<AccountEvent>) -> Result<sse::Event, BoxError> {
    let sent = sse::Event::default().id(event.version().to_string()).event(event.name());
    Ok(sent.json_data(event.event())?)
}

/// What the read model has to show, for example the position in the response to a command.
#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: Position,
}

/// `GET /balances`: the read model, once it has come far enough.
async fn balances(
    State(bank): State<Bank>,
    after: Result<Query<After>, QueryRejection>,
) -> Result<Json<Vec<Balance>>, Problem> {
    bank.running.wait_for(after?.0.after, SOON).await?;
    Ok(Json(balances::read(&bank.balances).await?))
}

/// The version that a client demands: `If-Match: "3"`, `If-Match: *` or `If-None-Match: *`.
fn expected_version(headers: &HeaderMap) -> Result<ExpectedVersion, Problem> {
    match (header(headers, IF_MATCH.as_str())?, header(headers, IF_NONE_MATCH.as_str())?) {
        (None, None) => Ok(ExpectedVersion::Any),
        (Some("*"), None) => Ok(ExpectedVersion::StreamExists),
        (None, Some("*")) => Ok(ExpectedVersion::NoStream),
        (Some(tag), None) => {
            let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            Ok(version(tag.unwrap_or_default())?.into())
        }
        _ => Err(problem(StatusCode::BAD_REQUEST, "If-None-Match takes only *, and not beside If-Match")),
    }
}

fn version(text: &str) -> Result<Version, Problem> {
    let number = text.parse().map_err(|_| problem(StatusCode::BAD_REQUEST, "the header takes one version"))?;
    Ok(Version::new(number))
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Problem> {
    let text = headers.get(name).map(|value| value.to_str()).transpose();
    text.map_err(|_| problem(StatusCode::BAD_REQUEST, format!("{name} is not ASCII")))
}

fn problem(status: StatusCode, detail: impl Into<String>) -> Problem {
    Problem { status, detail: detail.into() }
}
