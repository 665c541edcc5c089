//! What the tests share: made-up machines and agents, real agents on real
//! sockets, the recorded data.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cni::plugin::{
    Host, Invocation, LogConfig, LogLevel, LogSink, NetnsError, Segment, SegmentError,
};
use cni::transport::{CallError, Errno, Reply, Request, Retry, Transport};
use serde_json::Value;

use crate::network::{Network, Port};

/// `CNI_ARGS` as a runtime passes them for Pod `default/web-0`.
pub(crate) const POD_ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;\
                                   K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=uid-1";

/// A path that is a network namespace on every machine.
pub(crate) const NETNS: &str = "/proc/self/ns/net";

/// A network configuration; `ipam` are more keys of its `ipam` object. It logs
/// to nowhere unless they say otherwise.
pub(crate) fn config(version: &str, socket: &Path, ipam: &str) -> String {
    let log = if ipam.contains("log_file_path") {
        ""
    } else {
        r#","log_file_path":"/dev/null""#
    };
    let socket = socket.display();
    format!(
        r#"{{"cniVersion":"{version}","name":"net","type":"macvlan",
        "ipam":{{"type":"spiderpool","ipam_unix_socket_path":"{socket}"{log}{ipam}}}}}"#
    )
}

/// The variables of a whole call.
pub(crate) fn variables(command: &str) -> Vec<(&'static str, String)> {
    vec![
        ("CNI_COMMAND", command.to_owned()),
        ("CNI_CONTAINERID", "c1".to_owned()),
        ("CNI_NETNS", NETNS.to_owned()),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_ARGS", POD_ARGS.to_owned()),
        ("CNI_PATH", "/opt/cni/bin".to_owned()),
    ]
}

/// A call with everything it needs.
pub(crate) fn invocation(command: &str, config: &str) -> Invocation {
    let env = variables(command)
        .into_iter()
        .map(|(k, v)| (k.into(), v.into()))
        .collect();
    Invocation {
        env,
        stdin: config.as_bytes().to_vec(),
    }
}

/// A machine whose clock moves only when somebody waits.
#[derive(Default)]
pub(crate) struct FakeHost {
    pub(crate) now: Rc<Cell<Duration>>,
    pub(crate) pauses: RefCell<Vec<Duration>>,
    pub(crate) lines: Rc<RefCell<Vec<String>>>,
    /// What the Pod's interface is connected to; `None` while there is no interface.
    pub(crate) network: Option<Rc<RefCell<Network>>>,
}

struct Lines(Rc<RefCell<Vec<String>>>);

impl LogSink for Lines {
    fn write(&mut self, level: LogLevel, text: &str) {
        self.0
            .borrow_mut()
            .push(format!("{} {text}", level.as_str()));
    }
}

impl Host for FakeHost {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn sleep(&self, pause: Duration) {
        self.pauses.borrow_mut().push(pause);
        self.now.set(self.now.get() + pause);
    }

    fn check_netns(&self, path: &Path) -> Result<(), NetnsError> {
        if path.starts_with("/none") {
            let path = path.to_owned();
            return Err(NetnsError::Unreadable {
                path,
                source: errno(2),
            });
        }
        Ok(())
    }

    fn open_segment(&self, _: &Path, nic: &str) -> Result<Box<dyn Segment>, SegmentError> {
        let nic = nic.to_owned();
        let network = self.network.as_ref().ok_or(SegmentError::Absent { nic })?;
        let now = Rc::clone(&self.now);
        Ok(Box::new(Port::new(Rc::clone(network), now)))
    }

    fn open_log(&self, _: &LogConfig) -> Box<dyn LogSink> {
        Box::new(Lines(Rc::clone(&self.lines)))
    }
}

/// An agent that answers from a list, then always with its last answer.
pub(crate) struct FakeAgent {
    answers: RefCell<VecDeque<Answer>>,
    pub(crate) seen: RefCell<Vec<Request>>,
    pub(crate) limits: RefCell<Vec<Duration>>,
}

/// What a [`FakeAgent`] does with a request.
#[derive(Clone)]
pub(crate) enum Answer {
    Reply(u16, String),
    Refused,
    NoDirectory,
    Reset,
    Closed,
    Timeout,
}

impl FakeAgent {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            answers: RefCell::new(answers.into_iter().collect()),
            seen: RefCell::default(),
            limits: RefCell::default(),
        }
    }

    /// Method and target of every request.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.seen
            .borrow()
            .iter()
            .map(|r| format!("{} {}", r.method, r.target))
            .collect()
    }
}

/// A reply of status 200.
pub(crate) fn ok(body: &str) -> Answer {
    Answer::Reply(200, body.to_owned())
}

pub(crate) fn errno(number: i32) -> Errno {
    std::io::Error::from_raw_os_error(number).into()
}

impl Transport for FakeAgent {
    fn call(&self, socket: &Path, request: &Request, limit: Duration) -> Result<Reply, CallError> {
        self.seen.borrow_mut().push(request.clone());
        self.limits.borrow_mut().push(limit);
        let mut answers = self.answers.borrow_mut();
        let answer = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        };
        let socket = socket.to_owned();
        match answer.unwrap() {
            Answer::Reply(status, body) => Ok(Reply {
                status,
                body: body.into_bytes(),
            }),
            Answer::Refused => Err(CallError::Dial {
                socket,
                source: errno(111),
                retry: Retry::Soon,
            }),
            Answer::NoDirectory => Err(CallError::Dial {
                socket,
                source: errno(2),
                retry: Retry::Never,
            }),
            Answer::Reset => Err(CallError::Read {
                socket,
                source: errno(104),
            }),
            Answer::Closed => Err(CallError::Closed),
            Answer::Timeout => Err(CallError::Timeout),
        }
    }
}

/// An agent on a real socket. It takes one connection at a time and closes it
/// after one answer; the socket goes with it.
pub(crate) struct SocketAgent {
    socket: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl SocketAgent {
    /// Listens at `socket`. `answer` gives the bytes for a request; `None`
    /// closes the connection.
    pub(crate) fn start(
        socket: &Path,
        mut answer: impl FnMut(&Seen) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                let Some(request) = read_request(&stream) else {
                    continue;
                };
                log.lock().unwrap().push(request.clone());
                if let Some(bytes) = answer(&request) {
                    // The plugin may be gone, which is its business.
                    let _ = stream.write_all(&bytes);
                }
            }
        });
        Self {
            socket: socket.to_owned(),
            seen,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for SocketAgent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread from waiting for a connection.
        drop(UnixStream::connect(&self.socket));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.socket);
    }
}

fn read_request(stream: &UnixStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let line = lines.remove(0);
    let mut body = vec![0; content_length(&lines)];
    reader.read_exact(&mut body).ok()?;
    Some(Seen {
        line,
        headers: lines,
        body: String::from_utf8(body).unwrap(),
    })
}

fn content_length(headers: &[String]) -> usize {
    let value = headers
        .iter()
        .find_map(|h| h.strip_prefix("Content-Length: "));
    value.map_or(0, |digits| digits.parse().unwrap())
}

/// An HTTP reply as bytes.
pub(crate) fn http(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A recorded request and the reply to it.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) request: Seen,
    pub(crate) status: u16,
    pub(crate) reply_body: String,
    /// The reply as it was on the wire.
    pub(crate) reply: Vec<u8>,
}

impl Exchange {
    /// A string of the request's body.
    pub(crate) fn field(&self, key: &str) -> String {
        let body: Value = serde_json::from_str(&self.request.body).unwrap();
        body.get(key).and_then(Value::as_str).unwrap().to_owned()
    }
}

/// The exchanges of the golden file.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let text = include_str!("../golden/agent-http.txt");
    text.split(">>> request\n").skip(1).map(exchange).collect()
}

fn exchange(text: &str) -> Exchange {
    let (request, reply) = text.split_once("<<< response\n").unwrap();
    let (line, headers, body) = message(request);
    let request = Seen {
        line,
        headers,
        body,
    };
    let (line, headers, reply_body) = message(reply);
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let head = std::iter::once(line)
        .chain(headers)
        .collect::<Vec<_>>()
        .join("\r\n");
    let reply = format!("{head}\r\n\r\n{reply_body}").into_bytes();
    Exchange {
        request,
        status,
        reply_body,
        reply,
    }
}

/// First line, headers and body.
fn message(text: &str) -> (String, Vec<String>, String) {
    let (head, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines().map(str::to_owned);
    let line = lines.next().unwrap();
    let headers: Vec<String> = lines.collect();
    let body = rest.get(..content_length(&headers)).unwrap().to_owned();
    (line, headers, body)
}

/// What the original printed in a case of the golden file.
pub(crate) fn printed(case: &str) -> &'static str {
    let text = include_str!("../golden/plugin.txt");
    let found = text
        .split("## ")
        .find_map(|part| part.strip_prefix(case)?.strip_prefix('\n'));
    found
        .unwrap_or_else(|| panic!("no case {case:?} in plugin.txt"))
        .trim_end()
}

/// A reply with addresses of both families on `eth0`, one on `net1`, and
/// routes of both.
pub(crate) const DUAL: &str = r#"{"ips":[
    {"address":"10.6.0.4/16","gateway":"10.6.0.1","ipPool":"p4","nic":"eth0","version":4,"vlan":7},
    {"address":"fd00::4/112","ipPool":"p6","nic":"eth0","version":6},
    {"address":"10.7.0.4/16","gateway":"10.7.0.1","ipPool":"q4","nic":"net1","version":4}],
    "routes":[{"dst":"10.8.0.0/16","gw":"10.6.0.2","ifName":"eth0"},
    {"dst":"0.0.0.0/0","gw":"10.7.0.1","ifName":"net1"},
    {"dst":"0.0.0.0/0","gw":"10.6.0.1","ifName":"eth0"}]}"#;
