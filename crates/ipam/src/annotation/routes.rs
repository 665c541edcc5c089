//! `routes`: what a Pod wants to reach by another way than its default route.

use ipnet::IpNet;
use serde_json::Value;

use super::json;
use super::{AnnotationError, Get, ROUTES};
use crate::addr::Family;
use crate::route::Wanted;

/// `routes`: the routes a Pod asks for; none where it has no such annotation.
///
/// Errors: [`AnnotationError::Pool`]: no JSON, no CIDR, no gateway, or one of the other family.
/// Cost: O(length).
pub fn routes(get: Get<'_>) -> Result<Vec<Wanted>, AnnotationError> {
    let Some(text) = get(ROUTES) else {
        return Ok(Vec::new());
    };
    let bad = |reason| AnnotationError::pool(ROUTES, text, reason);
    let list = json::parse(text).map_err(bad)?;
    let items = json::array(&list).map_err(bad)?.iter();
    items.map(|item| route(item).map_err(bad)).collect()
}

fn route(item: &Value) -> Result<Wanted, String> {
    let dst = json::text(item, "dst")?.unwrap_or_default();
    let gw = json::text(item, "gw")?.unwrap_or_default();
    let wrong = |why| format!("invalid route format 'dst: {dst}, gw: {gw}', {why}");
    let net: IpNet = dst.parse().map_err(|_| wrong("dst is no CIDR"))?;
    let gateway = gw.parse().map_err(|_| wrong("gw is no IP address"))?;
    if Family::of(net.addr()) != Family::of(gateway) {
        return Err(wrong("dst and gw are not of one IP family"));
    }
    Ok(Wanted {
        dst: net.trunc(),
        gw: gateway,
    })
}
