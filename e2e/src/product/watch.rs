//! One field of one object, followed by `kubectl get --watch`: for acting the moment it changes.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cluster::kubectl::Kubectl;
use crate::wait::{ensure_going_on, patient};

/// How often a wait looks whether a person wants it to end.
const BREATH: Duration = Duration::from_millis(200);

/// A field that is being followed; ends with this value.
#[derive(Debug)]
pub struct Watch {
    kubectl: Child,
    values: Receiver<String>,
}

impl Watch {
    /// Follows what `field`, a JSON path such as `.status.allocatedIPCount`, selects.
    pub fn of(kubectl: &Kubectl, kind: &str, name: &str, field: &str) -> Result<Self> {
        let output = format!("--output=jsonpath={{{field}}}{{\"\\n\"}}");
        let mut command = kubectl.command(&["get", kind, name, "--watch", &output]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().context("cannot start kubectl")?;
        let lines = child.stdout.take().context("kubectl has no output")?;
        let (send, values) = mpsc::channel();
        thread::spawn(move || {
            // Ends with kubectl, or when nobody listens any more.
            let lines = BufReader::new(lines).lines().map_while(Result::ok);
            lines.map(|line| send.send(line)).all(|sent| sent.is_ok())
        });
        Ok(Self {
            kubectl: child,
            values,
        })
    }

    /// The first value from now on that `wanted` makes something of; an absent field is empty.
    ///
    /// Errors: none came within `limit`, made [`patient`] (the last one is told), or the watch ended.
    pub fn first<T>(
        &self,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let limit = patient(limit);
        let end = Instant::now() + limit;
        let mut last = "nothing".to_owned();
        while Instant::now() < end {
            ensure_going_on()?;
            match self.values.recv_timeout(BREATH) {
                Ok(value) => match wanted(&value) {
                    Some(found) => return Ok(found),
                    None => last = value,
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("{what}: kubectl's watch ended"),
            }
        }
        bail!(
            "not within {} s: {what}: the last value was {last}",
            limit.as_secs()
        )
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
