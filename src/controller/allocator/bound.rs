//! Whose Pod it is: the node that a Pod is, or was, bound to.
//!
//! Owns: what is known of Pods that are gone, for as long as their agents may still give back their
//! addresses. Never does: judge a Pod. A uid never changes its node, so an old answer is a right one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use ipam::name::{NodeName, PodName, Uid};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

use crate::api::pod;
use crate::error::ErrorChain;
use crate::kube_io::cache::{Cache, Change, Key};
use crate::kube_io::locked;

/// How many Pods that are gone are remembered.
const GONE_MAX: usize = 65_536;

/// Why a request is not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotBound {
    /// The Pod is another node's, or nobody's.
    #[error("{0}")]
    Elsewhere(String),
    /// It can't be told.
    #[error("the Pod could not be read: {0}")]
    Unknown(String),
}

/// The Pods and their nodes. Clones share what is remembered.
#[derive(Clone)]
pub(crate) struct Bound {
    pods: Cache<Pod>,
    client: Client,
    gone: Arc<Mutex<Gone>>,
}

#[derive(Default)]
struct Gone {
    nodes: BTreeMap<Uid, NodeName>,
    order: VecDeque<Uid>,
}

impl Bound {
    /// By a cache of Pods, which somebody runs; `client` is for those it does not have yet.
    pub(crate) fn new(pods: Cache<Pod>, client: Client) -> Self {
        let gone: Arc<Mutex<Gone>> = Arc::default();
        let noted = Arc::clone(&gone);
        pods.on_change(move |change: &Change<Pod>| {
            if change.old.uid() != change.new.uid()
                && let Some(pod) = change.old.object()
                && let Some(node) = node_of(pod)
            {
                locked(&noted).note(pod::uid(pod), node);
            }
        });
        Self { pods, client, gone }
    }

    /// Errors: the Pod is not there, or on another node.
    pub(super) async fn claims(
        &self,
        pod: &PodName,
        uid: &Uid,
        node: &NodeName,
    ) -> Result<(), NotBound> {
        match self.node_now(pod, uid).await? {
            Some(found) if found == *node => Ok(()),
            found => Err(elsewhere(pod, uid, node, found.as_ref())),
        }
    }

    /// Of a Pod that is gone nobody knows the node for ever. Then its records tell: none that names
    /// another node than the caller's is touched.
    ///
    /// Errors: the Pod is, or was, on another node.
    pub(super) async fn releases(
        &self,
        pod: &PodName,
        uid: &Uid,
        node: &NodeName,
    ) -> Result<(), NotBound> {
        let remembered = locked(&self.gone).nodes.get(uid).cloned();
        let found = match remembered {
            Some(found) => Some(found),
            None => self.node_now(pod, uid).await?,
        };
        match found {
            Some(found) if found != *node => Err(elsewhere(pod, uid, node, Some(&found))),
            Some(_) | None => Ok(()),
        }
    }

    /// The node of the Pod with this uid; none if it has none, or there is no such Pod.
    async fn node_now(&self, pod: &PodName, uid: &Uid) -> Result<Option<NodeName>, NotBound> {
        let (namespace, name) = pod.parts();
        let cached = self.pods.get(&Key::namespaced(namespace, name));
        let cached = cached.filter(|pod| pod::uid(pod) == *uid);
        if let Some(node) = cached.as_deref().and_then(node_of) {
            return Ok(Some(node));
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let live = api.get_opt(name).await;
        let live = live.map_err(|error| NotBound::Unknown(ErrorChain(&error).to_string()))?;
        Ok(live
            .filter(|pod| pod::uid(pod) == *uid)
            .as_ref()
            .and_then(node_of))
    }
}

impl Gone {
    fn note(&mut self, uid: Uid, node: NodeName) {
        if self.nodes.insert(uid.clone(), node).is_none() {
            self.order.push_back(uid);
        }
        while self.order.len() > GONE_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.nodes.remove(&oldest);
            }
        }
    }
}

fn elsewhere(pod: &PodName, uid: &Uid, node: &NodeName, found: Option<&NodeName>) -> NotBound {
    let found = found.map_or("no node", NodeName::as_str);
    NotBound::Elsewhere(format!(
        "Pod {pod} (uid {uid}) is on {found}, and the caller is the agent of {node}"
    ))
}

fn node_of(pod: &Pod) -> Option<NodeName> {
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    (!node.is_empty()).then(|| NodeName::new(node))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, node: Option<&str>, version: u64) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": node, "containers": []},
            "metadata": {"name": "a", "namespace": "shop", "uid": uid,
                "resourceVersion": version.to_string()}})
    }

    /// An API server that knows this Pod, or none.
    fn client(live: Option<Value>) -> Client {
        let service = tower::service_fn(move |_: Request<Body>| {
            let missing = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "reason": "NotFound", "message": "", "code": 404});
            let (code, body) = match &live {
                Some(pod) => (200, pod.to_string()),
                None => (404, missing.to_string()),
            };
            let answer = Response::builder().status(code);
            let answer = answer.body(Body::from(body.into_bytes())).unwrap();
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        Client::new(service, "default")
    }

    fn bound(cached: Option<Value>, live: Option<Value>) -> (Cache<Pod>, Bound) {
        let pods = Cache::new();
        let bound = Bound::new(pods.clone(), client(live));
        if let Some(pod) = cached {
            pods.apply_written(serde_json::from_value(pod).unwrap());
        }
        (pods, bound)
    }

    fn asked() -> (PodName, Uid, NodeName) {
        (
            PodName::new("shop", "a"),
            Uid::from("u1"),
            NodeName::new("n1"),
        )
    }

    #[tokio::test]
    async fn a_pod_of_another_node_is_refused_by_the_cache_and_by_a_live_read() {
        let (name, uid, node) = asked();
        let table = [
            (Some(pod("u1", Some("n1"), 1)), None, true),
            (Some(pod("u1", Some("n2"), 1)), None, false),
            (None, Some(pod("u1", Some("n1"), 1)), true),
            (None, Some(pod("u1", Some("n2"), 1)), false),
            // Not bound yet as far as the cache knows, which is behind.
            (
                Some(pod("u1", None, 1)),
                Some(pod("u1", Some("n1"), 2)),
                true,
            ),
            // Another Pod has the name.
            (
                Some(pod("u2", Some("n1"), 1)),
                Some(pod("u2", Some("n1"), 1)),
                false,
            ),
            (None, None, false),
        ];
        for (cached, live, may) in table {
            let (_, bound) = bound(cached.clone(), live.clone());
            let claims = bound.claims(&name, &uid, &node).await;
            assert_eq!(claims.is_ok(), may, "{cached:?} {live:?}");
        }
    }

    /// Its node and so its agent know it by another uid than its copy here, which may be made anew.
    #[tokio::test]
    async fn a_static_pod_is_known_by_the_uid_that_its_node_has_for_it() {
        let copy = |uid: &str| {
            let mut copy = pod(uid, Some("n1"), 1);
            copy["metadata"]["annotations"] = json!({pod::MIRROR: "u1"});
            copy["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n", "controller": true}]);
            copy
        };
        let (name, uid, node) = asked();
        let other = NodeName::new("n2");
        for (cached, live) in [(Some(copy("c1")), None), (None, Some(copy("c2")))] {
            let (_, bound) = bound(cached, live);
            assert!(bound.claims(&name, &uid, &node).await.is_ok());
            assert!(bound.claims(&name, &uid, &other).await.is_err());
            let by_copy = Uid::from("c1");
            assert!(bound.claims(&name, &by_copy, &node).await.is_err());
        }
        let (pods, bound) = bound(Some(copy("c1")), None);
        pods.apply_gone(&Key::namespaced("shop", "a"), "c1");
        assert!(bound.releases(&name, &uid, &node).await.is_ok());
        assert!(bound.releases(&name, &uid, &other).await.is_err());
    }

    #[tokio::test]
    async fn of_a_pod_that_is_gone_its_node_may_give_back_and_no_other_that_is_known() {
        let (name, uid, node) = asked();
        let (pods, here) = bound(Some(pod("u1", Some("n1"), 1)), None);
        pods.apply_gone(&Key::namespaced("shop", "a"), "u1");
        assert!(here.releases(&name, &uid, &node).await.is_ok());
        let other = NodeName::new("n2");
        assert!(here.releases(&name, &uid, &other).await.is_err());
        assert!(here.claims(&name, &uid, &node).await.is_err());
        // Nobody knows: its records tell.
        let (_, nowhere) = bound(None, None);
        assert!(nowhere.releases(&name, &uid, &other).await.is_ok());
    }

    #[test]
    fn as_many_are_remembered_as_there_is_room_for() {
        let mut gone = Gone::default();
        for number in 0..=GONE_MAX {
            gone.note(Uid::from(number.to_string().as_str()), NodeName::new("n1"));
        }
        assert_eq!((gone.nodes.len(), gone.order.len()), (GONE_MAX, GONE_MAX));
        assert!(!gone.nodes.contains_key(&Uid::from("0")), "the oldest went");
    }
}
