//! Addresses as the objects write them: single ones and ranges, opened up into a set.
//!
//! A reading of our own, so that a mistake in the product's is not shared.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail, ensure};

/// A set of addresses; small, since scenarios are.
pub type Addresses = BTreeSet<IpAddr>;

/// Largest range that is opened up.
const RANGE_MAX: u128 = 1 << 16;

/// The addresses of texts such as `10.0.0.1` and `10.0.0.5-10.0.0.9`.
pub fn addresses<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Addresses> {
    let mut all = Addresses::new();
    for text in texts {
        let range = range(text).with_context(|| format!("not a range of addresses: {text:?}"))?;
        all.extend(range);
    }
    Ok(all)
}

/// The set as one reads it, for messages.
pub fn told(set: &Addresses) -> String {
    let words: Vec<String> = set.iter().map(ToString::to_string).collect();
    format!("{{{}}}", words.join(" "))
}

fn range(text: &str) -> Result<Vec<IpAddr>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<IpAddr>()?, last.parse::<IpAddr>()?);
    ensure!(first <= last, "it ends before it begins");
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let numbers = numbers(first.to_bits().into(), last.to_bits().into())?;
            let address = |bits| u32::try_from(bits).map(|bits| Ipv4Addr::from_bits(bits).into());
            Ok(numbers.map(address).collect::<Result<_, _>>()?)
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let numbers = numbers(first.to_bits(), last.to_bits())?;
            Ok(numbers
                .map(|bits| Ipv6Addr::from_bits(bits).into())
                .collect())
        }
        _ => bail!("its ends are of two families"),
    }
}

fn numbers(first: u128, last: u128) -> Result<impl Iterator<Item = u128>> {
    ensure!(
        last - first < RANGE_MAX,
        "it is larger than any scenario wants"
    );
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_single_addresses_of_both_families_are_opened_up() {
        let set = addresses(["10.0.0.254-10.0.1.1", "10.0.0.9", "fd00::a-fd00::b"]).unwrap();
        assert_eq!(
            told(&set),
            "{10.0.0.9 10.0.0.254 10.0.0.255 10.0.1.0 10.0.1.1 fd00::a fd00::b}"
        );
    }

    #[test]
    fn what_is_no_range_is_refused_by_name() {
        for text in [
            "",
            "10.0.0.9-10.0.0.1",
            "10.0.0.0/24",
            "10.0.0.1-fd00::1",
            "::-ffff::",
        ] {
            let error = addresses([text]).unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
