//! The tasks that a role starts: they end with it.
//!
//! Owns: their start, in one place, and the lives of those that run beside calls. Never does: wait for
//! them. Invariant: a task has the wall clock of whoever starts it.

use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::locked;
use crate::api::time;

/// Starts `task` among `running`.
pub fn start<T: Send + 'static>(
    running: &mut JoinSet<T>,
    task: impl Future<Output = T> + Send + 'static,
) {
    running.spawn(time::on_same_machine(task));
}

/// Where tasks are started.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    running: Arc<Mutex<JoinSet<()>>>,
}

impl Tasks {
    /// Runs `task` beside the caller.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = locked(&self.running);
        while running.try_join_next().is_some() {}
        start(&mut running, task);
    }

    /// Runs `task` to its end even if the caller leaves; `None` if it panics, or the agent ends.
    pub async fn finish<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.spawn(async move {
            // Who left need not be told.
            let _ = tell.send(task.await);
        });
        told.await.ok()
    }

    /// Ends them all, at whatever they wait for: they share what keeps them.
    pub fn abort(&self) {
        locked(&self.running).abort_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_outlives_its_caller_and_not_the_agent() {
        let tasks = Tasks::default();
        let (go, gone) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let call = tasks.finish(async move {
            let _ = gone.await;
            tell.send("done").unwrap();
        });
        assert!(futures::poll!(Box::pin(call)).is_pending(), "and dropped");
        go.send(()).unwrap();
        assert_eq!(told.await, Ok("done"));

        let (tell, told) = oneshot::channel::<()>();
        tasks.spawn(async move {
            let _held = tell;
            std::future::pending::<()>().await;
        });
        tasks.abort();
        assert!(told.await.is_err());
    }
}
