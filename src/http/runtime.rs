//! What the layer asks of an async runtime: to finish work nobody polls any more, and a pause.

use std::pin::Pin;
use std::time::Duration;

use tokio::runtime::Handle;

/// Work without an answer, boxed.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The async runtime that the layer runs on; [`Tokio`] unless another is given.
pub trait Runtime: Send + Sync + 'static {
    /// Runs a task to its end, on its own. Called where a client has gone away while its work was
    /// under way, from the drop of the future or body; must not block or panic. A runtime that is
    /// shutting down may drop the task: its operation is lapsed then, and resumed by the next
    /// request.
    fn spawn(&self, task: Task);

    /// A future that is ready when this much real time has passed.
    fn sleep(&self, time: Duration) -> Task;
}

/// Tokio. The default spawns onto the runtime that is current where a future or body is dropped,
/// which it is below a server; where there is none, the task is dropped, and its operation lapses.
/// Time must be enabled (`enable_time`, or `enable_all` as `#[tokio::main]` has it).
#[derive(Debug, Clone, Default)]
pub struct Tokio {
    handle: Option<Handle>,
}

impl Tokio {
    /// That of a handle, wherever a future or body is dropped.
    #[must_use]
    pub fn of(handle: Handle) -> Self {
        Tokio { handle: Some(handle) }
    }
}

impl Runtime for Tokio {
    fn spawn(&self, task: Task) {
        let current = || Handle::try_current().ok();
        if let Some(handle) = self.handle.clone().or_else(current) {
            handle.spawn(task);
        }
    }

    fn sleep(&self, time: Duration) -> Task {
        Box::pin(tokio::time::sleep(time))
    }
}
