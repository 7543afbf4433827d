//! The objects waiting to be reconciled: a set, so that it never holds more than there are objects, whether or not anybody
//! takes from it (a process that does not lead takes nothing).

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use kube::Resource;
use kube::runtime::controller::ReconcileRequest;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;

/// Object references waiting for their reconcile.
pub struct Queue<K: Resource<DynamicType = ()>> {
    waiting: Mutex<HashSet<ObjectRef<K>>>,
    added: Notify,
}

impl<K: Resource<DynamicType = ()>> Default for Queue<K> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), added: Notify::new() }
    }
}

impl<K: Resource<DynamicType = ()> + 'static> Queue<K> {
    /// Adds an object, unless it waits already.
    pub fn push(&self, name: &str, namespace: &str) {
        let reference = ObjectRef::new(name).within(namespace);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(reference);
        self.added.notify_one();
    }

    /// The objects as they come, without end. For one taker.
    pub fn requests(self: Arc<Self>) -> impl Stream<Item = Result<ReconcileRequest<K>, Infallible>> {
        futures::stream::unfold(self, |queue| async {
            loop {
                if let Some(reference) = queue.pop() {
                    return Some((Ok(ReconcileRequest::from(reference)), queue));
                }
                queue.added.notified().await;
            }
        })
    }

    fn pop(&self) -> Option<ObjectRef<K>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let next = waiting.iter().next().cloned()?;
        waiting.take(&next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use k8s_openapi::api::core::v1::Pod;

    #[tokio::test]
    async fn an_object_waits_once_however_often_it_is_added() {
        let queue = Arc::new(Queue::<Pod>::default());
        for name in ["a", "a", "b", "a"] {
            queue.push(name, "mail");
        }
        let mut requests = Box::pin(queue.clone().requests());
        let mut names = vec![
            requests.next().await.unwrap().unwrap().obj_ref.name,
            requests.next().await.unwrap().unwrap().obj_ref.name,
        ];
        names.sort();
        assert_eq!(names, ["a", "b"]);
        let waiting = tokio::spawn(async move { requests.next().await.unwrap().unwrap().obj_ref.name });
        queue.push("c", "mail");
        assert_eq!(waiting.await.unwrap(), "c");
    }
}
