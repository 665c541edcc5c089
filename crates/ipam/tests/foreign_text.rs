//! What users and other programs write into annotations: any text is read or refused, none panics,
//! and what is refused says which annotation it was.

#[cfg(test)]
mod tests {
    use ipam::addr::Family;
    use ipam::annotation::{self, Get};
    use ipam::attachment::{Attachment, Networks};
    use ipam::listed;
    use ipam::name::{Nic, PoolName};
    use ipam::pattern::Pattern;
    use proptest::prelude::*;

    const KEYS: [&str; 9] = [
        annotation::SUBNETS,
        annotation::SUBNET,
        annotation::IP_NUMBER,
        annotation::RECLAIM,
        annotation::IPPOOLS,
        annotation::IPPOOL,
        annotation::ROUTES,
        annotation::NAMESPACE_IPV4,
        annotation::NAMESPACE_IPV6,
    ];

    /// Texts near the forms that are understood, and any others.
    fn text() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just("interface"),
            Just("ipv4"),
            Just("IPv6"),
            Just("cleangateway"),
            Just("dst"),
            Just("gw"),
            Just("eth0"),
            Just("net1"),
            Just("pool-*"),
            Just("a[]"),
            Just(""),
            Just("10.0.0.0/8"),
            Just("fd00::/64"),
            Just("10.0.0.1"),
            Just("fe80::1"),
        ];
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("-1".to_owned()),
            word.clone().prop_map(|word| format!("{word:?}")),
        ];
        let json = leaf.prop_recursive(4, 24, 4, move |inner| {
            let pair = (word.clone(), inner.clone()).prop_map(|(k, v)| format!("{k:?}:{v}"));
            prop_oneof![
                prop::collection::vec(inner, 0..4)
                    .prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec(pair, 0..4)
                    .prop_map(|pairs| format!("{{{}}}", pairs.join(","))),
            ]
        });
        prop_oneof![json, any::<String>(), "[-+0-9a-zA-Z,/@ \\[\\]{}\":]{0,40}"]
    }

    proptest! {
        #[test]
        fn any_annotation_is_read_or_refused_by_name(text in text()) {
            for key in KEYS {
                let get = |k: &str| (k == key).then_some(text.as_str());
                let get: Get<'_> = &get;
                if let Err(fault) = annotation::check(get) {
                    prop_assert!(fault.to_string().contains(key), "{}: {}", key, fault);
                }
                if let Err(error) = annotation::namespace_pools(get) {
                    prop_assert!(error.to_string().contains(key), "{}: {}", key, error);
                }
            }
        }

        /// The items of `ippools` as told in an error are what the annotation said.
        #[test]
        fn items_are_told_as_they_were_read(text in text()) {
            let read = |text: &str| annotation::ippools(&|_| Some(text));
            if let Ok(Some(items)) = read(&text) {
                prop_assert_eq!(read(&items.to_string()).unwrap().unwrap(), items);
            }
        }

        #[test]
        fn any_text_about_networks_is_read_or_refused(text in text(), nic in "[a-z0-9]{0,5}") {
            let networks = Networks { default: Some(&text), others: Some(&text), ..Networks::default() };
            let attachment = Attachment::of(&Nic::from(nic.as_str()), &networks);
            if let Ok(name) = &attachment.network {
                prop_assert!(attachment.is(name), "{}", name);
            }
        }

        #[test]
        fn a_list_means_each_pool_once_and_only_pools_that_are_there_or_named(
            list in prop::collection::vec("[ab*?]{1,3}", 0..5),
            all in prop::collection::vec("[ab]{1,3}", 0..6),
        ) {
            let names = |texts: &[String]| texts.iter().map(PoolName::new).collect::<Vec<_>>();
            let (list, all) = (names(&list), names(&all));
            let Ok(read) = listed::read(&list, Family::V4, &Nic::from("eth0")) else {
                return Ok(());
            };
            let meant = listed::expand(&read, &all);
            for pool in &meant {
                let times = meant.iter().filter(|other| *other == pool).count();
                prop_assert_eq!(times, 1, "{}", pool);
                prop_assert!(all.contains(pool) || list.contains(pool), "{} from nowhere", pool);
            }
            for pool in &all {
                let is_taken = list.iter().any(|entry| taken(entry.as_str(), pool.as_str()));
                prop_assert_eq!(meant.contains(pool), is_taken, "{}", pool);
            }
        }
    }

    /// By trying every length of every run: slow, and plainly right.
    fn taken(pattern: &str, name: &str) -> bool {
        let mut rest = pattern.chars();
        match rest.next() {
            None => name.is_empty(),
            Some('*') => {
                let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
                ends.any(|end| taken(rest.as_str(), &name[end..]))
            }
            Some(part) => {
                let mut chars = name.chars();
                let fits = chars.next().is_some_and(|c| part == '?' || part == c);
                fits && taken(rest.as_str(), chars.as_str())
            }
        }
    }

    /// Every pattern of five places on every name of five letters.
    #[test]
    fn a_pattern_takes_what_trying_everything_takes() {
        fn words(letters: &[char], length: usize) -> Vec<String> {
            let mut all = vec![String::new()];
            let mut last = all.clone();
            for _ in 0..length {
                last = last
                    .iter()
                    .flat_map(|word| letters.iter().map(move |letter| format!("{word}{letter}")))
                    .collect();
                all.extend(last.iter().cloned());
            }
            all
        }
        let names = words(&['a', 'b'], 5);
        for pattern in words(&['a', 'b', '*', '?'], 5) {
            let read = Pattern::parse(&pattern).unwrap();
            for name in &names {
                assert_eq!(
                    read.matches(name),
                    taken(&pattern, name),
                    "{pattern} {name}"
                );
            }
        }
    }
}
