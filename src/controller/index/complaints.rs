//! What a workload must be told before it can be served.

use ipam::addr::Family;

use super::state::{State, families_of};
use crate::controller::workload::Seen;

/// An annotation can't be followed.
const INVALID_ANNOTATION: &str = "InvalidAnnotation";

impl State {
    /// See [`super::Index::complaint`]; `asks` is true while annotations for auto pools are heard.
    pub(super) fn complaint(&self, seen: &Seen, asks: bool) -> Option<(&'static str, String)> {
        if self.is_below_another(seen) {
            return None;
        }
        let of_subnets = asks.then(|| self.complaint_of_subnets(seen)).flatten();
        let of_template = || self.shows_template(seen)?.fault.as_ref();
        let fault = || seen.fault.as_ref().or_else(of_template);
        of_subnets.or_else(|| Some((INVALID_ANNOTATION, fault()?.to_string())))
    }

    fn complaint_of_subnets(&self, seen: &Seen) -> Option<(&'static str, String)> {
        let wish = self.wish(seen)?;
        let wish = match wish.as_ref() {
            Ok(wish) => wish,
            Err(error) => return Some((INVALID_ANNOTATION, error.to_string())),
        };
        families_of(wish).find_map(|(name, family)| {
            let Some(entry) = self.subnets.get(name.as_str()) else {
                let note = format!(
                    "SpiderSubnet {name} does not exist: create it, or name another one in the annotation"
                );
                return Some(("SubnetNotFound", note));
            };
            if let (None, Err(fault)) = (entry.cidr, &entry.parsed) {
                let note = format!("SpiderSubnet {name} serves nobody until it is mended: {fault}");
                return Some(("SubnetNotReady", note));
            }
            let of = entry.cidr.map(|cidr| Family::of(cidr.addr()));
            if let Some(of) = of.filter(|of| *of != family) {
                let note = format!(
                    "SpiderSubnet {name} has {of} addresses, and the annotation asks it for {family} \
                     ones: name it under {}, or another one here",
                    wire_family(of)
                );
                return Some(("SubnetWrongFamily", note));
            }
            let (first, _) = *self.subnets_with(&entry.cidr?).first()?;
            (first != name.as_str()).then(|| {
                let note = format!(
                    "SpiderSubnet {name} serves nobody: the elder SpiderSubnet {first} has the same \
                     CIDR; name that one in the annotation"
                );
                ("SubnetConflicting", note)
            })
        })
    }
}

/// The key of the annotation for a family.
fn wire_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}
