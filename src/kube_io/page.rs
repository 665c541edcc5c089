//! Lists in pages: how to ask for the first one and for each after it.
//!
//! Owns: the size of a page, and what says that there is another. Never does: ask.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::ListParams;

/// Objects in one answer: so that a large cluster's fits into memory twice.
const SIZE: u32 = 500;

/// Asks for the first page of everything.
pub fn first() -> ListParams {
    ListParams::default().limit(SIZE)
}

/// Asks for the page after one with this metadata; `None` after the last.
pub fn after(page: &ListMeta) -> Option<ListParams> {
    let token = page.continue_.as_deref().filter(|token| !token.is_empty());
    token.map(|token| first().continue_token(token))
}
