use super::*;
use crate::addr::parse_list;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A set of one family, from blank-separated ranges.
fn family_set(text: &str, family: Family) -> AddrSet {
    parse_list(&text.split_whitespace().collect::<Vec<_>>(), family).unwrap()
}

fn set(text: &str) -> AddrSet {
    family_set(text, Family::V4)
}

/// Ten IPv4 and two IPv6 addresses.
fn both() -> AddrSet {
    set("10.0.0.1-10.0.0.10").union(&family_set("fd00::1-fd00::2", Family::V6))
}

fn net(text: &str) -> AddrSet {
    Range::of_net(&text.parse().unwrap()).into()
}

#[test]
fn collecting_sorts_joins_and_drops_repetition() {
    let texts = "10.0.0.9 10.0.0.5-10.0.0.7 10.0.0.1-10.0.0.2 10.0.0.3 10.0.0.6 10.0.0.9";
    assert_eq!(
        set(texts).to_string(),
        "[10.0.0.1-10.0.0.3 10.0.0.5-10.0.0.7 10.0.0.9]"
    );
    // The joined range may reach over several later ones.
    assert_eq!(
        set("10.0.0.0-10.0.0.9 10.0.0.1 10.0.0.3-10.0.0.4 10.0.0.10")
            .ranges()
            .len(),
        1
    );
}

#[test]
fn the_empty_set_answers_everything() {
    let empty = AddrSet::new();
    assert_eq!(empty, AddrSet::default());
    assert!(empty.is_empty() && empty.is_subset(&empty) && empty.is_disjoint(&empty));
    assert_eq!((empty.first(), empty.last()), (None, None));
    assert_eq!(empty.next_from(ip("0.0.0.0")), None);
    assert_eq!(empty.count(), AddrCount::ZERO);
    assert_eq!(empty.to_string(), "[]");
}

#[test]
fn next_from_stays_in_the_family_it_was_asked_for() {
    let set = both();
    let next = |addr: &str| set.next_from(ip(addr));
    assert_eq!(next("0.0.0.0"), Some(ip("10.0.0.1")));
    assert_eq!(next("10.0.0.4"), Some(ip("10.0.0.4")));
    assert_eq!(next("10.0.0.11"), None);
    assert_eq!(next("::"), Some(ip("fd00::1")));
    assert_eq!(next("fd00::3"), None);
}

#[test]
fn difference_follows_its_drawing() {
    let whole = set("10.0.0.10-10.0.0.24 10.0.0.28-10.0.0.32");
    let cuts = set("10.0.0.9-10.0.0.12 10.0.0.16-10.0.0.19 10.0.0.23-10.0.0.30");
    assert_eq!(
        whole.difference(&cuts),
        set("10.0.0.13-10.0.0.15 10.0.0.20-10.0.0.22 10.0.0.31-10.0.0.32")
    );
}

#[test]
fn extend_range_follows_its_drawing() {
    let mut grown = set("10.0.0.1-10.0.0.2 10.0.0.4-10.0.0.5 10.0.0.10 10.0.0.20");
    grown.extend_range(Range::new(ip("10.0.0.6"), ip("10.0.0.12")).unwrap());
    assert_eq!(grown, set("10.0.0.1-10.0.0.2 10.0.0.4-10.0.0.12 10.0.0.20"));
}

#[test]
fn removing_an_inner_address_splits_its_range() {
    let mut holed = set("10.0.0.1-10.0.0.3");
    assert!(holed.remove(ip("10.0.0.2")));
    assert_eq!(holed, set("10.0.0.1 10.0.0.3"));
    assert!(!holed.remove(ip("10.0.0.2")));
    assert!(holed.insert(ip("10.0.0.2")));
    assert_eq!(holed, set("10.0.0.1-10.0.0.3"));
    assert!(!holed.insert(ip("10.0.0.2")));
}

#[test]
fn a_shortage_leaves_the_set_as_it_was() {
    let mut pool = both();
    let shortage = Shortage {
        wanted: AddrCount::new(13),
        left: AddrCount::new(12),
    };
    assert_eq!(pool.take_lowest(shortage.wanted), Err(shortage));
    assert_eq!(pool.take_highest(shortage.wanted), Err(shortage));
    assert_eq!(pool, both());
    assert_eq!(
        shortage.to_string(),
        "wanted 13 addresses, but only 12 are left"
    );
}

#[test]
fn taking_goes_from_ipv4_upwards_and_from_ipv6_downwards() {
    let mut pool = both();
    assert_eq!(
        pool.take_lowest(AddrCount::new(2)),
        Ok(set("10.0.0.1-10.0.0.2"))
    );
    let highest = pool.take_highest(AddrCount::new(3)).unwrap();
    assert_eq!(highest.to_string(), "[10.0.0.10 fd00::1-fd00::2]");
    assert_eq!(pool, set("10.0.0.3-10.0.0.9"));
    assert_eq!(pool.take_lowest(AddrCount::ZERO), Ok(AddrSet::new()));
}

#[test]
fn only_one_family_is_kept() {
    assert_eq!(both().only(Family::V4), set("10.0.0.1-10.0.0.10"));
    assert_eq!(both().only(Family::V6).count().get(), 2);
}

// Each of these would not end, or not fit in memory, if anything expanded a range.
#[test]
fn the_largest_networks_cost_what_small_ones_cost() {
    let mut pool = net("fd00::/64");
    assert!(pool.remove(ip("fd00::8000:0:0:0")));
    assert_eq!(pool.count().get(), (1 << 64) - 1);
    let half = AddrCount::new(1 << 63);
    assert_eq!(pool.take_lowest(half), Ok(net("fd00::/65")));
    assert_eq!(pool.first(), Some(ip("fd00::8000:0:0:1")));
    assert!(pool.is_disjoint(&net("fd00::/65")) && pool.is_subset(&net("fd00:0:0:0:8000::/65")));
}

#[test]
fn everything_there_is_can_be_handled() {
    let mut all = net("0.0.0.0/0").union(&net("::/0"));
    assert_eq!(all.count().get(), u128::MAX);
    assert_eq!(all.iter().nth(3), Some(ip("0.0.0.3")));
    assert_eq!(net("::/0").difference(&net("::/1")), net("8000::/1"));
    assert_eq!(net("::/1").union(&net("8000::/1")), net("::/0"));
    let taken = all.take_highest(AddrCount::new(u128::MAX)).unwrap();
    assert_eq!(
        (taken.count().get(), taken.first()),
        (u128::MAX, Some(ip("::1")))
    );
    assert_eq!(all.to_string(), "[0.0.0.0-255.255.255.255 ::]");
}

#[test]
fn sets_are_disjoint_up_to_the_last_address_of_their_ranges() {
    let middle = set("10.0.0.5-10.0.0.7 10.0.0.20");
    for (other, disjoint) in [
        ("10.0.0.1-10.0.0.4 10.0.0.8-10.0.0.19 10.0.0.21", true),
        ("10.0.0.1-10.0.0.5", false),
        ("10.0.0.7-10.0.0.9", false),
        ("10.0.0.6", false),
        ("10.0.0.1-10.0.0.30", false),
        ("10.0.0.20", false),
        ("10.0.0.1 10.0.0.20-10.0.0.21", false),
    ] {
        assert_eq!(middle.is_disjoint(&set(other)), disjoint, "{other}");
        assert_eq!(set(other).is_disjoint(&middle), disjoint, "{other}");
    }
    assert!(set("10.0.0.1").is_disjoint(&family_set("::a00:1", Family::V6)));
}

#[test]
fn a_failed_test_shows_addresses() {
    let shown = set("10.0.0.1-10.0.0.3");
    assert_eq!(format!("{shown:?}"), "[10.0.0.1-10.0.0.3]");
    assert_eq!(format!("{:?}", shown.ranges()), "[10.0.0.1-10.0.0.3]");
}
