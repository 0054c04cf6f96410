//! Work that was asked for and takes a while. An operation belongs to the daemon, not to the client: whoever asked may
//! leave, come back and look. The last 256 are remembered; a request id that was seen within the hour names the same work.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use proto::v1::{Operation, OperationError, ReloadReport};
use tokio::sync::{mpsc, watch};

use super::convert::time;

const KEPT: usize = 256;
const STEPS_MAX: usize = 1000;
const REQUEST_ID_LIFE: Duration = Duration::from_secs(3600);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Order {
    pub kind: &'static str,
    pub target: String,
    /// Chosen by the client; empty = none.
    pub request_id: String,
    /// The rest of the request as text: a request id must not be used twice with different arguments.
    pub arguments: String,
    pub holder: String,
}

/// How an operation ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    Done { result: String, reload: Option<ReloadReport> },
    Failed { error: OperationError, reload: Option<ReloadReport> },
    Cancelled,
}

/// The request id was used for something else.
#[derive(Debug, PartialEq, Eq)]
pub struct AlreadyExists {
    pub id: String,
}

struct Entry {
    order: Order,
    begun: Instant,
    state: watch::Sender<Operation>,
}

/// The registry. Cheap to clone.
#[derive(Clone, Default)]
pub struct Operations {
    entries: Arc<Mutex<VecDeque<Entry>>>,
}

impl Operations {
    /// Runs `work` in a task of its own and returns the operation as it stands at the beginning; or, for a request id
    /// that is known, the operation that it named.
    pub fn begin<F>(
        &self,
        order: Order,
        now: Instant,
        work: impl FnOnce(mpsc::UnboundedSender<String>) -> F,
    ) -> Result<Operation, AlreadyExists>
    where
        F: Future<Output = Ending> + Send + 'static,
    {
        let mut entries = self.lock();
        if let Some(known) = repeated(&entries, &order, now) {
            return known;
        }
        let operation = opened(&order);
        let (state, _) = watch::channel(operation.clone());
        make_room(&mut entries);
        entries.push_back(Entry { order, begun: now, state: state.clone() });
        let (progress, steps) = mpsc::unbounded_channel();
        tokio::spawn(follow(work(progress), steps, state));
        Ok(operation)
    }

    pub fn find(&self, id: &str) -> Option<Operation> {
        self.watch(id).map(|state| state.borrow().clone())
    }

    /// Newest first.
    pub fn list(&self) -> Vec<Operation> {
        self.lock().iter().rev().map(|entry| entry.state.borrow().clone()).collect()
    }

    pub fn watch(&self, id: &str) -> Option<watch::Receiver<Operation>> {
        self.lock().iter().find(|entry| entry.state.borrow().id == id).map(|entry| entry.state.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn repeated(entries: &VecDeque<Entry>, order: &Order, now: Instant) -> Option<Result<Operation, AlreadyExists>> {
    if order.request_id.is_empty() {
        return None;
    }
    let known = entries.iter().rev().find(|entry| {
        entry.order.request_id == order.request_id && now.saturating_duration_since(entry.begun) < REQUEST_ID_LIFE
    })?;
    let operation = known.state.borrow().clone();
    let same = (known.order.kind, &known.order.target, &known.order.arguments)
        == (order.kind, &order.target, &order.arguments);
    Some(if same { Ok(operation) } else { Err(AlreadyExists { id: operation.id }) })
}

/// Forgets the oldest that has ended, or the oldest of all when every one still runs.
fn make_room(entries: &mut VecDeque<Entry>) {
    while entries.len() >= KEPT {
        let ended = entries.iter().position(|entry| entry.state.borrow().ended.is_some());
        entries.remove(ended.unwrap_or(0));
    }
}

fn opened(order: &Order) -> Operation {
    let mut id = uuid::Uuid::new_v4().simple().to_string();
    id.truncate(12);
    Operation {
        id,
        request_id: order.request_id.clone(),
        kind: order.kind.to_owned(),
        target: order.target.clone(),
        holder: order.holder.clone(),
        state: "running".to_owned(),
        started: time(SystemTime::now()),
        ..Operation::default()
    }
}

async fn follow(
    work: impl Future<Output = Ending> + Send + 'static,
    mut steps: mpsc::UnboundedReceiver<String>,
    state: watch::Sender<Operation>,
) {
    // In a task of its own, so that work that panics still ends as a failed operation.
    let mut work = tokio::spawn(work);
    let ending = loop {
        tokio::select! {
            biased;
            Some(step) = steps.recv() => state.send_modify(|operation| note(operation, step)),
            ended = &mut work => break ended.unwrap_or_else(|_| crashed()),
        }
    };
    state.send_modify(|operation| {
        while let Ok(step) = steps.try_recv() {
            note(operation, step);
        }
        close(operation, ending);
    });
}

fn note(operation: &mut Operation, step: String) {
    if operation.steps.len() < STEPS_MAX {
        operation.steps.push(step);
    }
}

fn close(operation: &mut Operation, ending: Ending) {
    operation.ended = Some(time(SystemTime::now()));
    match ending {
        Ending::Done { result, reload } => {
            operation.state = "done".to_owned();
            operation.result = result;
            operation.reload = reload;
        }
        Ending::Failed { error, reload } => {
            operation.state = "failed".to_owned();
            operation.error = Some(error);
            operation.reload = reload;
        }
        Ending::Cancelled => operation.state = "cancelled".to_owned(),
    }
}

fn crashed() -> Ending {
    let error = OperationError {
        code: "internal".to_owned(),
        exit: 1,
        message: "the operation broke off unexpectedly".to_owned(),
        hint: "the daemon's log says more".to_owned(),
        ..OperationError::default()
    };
    Ending::Failed { error, reload: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn order(request_id: &str, arguments: &str) -> Order {
        Order {
            kind: "restart",
            target: "shop".into(),
            request_id: request_id.into(),
            arguments: arguments.into(),
            holder: "anna".into(),
        }
    }

    async fn done(_: mpsc::UnboundedSender<String>) -> Ending {
        Ending::Done { result: "restarted".into(), reload: None }
    }

    async fn end_of(operations: &Operations, id: &str) -> Operation {
        let mut state = operations.watch(id).unwrap();
        let ended = state.wait_for(|operation| operation.ended.is_some());
        tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap().unwrap().clone()
    }

    #[tokio::test]
    async fn steps_and_result_are_recorded_in_order() {
        let operations = Operations::default();
        let begun = operations.begin(order("", ""), Instant::now(), |progress| async move {
            progress.send("slot 0 ready".into()).unwrap();
            progress.send("slot 1 ready".into()).unwrap();
            done(progress).await
        });
        let ended = end_of(&operations, &begun.unwrap().id).await;
        assert_eq!(ended.steps, ["slot 0 ready", "slot 1 ready"]);
        assert_eq!((ended.state.as_str(), ended.result.as_str()), ("done", "restarted"));
    }

    #[tokio::test]
    async fn the_same_request_id_within_the_hour_names_the_same_operation() {
        let operations = Operations::default();
        let now = Instant::now();
        let first = operations.begin(order("r1", "a"), now, done).unwrap();
        let again = operations.begin(order("r1", "a"), now + Duration::from_secs(3599), done).unwrap();
        let later = operations.begin(order("r1", "a"), now + Duration::from_secs(3600), done).unwrap();
        assert_eq!(first.id, again.id);
        assert_ne!(first.id, later.id);
    }

    #[tokio::test]
    async fn the_same_request_id_with_other_arguments_is_refused() {
        let operations = Operations::default();
        let now = Instant::now();
        let first = operations.begin(order("r1", "a"), now, done).unwrap();
        assert_eq!(operations.begin(order("r1", "b"), now, done), Err(AlreadyExists { id: first.id }));
        assert_eq!(operations.list().len(), 1);
    }

    #[tokio::test]
    async fn requests_without_an_id_are_never_the_same() {
        let operations = Operations::default();
        let now = Instant::now();
        let ids = [0, 1].map(|_| operations.begin(order("", ""), now, done).unwrap().id);
        assert_ne!(ids[0], ids[1]);
    }

    #[tokio::test]
    async fn a_running_operation_outlives_the_ring() {
        let operations = Operations::default();
        let now = Instant::now();
        let running = operations.begin(order("", ""), now, |_| std::future::pending()).unwrap();
        for _ in 0..KEPT + 5 {
            let begun = operations.begin(order("", ""), now, done).unwrap();
            end_of(&operations, &begun.id).await;
        }
        assert_eq!(operations.list().len(), KEPT);
        assert!(operations.find(&running.id).is_some());
    }

    #[tokio::test]
    async fn work_that_panics_ends_as_failed() {
        let operations = Operations::default();
        let begun = operations.begin(order("", ""), Instant::now(), |_| async { panic!("on purpose") });
        let ended = end_of(&operations, &begun.unwrap().id).await;
        assert_eq!(ended.state, "failed");
        assert_eq!(ended.error.unwrap().exit, 1);
    }
}
