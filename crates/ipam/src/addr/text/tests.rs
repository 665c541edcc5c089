use std::error::Error;

use super::*;

fn fault(text: &str, family: Family) -> RangeTextFault {
    parse_range(text, family).unwrap_err().fault
}

fn label(net: &str) -> String {
    cidr_label(&net.parse().unwrap())
}

#[test]
fn an_address_or_two_make_a_range() {
    for (text, family, first, last) in [
        ("10.0.0.1", Family::V4, "10.0.0.1", "10.0.0.1"),
        ("10.0.0.1-10.0.0.9", Family::V4, "10.0.0.1", "10.0.0.9"),
        ("10.0.0.1-10.0.0.1", Family::V4, "10.0.0.1", "10.0.0.1"),
        (
            "0.0.0.0-255.255.255.255",
            Family::V4,
            "0.0.0.0",
            "255.255.255.255",
        ),
        ("FD00::00AB-fd00::1:0", Family::V6, "fd00::ab", "fd00::1:0"),
        (
            "64:ff9b::10.0.0.1",
            Family::V6,
            "64:ff9b::a00:1",
            "64:ff9b::a00:1",
        ),
    ] {
        let ends = Range::new(first.parse().unwrap(), last.parse().unwrap()).unwrap();
        assert_eq!(parse_range(text, family), Ok(ends), "{text}");
    }
}

#[test]
fn what_is_no_address_of_the_family_is_refused() {
    for (text, family, end) in [
        ("", Family::V4, ""),
        ("-", Family::V4, ""),
        ("10.0.0.1-", Family::V4, ""),
        ("-10.0.0.1", Family::V4, ""),
        (" 10.0.0.1", Family::V4, " 10.0.0.1"),
        ("10.0.0.1 - 10.0.0.2", Family::V4, "10.0.0.1 "),
        ("10.0.0.1-10.0.0.2\n", Family::V4, "10.0.0.2\n"),
        (
            "10.0.0.1-10.0.0.2-10.0.0.3",
            Family::V4,
            "10.0.0.2-10.0.0.3",
        ),
        ("10.0.0.0/24", Family::V4, "10.0.0.0/24"),
        ("10.0.0.01", Family::V4, "10.0.0.01"),
        ("10.0.1", Family::V4, "10.0.1"),
        ("10.0.0.256", Family::V4, "10.0.0.256"),
        ("0x0a.0.0.1", Family::V4, "0x0a.0.0.1"),
        ("fd00::1", Family::V4, "fd00::1"),
        ("10.0.0.1", Family::V6, "10.0.0.1"),
        ("10.0.0.1-fd00::1", Family::V6, "10.0.0.1"),
        ("fe80::1%eth0", Family::V6, "fe80::1%eth0"),
        ("[fd00::1]", Family::V6, "[fd00::1]"),
        ("fd00::1-10", Family::V6, "10"),
        ("64:ff9b::10.0.0.01", Family::V6, "64:ff9b::10.0.0.01"),
    ] {
        let wanted = RangeTextFault::NotAnAddress {
            end: end.to_owned(),
            family,
        };
        assert_eq!(fault(text, family), wanted, "{text:?}");
    }
}

#[test]
fn a_reversed_range_is_refused_not_swapped() {
    let reversed = fault("10.0.0.9-10.0.0.1", Family::V4);
    assert!(matches!(
        reversed,
        RangeTextFault::Ends(RangeError::Reversed { .. })
    ));
}

#[test]
fn no_range_has_an_ipv4_mapped_address() {
    for text in [
        "::ffff:10.0.0.1",
        "::ffff:a00:1",
        "::ffff:0:0",
        "::ffff:ffff:ffff",
        "::fffe:ffff:ffff-::ffff:0:0",
        "::ffff:ffff:ffff-::1:0:0:0",
        "::-ffff::",
    ] {
        assert!(
            matches!(fault(text, Family::V6), RangeTextFault::Mapped { .. }),
            "{text}"
        );
    }
    for text in ["::-::fffe:ffff:ffff", "::1:0:0:0-ffff::"] {
        assert!(parse_range(text, Family::V6).is_ok(), "{text}");
    }
    // The same numbers in IPv4 are just IPv4 addresses.
    assert!(parse_range("0.0.0.0-255.255.255.255", Family::V4).is_ok());
}

#[test]
fn an_error_prints_the_known_message_and_keeps_the_cause_apart() {
    let v4 = parse_range("10.0.0.9-10.0.0.1", Family::V4).unwrap_err();
    assert_eq!(
        v4.to_string(),
        "invalid IP range format in IPv4 '10.0.0.9-10.0.0.1'"
    );
    assert_eq!(
        v4.source().unwrap().to_string(),
        "range 10.0.0.9-10.0.0.1 ends below its start: swap the ends"
    );
    let v6 = parse_list(&["fd00::1", "fd00::/64", "x"], Family::V6).unwrap_err();
    assert_eq!((v6.text(), v6.family()), ("fd00::/64", Family::V6));
    assert_eq!(
        v6.to_string(),
        "invalid IP range format in IPv6 'fd00::/64'"
    );
    assert_eq!(
        v6.fault().to_string(),
        "'fd00::/64' is not an IPv6 address: write one address, or two joined by '-'"
    );
}

#[test]
fn a_list_is_written_in_one_way_only() {
    let texts = [
        "10.0.0.3",
        "10.0.0.1-10.0.0.2",
        "10.0.0.10",
        "10.0.0.9-10.0.0.9",
    ];
    let set = parse_list(&texts, Family::V4).unwrap();
    assert_eq!(set.to_texts(), ["10.0.0.1-10.0.0.3", "10.0.0.9-10.0.0.10"]);
    let set = parse_list(&["FD00:0:0::1".to_owned()], Family::V6).unwrap();
    assert_eq!(set.to_texts(), ["fd00::1"]);
    assert_eq!(parse_list::<&str>(&[], Family::V6), Ok(AddrSet::new()));
}

#[test]
fn a_cidr_label_has_no_separator_that_a_label_refuses() {
    assert_eq!(label("172.18.41.0/24"), "172-18-41-0-24");
    assert_eq!(label("fd00:6::/64"), "fd00-6---64");
    assert_eq!(
        label("2001:db8:1:2:3:4:5:0/112"),
        "2001-db8-1-2-3-4-5-0-112"
    );
}

#[test]
fn a_cidr_label_starts_with_a_letter_or_a_digit() {
    assert_eq!(label("::/0"), "0---0");
    assert_eq!(label("::/64"), "0---64");
    assert_eq!(label("::1:0/112"), "0--1-0-112");
    assert_eq!(label("0.0.0.0/0"), "0-0-0-0-0");
}

#[test]
fn a_cidr_label_leads_back_to_its_network_and_other_text_to_none() {
    let nets = [
        "172.18.41.0/24",
        "0.0.0.0/0",
        "fd00:6::/64",
        "2001:db8:1:2:3:4:5:0/112",
        "::/64",
        "::1:0/112",
    ];
    for net in nets {
        assert_eq!(net_of_label(&label(net)), net.parse().ok(), "{net}");
    }
    for text in [
        "",
        "10-0-0-0",
        "10-0-0-0-33",
        "web",
        "10.0.0.0-8",
        "0fd00---64",
    ] {
        assert_eq!(net_of_label(text), None, "{text}");
    }
}
