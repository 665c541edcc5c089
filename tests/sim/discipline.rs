//! What every request of the product must be like, whatever it is for.

use http::Method;
use http::request::Parts;
use serde_json::Value;

/// What may be written whatever it was before: Events, which only tell.
const UNFENCED: [&str; 1] = ["/events"];

/// The rule that a request breaks, and how: a write that would not fail where the object moved (S8),
/// or a list of the controller's that may be older than what it knows (O2).
pub(crate) fn breach(process: &str, head: &Parts, body: &[u8]) -> Option<(&'static str, String)> {
    let (path, method) = (head.uri.path(), &head.method);
    let query = head.uri.query().unwrap_or_default();
    if *method == Method::GET {
        let is_old = query.contains("resourceVersion=0") && !query.contains("watch=");
        return (is_old && process.starts_with("controller"))
            .then(|| ("O2", format!("list of any version: {path}?{query}")));
    }
    let is_told = UNFENCED.iter().any(|kind| path.contains(kind));
    if is_told || *method == Method::POST {
        return None;
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let has = |path: &str| body.pointer(path).is_some_and(|v| v.as_str() != Some(""));
    let is_fenced = match *method {
        Method::PUT => has("/metadata/resourceVersion") && has("/metadata/uid"),
        Method::DELETE => has("/preconditions/uid"),
        _ => false,
    };
    (!is_fenced).then(|| ("S8", format!("unfenced {method} {path}")))
}
