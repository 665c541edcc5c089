//! The CEL rules that several fields share, so that one mistake has one message.
//!
//! Owns: what the API server itself refuses when no process of ours runs. Never does: check what
//! needs arithmetic on addresses (that a range lies in its subnet, that two pools don't overlap);
//! the controller says that in conditions. Each rule is linear in a text or list whose length the
//! schema bounds, so its estimated cost stays within the API server's budget.

use kube::core::Rule;

/// Most elements of a list of ranges: what fits into one object in etcd, with room for records.
pub(super) const MAX_RANGES: usize = 16_384;

/// Longest range: two IPv6 addresses of at most 45 characters each and a dash, rounded up.
pub(super) const MAX_RANGE_LEN: usize = 96;

/// Longest address or CIDR: 45 characters and a prefix length, rounded up.
pub(super) const MAX_ADDRESS_LEN: usize = 64;

/// Most routes of a pool, subnet or NIC.
pub(super) const MAX_ROUTES: usize = 1024;

/// Most conditions of an object; we write three.
pub(super) const MAX_CONDITIONS: usize = 64;

/// The text looks like an address.
pub(super) fn address() -> Rule {
    Rule::new("self.matches('^[0-9A-Fa-f:.]+$')")
        .message("must be an IP address without a prefix length")
}

/// The text looks like a network.
pub(super) fn cidr() -> Rule {
    Rule::new("self.matches('^[0-9A-Fa-f:.]+/[0-9]{1,3}$')")
        .message("must be a CIDR, such as 10.6.0.0/16 or fd00:6::/64")
}

/// Every element of the list looks like an address or a range of them.
pub(super) fn ranges() -> Rule {
    Rule::new("self.all(r, r.matches('^[0-9A-Fa-f:.]+(-[0-9A-Fa-f:.]+)?$'))").message(
        "each element must be an IP address or first-last, without blanks and prefix lengths",
    )
}

/// Every route of the list goes from something like a network to something like an address.
pub(super) fn routes() -> Rule {
    Rule::new(
        "self.all(r, r.dst.matches('^[0-9A-Fa-f:.]+/[0-9]{1,3}$') && r.gw.matches('^[0-9A-Fa-f:.]+$'))",
    )
    .message("each dst must be a CIDR, each gw an IP address without a prefix length")
}

/// The field keeps the value it got first. One that is absent may still be set.
pub(super) fn immutable() -> Rule {
    Rule::new("self == oldSelf").message("is not changeable: make a new object instead")
}

/// `spec.ipVersion`, where given, is the family of `spec.subnet`.
pub(super) fn version_fits_subnet() -> Rule {
    Rule::new("!has(self.ipVersion) || (self.ipVersion == 6) == self.subnet.contains(':')")
        .message("ipVersion and subnet must be of one family")
}

/// `spec.gateway`, where given, is of the family of `spec.subnet`.
pub(super) fn gateway_fits_subnet() -> Rule {
    Rule::new("!has(self.gateway) || self.gateway.contains(':') == self.subnet.contains(':')")
        .message("gateway and subnet must be of one family")
}
