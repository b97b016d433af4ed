//! Queries as the functions of the schema take them.

use es_framework::{Query, StoreError};

use crate::connection::errors;

/// The criteria of a query as JSON: `[{"types": [...], "tags": [...]}, ...]`.
pub(crate) fn criteria(query: &Query) -> Result<String, StoreError> {
    let criteria: Vec<_> = query
        .criteria()
        .iter()
        .map(|criterion| {
            let types: Vec<&str> = criterion.types.iter().map(AsRef::as_ref).collect();
            let tags: Vec<&str> = criterion.tags.iter().map(AsRef::as_ref).collect();
            serde_json::json!({ "types": types, "tags": tags })
        })
        .collect();
    serde_json::to_string(&criteria).map_err(|error| errors::internal(error.to_string()))
}
