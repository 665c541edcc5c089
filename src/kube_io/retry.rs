//! What a failed call means for its caller, and how long to wait before the next.
//!
//! Owns: the one use of the crate `backoff`, the classification of errors into [`Outcome`]s, and
//! the client for writes. Never does: call anything again by itself: what is right after a failed
//! write depends on what the write said, and only its caller knows.
//!
//! **Why a client of its own for writes.** `kube`'s standard stack has a layer that sends a request
//! again after 429, 503 and 504, up to fifteen times. For reads that is a help. A write that was
//! carried out, but whose answer was lost behind a 503, would be sent again with a
//! `resourceVersion` that is no longer current, and its caller would be told "conflict" about its
//! own success, after minutes. [`write_client`] leaves that layer out (`Config::default_retry`).
//!
//! **Neither client waits without end.** A server that is cut off in the midst of a request sends
//! nothing any more, not even that the connection is over. `kube` by itself would wait for it for
//! ever, and with it a pass, a look or a watch that nobody misses.

use std::error::Error;
use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::exponential::{ExponentialBackoff, ExponentialBackoffBuilder};
use kube::client::ClientBuilder;
use kube::core::Status;
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;

use super::chance;

/// Longest wait for the answer to a write. The API server gives up on a request after 60 s at the
/// latest; a caller of ours waits 10 s, and on silence looks at the object itself.
pub const WRITE_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest wait for the beginning of the answer to a read, repetitions included. The API server gives
/// up on a request after 60 s; a watch is answered at once, and then goes on.
pub const READ_ANSWER_TIMEOUT: Duration = Duration::from_secs(65);

/// Longest silence in the midst of an answer to a read: `kube-runtime` has the API server end a watch
/// after 290 s.
const SILENCE_MAX: Duration = Duration::from_secs(305);

/// Longest pause that a server's `Retry-After` can ask of us.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Growing pauses with full jitter: each is drawn evenly from zero to a cap that doubles.
///
/// Full jitter spreads callers that failed together over the whole cap, so K writers of one object
/// need the least calls in total to all get through.
#[derive(Debug)]
pub struct Backoff {
    inner: ExponentialBackoff<backoff::SystemClock>,
}

impl Backoff {
    /// Pauses of at most `initial`, then twice that, and so on up to `max`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        // The crate's own jitter is off: it would draw from a source of its own.
        let inner = ExponentialBackoffBuilder::new()
            .with_initial_interval(initial)
            .with_max_interval(max)
            .with_multiplier(2.0)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        Self { inner }
    }

    /// The next pause; the cap doubles.
    pub fn next_delay(&mut self) -> Duration {
        let longest = self.inner.max_interval;
        chance::up_to(self.inner.next_backoff().unwrap_or(longest))
    }

    /// The next pause after this outcome: never shorter than the server asked, up to
    /// [`RETRY_AFTER_MAX`], and jittered on top, since it asked others the same.
    pub fn next_delay_for(&mut self, outcome: Outcome) -> Duration {
        let asked = match outcome {
            Outcome::Retryable { after } => after.unwrap_or_default().min(RETRY_AFTER_MAX),
            Outcome::Conflict
            | Outcome::AlreadyExists
            | Outcome::Gone
            | Outcome::Unknown
            | Outcome::Fatal => Duration::ZERO,
        };
        asked + self.next_delay()
    }

    /// Starts again from the first cap; call it after a success.
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}

/// What is known about the world after a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not done: the object has moved on. Read it, decide again.
    Conflict,
    /// Not done: a create found the name taken, perhaps by an earlier try of its own.
    AlreadyExists,
    /// Not done: there is no such object, or the version asked for is too old to be had.
    Gone,
    /// Perhaps done: no answer, or one that doesn't say. Read the object before anything else.
    Unknown,
    /// Not done, and not looked at: the same call may succeed later.
    Retryable {
        /// How long the server asks us to wait, if it says.
        after: Option<Duration>,
    },
    /// Not done, and the same call will fail again: a right, a rule or this program is wrong.
    Fatal,
}

/// What an error of `kube` says about the call.
pub fn classify(error: &kube::Error) -> Outcome {
    match error {
        kube::Error::Api(status) => classify_status(status, None),
        // Made before anything is sent.
        kube::Error::BuildRequest(_)
        | kube::Error::InferConfig(_)
        | kube::Error::InferKubeconfig(_)
        | kube::Error::TlsRequired => Outcome::Fatal,
        // The token could not be had; nothing was sent, and the next may be good.
        kube::Error::Auth(_) => Outcome::Retryable { after: None },
        other if never_connected(other) => Outcome::Retryable { after: None },
        _ => Outcome::Unknown,
    }
}

/// What an answer of the API server says about the call. `retry_after` is the header, which wins
/// over the one in the body: answers to overload have no body of the usual form.
pub fn classify_status(status: &Status, retry_after: Option<Duration>) -> Outcome {
    let asked = retry_after.or_else(|| {
        let seconds = status.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    });
    if status.is_already_exists() {
        return Outcome::AlreadyExists;
    }
    match status.code {
        409 => Outcome::Conflict,
        404 | 410 => Outcome::Gone,
        // Neither reached a handler: too many at once, or a token that is being replaced.
        401 | 429 => Outcome::Retryable { after: asked },
        // 408 and every 5xx can come from a proxy or from etcd after the write was on its way.
        408 | 500..=599 => Outcome::Unknown,
        _ => Outcome::Fatal,
    }
}

/// A client for reads. Each is repeated where the API server is too busy, and given up on if its answer
/// has not begun within [`READ_ANSWER_TIMEOUT`], or nothing more of it comes for five minutes (or what
/// `config.read_timeout` says).
///
/// # Errors
///
/// [`kube::Error`] if the configuration has no usable credentials or certificates.
pub fn read_client(config: Config) -> Result<Client, kube::Error> {
    read_client_within(READ_ANSWER_TIMEOUT, config)
}

fn read_client_within(answer: Duration, mut config: Config) -> Result<Client, kube::Error> {
    config.read_timeout.get_or_insert(SILENCE_MAX);
    // Counts from the request, not from when its pooled connection fell idle.
    config.reset_reader_on_write = true;
    let bounded = ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(answer));
    Ok(bounded.build())
}

/// A client for writes: none is ever sent twice, and each is answered or given up on within
/// [`WRITE_ANSWER_TIMEOUT`]. Don't watch with it.
///
/// # Errors
///
/// [`kube::Error`] if the configuration has no usable credentials or certificates.
pub fn write_client(mut config: Config) -> Result<Client, kube::Error> {
    config.default_retry = false;
    config.read_timeout = Some(WRITE_ANSWER_TIMEOUT);
    // Counts from the request, not from when its pooled connection fell idle.
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

/// Whether the error is that no connection came about, so that nothing was sent.
fn never_connected(error: &kube::Error) -> bool {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(e) = cause {
        if let Some(client) = e.downcast_ref::<hyper_util::client::legacy::Error>() {
            return client.is_connect();
        }
        cause = e.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use kube::core::response::{StatusDetails, StatusSummary};

    fn status(code: u16, reason: &str) -> Status {
        Status {
            status: Some(StatusSummary::Failure),
            code,
            reason: reason.to_owned(),
            ..Status::default()
        }
    }

    #[test]
    fn pauses_fill_zero_to_a_cap_that_doubles_to_its_maximum() {
        let (initial, max) = (Duration::from_millis(100), Duration::from_millis(400));
        let caps = [100, 200, 400, 400, 400].map(Duration::from_millis);
        let mut longest = [Duration::ZERO; 5];
        let mut shortest = [Duration::MAX; 5];
        for _ in 0..2000 {
            let mut backoff = Backoff::new(initial, max);
            for step in 0..5 {
                let delay = backoff.next_delay();
                assert!(delay <= caps[step], "{delay:?} in step {step}");
                longest[step] = longest[step].max(delay);
                shortest[step] = shortest[step].min(delay);
            }
        }
        for step in 0..5 {
            assert!(
                longest[step] > caps[step] * 9 / 10,
                "step {step} reaches its cap"
            );
            assert!(shortest[step] < caps[step] / 10, "step {step} reaches zero");
        }
    }

    #[test]
    fn a_success_starts_the_caps_again() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(60));
        for _ in 0..20 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(1));
    }

    #[test]
    fn a_pause_is_never_shorter_than_the_server_asks_nor_unbounded() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(10));
        let mut asked = |after: u64| {
            backoff.next_delay_for(Outcome::Retryable {
                after: Some(Duration::from_secs(after)),
            })
        };
        assert!((1.0..=1.01).contains(&asked(1).as_secs_f64()));
        assert!((30.0..=30.01).contains(&asked(86_400).as_secs_f64()));
        assert!(backoff.next_delay_for(Outcome::Conflict) <= Duration::from_millis(10));
    }

    #[test]
    fn each_answer_has_its_outcome() {
        let table = [
            (409, "Conflict", Outcome::Conflict),
            (409, "AlreadyExists", Outcome::AlreadyExists),
            (404, "NotFound", Outcome::Gone),
            (410, "Expired", Outcome::Gone),
            (401, "Unauthorized", Outcome::Retryable { after: None }),
            (429, "TooManyRequests", Outcome::Retryable { after: None }),
            (408, "Timeout", Outcome::Unknown),
            (500, "InternalError", Outcome::Unknown),
            (503, "ServiceUnavailable", Outcome::Unknown),
            (504, "Timeout", Outcome::Unknown),
            (400, "BadRequest", Outcome::Fatal),
            (403, "Forbidden", Outcome::Fatal),
            (413, "RequestEntityTooLarge", Outcome::Fatal),
            (422, "Invalid", Outcome::Fatal),
        ];
        for (code, reason, outcome) in table {
            assert_eq!(
                classify_status(&status(code, reason), None),
                outcome,
                "{code} {reason}"
            );
        }
    }

    #[test]
    fn the_header_wins_over_the_body() {
        let mut answer = status(429, "TooManyRequests");
        answer.details =
            serde_json::from_value::<StatusDetails>(serde_json::json!({"retryAfterSeconds": 5}))
                .ok();
        let after = |seconds| Outcome::Retryable {
            after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(classify_status(&answer, None), after(5));
        assert_eq!(
            classify_status(&answer, Some(Duration::from_secs(2))),
            after(2)
        );
    }

    /// Whether it is the head or the rest of an answer that never comes: an error comes in its place.
    #[tokio::test]
    async fn a_server_that_falls_silent_is_not_waited_for_without_end() {
        let (soon, late) = (Duration::from_millis(200), Duration::from_mins(1));
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{";
        for (said, answer, silence) in [("", soon, late), (head, late, soon)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let silent = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(said.as_bytes()).await.unwrap();
                pending::<()>().await;
            });
            let mut config = Config::new(url.parse().unwrap());
            config.read_timeout = Some(silence);
            let client = read_client_within(answer, config).unwrap();
            let asked = tokio::time::timeout(late / 2, client.apiserver_version()).await;
            assert!(asked.expect("it is waited for").is_err());
            silent.abort();
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_call_that_was_not_made() {
        // A port that was free a moment ago, and that nothing listens on.
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let url = format!("http://127.0.0.1:{port}").parse().unwrap();
        let client = write_client(Config::new(url)).unwrap();
        let error = client.apiserver_version().await.unwrap_err();
        assert_eq!(
            classify(&error),
            Outcome::Retryable { after: None },
            "{error:?}"
        );
    }
}
