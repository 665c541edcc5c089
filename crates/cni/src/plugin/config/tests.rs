use super::*;

fn ipam(json: &str) -> Ipam {
    let conf = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"macvlan","ipam":{json}}}"#);
    Config::parse(conf.as_bytes()).unwrap().ipam
}

#[test]
fn an_empty_ipam_object_means_the_defaults() {
    let ipam = ipam(r#"{"type":"spiderpool"}"#);
    assert_eq!(
        ipam.socket(),
        PathBuf::from("/var/run/spidernet/spiderpool.sock")
    );
    assert!(!ipam.clean_gateway() && !ipam.match_master_subnet());
    assert_eq!(
        (&ipam.default_ipv4_ippool, &ipam.default_ipv6_ippool),
        (&None, &None)
    );
    assert_eq!(
        ipam.log().unwrap(),
        LogConfig {
            path: "/var/log/spidernet/spiderpool.log".into(),
            level: LogLevel::Info,
            max_bytes: 10 << 20,
        }
    );
}

#[test]
fn every_key_is_read() {
    let ipam = ipam(
        r#"{"type":"spiderpool","log_level":"DEBUG","log_file_path":"/l","log_file_max_size":3,
            "log_file_max_age":1,"log_file_max_count":2,"default_ipv4_ippool":["a","b*"],
            "default_ipv6_ippool":["c"],"clean_gateway":true,"match_master_subnet":true,
            "ipam_unix_socket_path":"/s","unknown":{}}"#,
    );
    assert_eq!(
        ipam.log().unwrap(),
        LogConfig {
            path: "/l".into(),
            level: LogLevel::Debug,
            max_bytes: 3 << 20
        }
    );
    assert_eq!(
        ipam.default_ipv4_ippool,
        Some(vec!["a".into(), "b*".into()])
    );
    assert_eq!(ipam.default_ipv6_ippool, Some(vec!["c".into()]));
    assert!(ipam.clean_gateway() && ipam.match_master_subnet());
    assert_eq!(ipam.socket(), PathBuf::from("/s"));
}

#[test]
fn counts_may_be_strings_and_empty_values_mean_the_default() {
    let ipam = ipam(
        r#"{"log_file_max_size":"7","log_file_max_age":"30","log_file_max_count":null,
            "log_level":"","log_file_path":"","ipam_unix_socket_path":""}"#,
    );
    assert_eq!(ipam.log().unwrap().max_bytes, 7 << 20);
    assert_eq!(ipam.log_file_max_age, Count(30));
    assert_eq!(ipam.socket(), PathBuf::from(DEFAULT_SOCKET));
}

#[test]
fn counts_that_are_none_are_refused() {
    for bad in ["-1", "1.5", "\"1M\"", "true", "[]"] {
        let conf = format!(r#"{{"cniVersion":"1.0.0","ipam":{{"log_file_max_size":{bad}}}}}"#);
        let error = Config::parse(conf.as_bytes()).unwrap_err();
        assert!(
            matches!(error, ConfigError::Json { .. }),
            "{bad}: {error:?}"
        );
    }
}

#[test]
fn the_largest_log_size_does_not_overflow() {
    let ipam = ipam(&format!(r#"{{"log_file_max_size":{}}}"#, u64::MAX));
    assert_eq!(ipam.log().unwrap().max_bytes, u64::MAX);
}

#[test]
fn every_version_is_known_and_a_missing_one_is_the_oldest() {
    for version in CniVersion::ALL {
        let conf = format!(r#"{{"cniVersion":"{}"}}"#, version.as_str());
        assert_eq!(Config::parse(conf.as_bytes()).unwrap().version, version);
        assert_eq!(peek_version(conf.as_bytes()), Some(version));
    }
    let error = Config::parse(b"{}").unwrap_err();
    assert!(matches!(error, ConfigError::Version { version } if version == "0.1.0"));
    assert_eq!(peek_version(b"{}"), None);
    assert_eq!(peek_version(br#"{"cniVersion":"0.2.0"}"#), None);
    assert_eq!(
        peek_version(br#"{"cniVersion":"1.0.0","ipam":7}"#),
        Some(CniVersion::V1_0_0)
    );
}

#[test]
fn log_levels_are_read_and_an_unknown_one_is_named() {
    for (text, level) in [
        ("debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("Warn", LogLevel::Warn),
        ("error", LogLevel::Error),
        ("fatal", LogLevel::Error),
    ] {
        assert_eq!(LogLevel::parse(text).unwrap(), level);
    }
    assert_eq!(
        LogLevel::parse("loud").unwrap_err().to_string(),
        "unsupported log level loud"
    );
}

#[test]
fn the_previous_result_and_the_valid_attachments_are_read() {
    let config = Config::parse(
        br#"{"cniVersion":"1.1.0","prevResult":{"ips":[{"address":"10.0.0.4/24","interface":0}],"dns":{}},
             "cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"},{}]}"#,
    )
    .unwrap();
    assert_eq!(config.previous, Some(vec!["10.0.0.4/24".into()]));
    assert_eq!(config.valid_attachments, Some(2));
    let none = Config::parse(br#"{"cniVersion":"1.1.0","prevResult":{"ips":null}}"#).unwrap();
    assert_eq!(
        (none.previous, none.valid_attachments),
        (Some(vec![]), None)
    );
}
