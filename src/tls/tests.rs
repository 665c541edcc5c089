use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::routing::get;
use chrono::TimeDelta;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::*;

const NAMESPACE: &str = "kube-system";
const SECRET: &str = "orbweaver-controller-tls";
const NAME: &str = "orbweaver-controller.kube-system.svc";
const LIFETIMES: Lifetimes = Lifetimes {
    authority: TimeDelta::seconds(12_000),
    certificate: TimeDelta::seconds(900),
};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

/// A cluster with the chart's empty Secret, or one with `data`.
async fn cluster(data: Option<BTreeMap<String, ByteString>>) -> kubesim::Server {
    let server = kubesim::Server::new(7);
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        data,
        ..Secret::default()
    };
    let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": NAMESPACE}}));
    let client = server.client("helm");
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    // The simulation may have it already.
    let _ = namespaces
        .create(&PostParams::default(), &namespace.unwrap())
        .await;
    let api: Api<Secret> = Api::namespaced(client, NAMESPACE);
    api.create(&PostParams::default(), &secret).await.unwrap();
    server
}

fn replica(server: &kubesim::Server, source: Source) -> Tls {
    let clients = Clients {
        read: server.client("controller"),
        write: server.client("controller"),
    };
    let settings = Settings {
        namespace: NAMESPACE.to_owned(),
        secret: SECRET.to_owned(),
        names: vec![NAME.to_owned()],
        source,
    };
    Tls::new(clients, settings)
}

/// The clock of a client: the test's.
#[derive(Debug)]
struct Clock(AtomicI64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = at(self.0.load(Ordering::SeqCst)).timestamp();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(
            seconds.try_into().unwrap(),
        )))
    }
}

/// Opens a connection, trusting `bundle`, and asks for `/`: what came, or why nothing did.
async fn ask(to: SocketAddr, bundle: &str, clock: &Arc<Clock>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let config = ClientConfig::builder_with_details(provider(), clock.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_webpki_verifier(verifier.build().unwrap())
        .with_no_client_auth();
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from(NAME).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Where a replica's service listens, and what ends it.
async fn served(tls: &Tls) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let router = Router::new().route("/", get(|| async { "judged" }));
    let config = tls.server_config().unwrap();
    tokio::spawn(serve(listener, config, router, stopped));
    (address, stop)
}

/// Three generations of authorities, two replicas of which one looks rarely, a client that hears of
/// a new bundle late: every request is answered.
#[tokio::test]
async fn no_request_is_refused_while_everything_is_replaced() {
    let server = cluster(None).await;
    let replicas = [(); 2].map(|()| replica(&server, Source::SelfMade(LIFETIMES)));
    let clock = Arc::new(Clock(AtomicI64::new(0)));
    let mut seen = [Seen::default(), Seen::default()];
    let mut services = vec![];
    for (tls, seen) in replicas.iter().zip(&mut seen) {
        tls.look(seen, at(0)).await.unwrap();
        services.push(served(tls).await);
    }
    let trust = replicas[0].trust();
    let mut known = trust.borrow().clone().unwrap();
    let mut bundles = std::collections::BTreeSet::new();
    for step in 0..250 {
        let now = step * 100;
        clock.0.store(now, Ordering::SeqCst);
        for (place, tls) in replicas.iter().enumerate() {
            if place == 0 || step % 3 == 0 {
                tls.look(&mut seen[place], at(now)).await.unwrap();
            }
        }
        for (address, _) in &services {
            let answer = ask(*address, &known, &clock).await;
            let answer = answer.unwrap_or_else(|error| panic!("refused at {now}: {error}"));
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("judged"));
        }
        if step % 5 == 0 {
            known = trust.borrow().clone().unwrap();
        }
        bundles.insert(known.clone());
    }
    assert!(bundles.len() >= 5, "{} bundles", bundles.len());
}

#[tokio::test]
async fn two_replicas_that_begin_at_once_share_one_authority() {
    let server = cluster(None).await;
    let [a, b] = [(); 2].map(|()| replica(&server, Source::SelfMade(LIFETIMES)));
    let (mut of_a, mut of_b) = (Seen::default(), Seen::default());
    let (first, second) = tokio::join!(a.look(&mut of_a, at(0)), b.look(&mut of_b, at(0)));
    for (tls, seen, outcome) in [(&a, &mut of_a, first), (&b, &mut of_b, second)] {
        if let Err(error) = outcome {
            assert_eq!(error.outcome(), Outcome::Conflict);
            tls.look(seen, at(0)).await.unwrap();
        }
    }
    let bundle = a.trust().borrow().clone();
    assert!(bundle.is_some() && bundle == *b.trust().borrow());
    let before = server.revision();
    a.look(&mut of_a, at(60)).await.unwrap();
    b.look(&mut of_b, at(60)).await.unwrap();
    assert_eq!(
        server.revision(),
        before,
        "nothing is due, nothing is written"
    );
}

/// Puts a certificate of a new authority into the Secret, as others do.
async fn give(api: &Api<Secret>, now: DateTime<Utc>) {
    let authority = Authority::step(None, now, &LIFETIMES).unwrap();
    let leaf = authority
        .issue(&[NAME.to_owned()], now, &LIFETIMES)
        .unwrap();
    let pem = |tag: &str, der: &[u8]| ByteString(pem_of(tag, der).into_bytes());
    let mut secret = api.get(SECRET).await.unwrap();
    secret.data = Some(BTreeMap::from([
        ("tls.crt".to_owned(), pem("CERTIFICATE", &leaf.chain[0])),
        (
            "tls.key".to_owned(),
            pem("PRIVATE KEY", leaf.key.secret_der()),
        ),
        (
            "ca.crt".to_owned(),
            ByteString(authority.bundle().into_bytes()),
        ),
    ]));
    api.replace(SECRET, &PostParams::default(), &secret)
        .await
        .unwrap();
}

/// Three replicas that look once a minute, each at its own time; the first one leads, and the API
/// server hears of whom to trust ten seconds later.
#[tokio::test]
async fn no_request_is_refused_while_others_replace_their_authority() {
    let server = cluster(None).await;
    let api: Api<Secret> = Api::namespaced(server.client("cert-manager"), NAMESPACE);
    give(&api, at(0)).await;
    let replicas = [(); 3].map(|()| replica(&server, Source::Given));
    let clock = Arc::new(Clock(AtomicI64::new(0)));
    let mut services = vec![];
    for tls in &replicas {
        services.push(served(tls).await);
    }
    let mut seen = [(); 3].map(|()| Seen::default());
    let mut next = [0; 3];
    let trust = replicas[0].trust();
    let (mut known, mut bundles) = (String::new(), std::collections::BTreeSet::new());
    for now in (0..1300).step_by(10) {
        clock.0.store(now, Ordering::SeqCst);
        // The leader sees the first change before the others, and the second one after them.
        if now == 310 || now == 860 {
            give(&api, at(now)).await;
        }
        let told = trust.borrow().clone();
        for (place, tls) in replicas.iter().enumerate() {
            if now >= next[place] {
                let due = tls.look(&mut seen[place], at(now)).await.unwrap();
                let first = if now == 0 { [10, 20, 60][place] } else { 60 };
                let due = due.map_or(i64::MAX, |due| (due - at(0)).num_seconds());
                next[place] = due.min(now + first);
            }
        }
        known = told.or_else(|| trust.borrow().clone()).unwrap_or(known);
        for (address, _) in &services {
            let answer = ask(*address, &known, &clock).await;
            let answer = answer.unwrap_or_else(|error| panic!("refused at {now}: {error}"));
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        bundles.insert(known.clone());
    }
    assert_eq!(bundles.len(), 5, "each authority, and each change");
}

#[tokio::test]
async fn what_others_put_into_the_secret_is_served_and_its_change_is_seen() {
    let server = cluster(None).await;
    let tls = replica(&server, Source::Given);
    let error = tls.look(&mut Seen::default(), at(0)).await.unwrap_err();
    assert!(error.to_string().contains("no usable tls.crt"), "{error}");
    let (address, _stop) = served(&tls).await;
    let clock = Arc::new(Clock(AtomicI64::new(0)));
    let api: Api<Secret> = Api::namespaced(server.client("cert-manager"), NAMESPACE);
    for _ in 0..2 {
        give(&api, at(0)).await;
        tls.look(&mut Seen::default(), at(0)).await.unwrap();
        let bundle = tls.trust().borrow().clone().unwrap();
        let answer = ask(address, &bundle, &clock).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn told_to_stop_a_service_answers_the_request_under_way_first() {
    let server = cluster(None).await;
    let tls = replica(&server, Source::SelfMade(LIFETIMES));
    tls.look(&mut Seen::default(), at(0)).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let (asked, mut was_asked) = tokio::sync::mpsc::channel(1);
    let (judged, was_judged) = watch::channel(false);
    let handler = move || {
        let (asked, mut was_judged) = (asked.clone(), was_judged.clone());
        async move {
            asked.send(()).await.unwrap();
            was_judged.wait_for(|it| *it).await.unwrap();
            "judged"
        }
    };
    let router = Router::new().route("/", get(handler));
    let config = tls.server_config().unwrap();
    let serving = tokio::spawn(serve(listener, config, router, stopped));
    let bundle = tls.trust().borrow().clone().unwrap();
    let clock = Arc::new(Clock(AtomicI64::new(0)));
    let client = tokio::spawn(async move { ask(address, &bundle, &clock).await });
    was_asked.recv().await.unwrap();
    stop.send_replace(true);
    // The port closes, the request goes on.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!serving.is_finished());
    judged.send_replace(true);
    let answer = client.await.unwrap().unwrap();
    assert!(answer.ends_with("judged"), "{answer}");
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn silent_clients_do_not_keep_others_waiting() {
    let server = cluster(None).await;
    let tls = replica(&server, Source::SelfMade(LIFETIMES));
    tls.look(&mut Seen::default(), at(0)).await.unwrap();
    let (address, stop) = served(&tls).await;
    let mut silent = vec![];
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let clock = Arc::new(Clock(AtomicI64::new(0)));
    let bundle = tls.trust().borrow().clone().unwrap();
    ask(address, &bundle, &clock).await.unwrap();
    stop.send_replace(true);
    drop(silent);
}

/// A PEM text, as every tool writes it.
fn pem_of(tag: &str, der: &[u8]) -> String {
    let body = ByteString(der.to_vec());
    let body = serde_json::to_value(body).unwrap();
    let body = body.as_str().unwrap().as_bytes();
    let lines: Vec<_> = body
        .chunks(64)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    format!(
        "-----BEGIN {tag}-----\n{}\n-----END {tag}-----\n",
        lines.join("\n")
    )
}
