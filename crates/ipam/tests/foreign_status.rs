//! What other programs and people write into `status.allocatedIPs`, `status.controlledIPPools` and
//! lists of ranges: any text is read or refused, none panics; what is read is written back with the
//! same meaning and read again the same; work and memory follow the length of the text, never the
//! number of addresses it names.

#[cfg(test)]
mod tests {
    use ipam::addr::{AddrCount, Family, parse_list, parse_range};
    use ipam::record::{Records, Salvage};
    use ipam::subnet::SubnetLedger;
    use proptest::prelude::*;

    const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

    /// Addresses, ranges, and what looks like them.
    fn range() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "10.0.0.1",
            "10.0.0.255",
            "010.0.0.1",
            "10.0.0.1/8",
            "0.0.0.0",
            "255.255.255.255",
            "1.2.3",
            "::",
            "fd00::1",
            "FD00::1",
            "fd00:0::1",
            "::ffff:10.0.0.1",
            "fe80::1%eth0",
            "",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            " 10.0.0.1",
            "10.0.0.256",
            "0.0.0.0/0",
            "::/0",
        ]);
        prop_oneof![
            4 => (part.clone(), part.clone()).prop_map(|(a, b)| format!("{a}-{b}")),
            4 => part.prop_map(str::to_owned),
            1 => any::<String>(),
            1 => "[-0-9a-f:./ ]{0,24}",
        ]
    }

    /// JSON near the forms that are understood.
    fn json() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec![
            "pod",
            "podUid",
            "nic",
            "node",
            "sandbox",
            "owner",
            "kept",
            "quarantine",
            "mac",
            "until",
            "ips",
            "application",
            "theirs",
            "",
            "quarantined",
        ]);
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("-1".to_owned()),
            any::<f64>()
                .prop_filter("JSON has none", |f| f.is_finite())
                .prop_map(|f| format!("{f:e}")),
            Just("1e999".to_owned()),
            Just("18446744073709551616".to_owned()),
            Just("\"2026-11-22T17:41:24Z\"".to_owned()),
            Just("\"shop/web-0\"".to_owned()),
            range().prop_map(|text| format!("{text:?}")),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            let name = prop_oneof![key.clone().prop_map(str::to_owned), range()];
            let pair = (name, inner.clone()).prop_map(|(k, v)| format!("{k:?}:{v}"));
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
                prop::collection::vec(pair, 0..5).prop_map(|all| format!("{{{}}}", all.join(","))),
            ]
        })
    }

    /// A whole text of either status field, with a few of its bytes changed.
    fn nearly_whole() -> impl Strategy<Value = String> {
        let whole = prop::sample::select(vec![
            r#"{"10.0.0.2":{"pod":"shop/web-0","podUid":"1","nic":"eth0","node":"n","sandbox":"s","owner":"o","kept":true,"x":{"y":1}}}"#,
            r#"{"fd00::2":{"pod":"shop/a","podUid":"quarantined","quarantine":{"mac":"02:00:00:00:00:09","until":"2026-11-22T17:41:24Z"}}}"#,
            r#"{"10.0.0.2":{"pod":"a/b","podUid":"1"},"10.0.0.3":{"pod":"a/c","podUid":"2"}}"#,
            r#"{"web":{"ips":["10.0.0.1-10.0.0.3","10.0.0.9"],"application":"apps_v1_Deployment_shop_web"},"db":{"ips":[]}}"#,
            r#"{"web":{"ips":["fd00::1-fd00::ffff"],"theirs":1.5}}"#,
        ]);
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
        (whole, changes).prop_map(|(whole, changes)| {
            let mut bytes = whole.as_bytes().to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                if let Some(old) = bytes.get_mut(at) {
                    *old = byte;
                }
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![2 => json(), 2 => nearly_whole(), 1 => any::<String>()]
    }

    proptest! {
        #[test]
        fn any_text_of_records_is_refused_or_means_the_same_when_written_back(text in text()) {
            let Ok(read) = Records::parse(Some(&text)) else {
                return Ok(());
            };
            let written = read.to_text();
            let again = Records::parse(written.as_deref()).unwrap();
            prop_assert_eq!(&again, &read);
            prop_assert_eq!(again.to_text(), written);
            // An address a record: nothing is made out of nothing.
            let named = text.matches("pod").count();
            prop_assert!(read.count() <= AddrCount::new(u128::try_from(named).unwrap()));
        }

        #[test]
        fn what_is_saved_of_a_text_is_all_of_one_that_can_be_read(text in text()) {
            let saved = Salvage::of(&text);
            let named = text.matches("pod").count();
            prop_assert!(saved.records.count() <= AddrCount::new(u128::try_from(named).unwrap()));
            if let Ok(read) = Records::parse(Some(&text))
                && !read.is_empty()
            {
                prop_assert_eq!(saved, Salvage { records: read, ..Salvage::default() });
            }
        }

        #[test]
        fn of_a_text_with_a_part_gone_each_address_is_saved_or_named_or_the_text_is_cut(
            (count, from, length) in (1_u8..6, any::<prop::sample::Index>(), 0_usize..40),
        ) {
            let members = (1..=count).map(|n| {
                format!(r#""10.0.0.{n}":{{"pod":"shop/web-{n}","podUid":"u-{n}","nic":"eth0"}}"#)
            });
            let whole = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
            let from = from.index(whole.len());
            let to = from.saturating_add(length).min(whole.len());
            let (before, gone) = (&whole[..from], &whole[from..to]);
            let saved = Salvage::of(&format!("{before}{}", &whole[to..]));
            for n in 1..=count {
                let key = format!("\"10.0.0.{n}\"");
                let at = whole.find(&key).unwrap();
                // What was taken away itself nobody can name.
                let is_whole = to <= at || at.saturating_add(key.len()) <= from;
                let address = format!("10.0.0.{n}").parse().unwrap();
                let is_known = saved.addresses().contains(address) || saved.cut;
                prop_assert!(!is_whole || is_known, "{n} without {gone:?}: {saved:?}");
            }
        }

        #[test]
        fn any_text_of_a_ledger_is_refused_or_means_the_same_when_written_back(text in text()) {
            for family in FAMILIES {
                let Ok(read) = SubnetLedger::parse(&text, family, 7) else {
                    continue;
                };
                let written = read.to_text();
                let again = SubnetLedger::parse(written.as_deref().unwrap_or("{}"), family, 7).unwrap();
                prop_assert_eq!(&again, &read);
                prop_assert_eq!(again.to_text(), written);
                let ranges: usize = read.iter().map(|(_, entry)| entry.ips.ranges().len()).sum();
                prop_assert!(ranges <= text.matches('"').count() / 2, "{} ranges", ranges);
            }
        }

        #[test]
        fn any_list_of_ranges_is_refused_or_no_longer_when_written_back(
            texts in prop::collection::vec(range(), 0..8),
        ) {
            for family in FAMILIES {
                let each: Vec<_> = texts.iter().map(|text| parse_range(text, family)).collect();
                let Ok(read) = parse_list(&texts, family) else {
                    prop_assert!(each.iter().any(Result::is_err));
                    continue;
                };
                prop_assert!(each.iter().all(Result::is_ok));
                prop_assert!(read.ranges().len() <= texts.len(), "ranges stay ranges");
                let written = read.to_texts();
                prop_assert_eq!(parse_list(&written, family).unwrap(), read);
            }
        }
    }

    /// Found by reading with keys that were there twice: the last one counted, and the address of
    /// the other was given out again.
    #[test]
    fn an_address_or_a_pool_that_is_there_twice_is_refused() {
        let one = r#""10.0.0.2":{"pod":"a/b","podUid":"1"}"#;
        let twice = format!("{{{one},{one}}}");
        let error = Records::parse(Some(&twice)).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("key '10.0.0.2' is there twice"), "{cause}");
        let twice = r#"{"web":{"ips":["10.0.0.1"]},"web":{"ips":["10.0.0.2"]}}"#;
        let error = SubnetLedger::parse(twice, Family::V4, 0).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("key 'web' is there twice"), "{cause}");
    }
}
